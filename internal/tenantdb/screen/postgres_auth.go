package screen

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"strconv"
)

// These constants are the codes of the authentication messages.
const (
	authOK           = 0
	authMD5          = 5
	authSASL         = 10
	authSASLContinue = 11
	authSASLFinal    = 12
)

// MaxIterations is the most iterations of SCRAM that a server may ask for. Each costs this
// process a hash; PostgreSQL's own number is 4,096.
const MaxIterations = 100_000

const (
	maxSalt       = 1 << 10 // bytes of SCRAM's salt
	maxMechanisms = 16
)

// authentication follows the beginning of a session. It lets only the messages
// that a server may send, in the allowed order, reach the driver.
type authentication struct {
	started bool // the driver's first message, which has no type, was sent
	state   authState
	nonce   []byte // the driver's nonce in SCRAM
	key     bool   // BackendKeyData was received
}

type authState byte

const (
	authBegun      authState = iota // nothing has been requested yet
	authRefused                     // a method that the driver refuses: the driver ends the connection
	authMD5Asked                    // the driver answers next
	authMD5Sent                     //
	authSCRAMAsked                  // the driver sends its nonce next
	authNonceSent                   //
	authComputing                   // the driver has the challenge and computes its proof
	authProofSent                   //
	authVerified                    // the server has sent its own proof
	authDone                        // the server has accepted the log-in
)

// accept reports whether a message of the kind is expected before the session
// is ready. The method message checks the content of an authentication message.
func (a *authentication) accept(kind byte) error {
	switch {
	case kind == 'R' && a.started && a.state != authDone && a.state != authRefused:
		return nil
	case kind == 'K' && a.state == authDone && !a.key:
		a.key = true
		return nil
	case kind == 'Z' && a.state == authDone:
		return nil
	}
	return outOfTurn(kind)
}

// sent records what the driver sends before the session is ready.
func (a *authentication) sent(p []byte) {
	if !a.started {
		a.started = true
		return
	}
	if len(p) == 0 || p[0] != 'p' {
		return
	}
	switch a.state {
	case authMD5Asked:
		a.state = authMD5Sent
	case authSCRAMAsked: // a mechanism, a length, and "n,,n=,r=" with the nonce
		if _, nonce, ok := bytes.Cut(p, []byte(",r=")); ok {
			a.nonce = bytes.Clone(nonce)
		}
		a.state = authNonceSent
	case authComputing:
		a.state = authProofSent
	default: // later messages contain more
	}
}

// message checks an authentication message. After a challenge of SCRAM, it
// returns when the driver may hash the password.
func (a *authentication) message(body []byte, slot *hashingSlot) error {
	code, rest := binary.BigEndian.Uint32(body), body[4:]
	switch {
	case code == authOK && len(rest) == 0 && (a.state == authBegun || a.state == authMD5Sent || a.state == authVerified):
		a.state = authDone
	case code == authMD5 && len(rest) == 4 && a.state == authBegun:
		a.state = authMD5Asked
	case code == authSASL && a.state == authBegun:
		a.state = authSCRAMAsked
		return checkMechanisms(rest)
	case code == authSASLContinue && a.state == authNonceSent:
		a.state = authComputing
		iterations, err := checkChallenge(rest, a.nonce)
		if err != nil {
			return err
		}
		return slot.take(iterations)
	case code == authSASLFinal && a.state == authProofSent:
		a.state = authVerified
	case code < authSASL && code != authOK && code != authMD5 && len(rest) == 0 && a.state == authBegun:
		a.state = authRefused // a password in clear, Kerberos, …: the driver reports it
	default:
		return broken('R', "asks for what may not be asked for now")
	}
	return nil
}

// checkMechanisms checks a list of names that ends with an empty name.
func checkMechanisms(list []byte) error {
	if bytes.Count(list, []byte{0}) > maxMechanisms+1 || !bytes.HasSuffix(list, []byte{0, 0}) ||
		bytes.Contains(list[:len(list)-2], []byte{0, 0}) || list[0] == 0 {
		return broken('R', "is no list of mechanisms")
	}
	return nil
}

// checkChallenge checks the server's first message of SCRAM and returns its number
// of iterations. After this check, the driver has no reason left to end the
// connection instead of hashing.
// Source: RFC 5802, section 7, server-first-message.
func checkChallenge(message, nonce []byte) (iterations int, _ error) {
	r, rest, ok := bytes.Cut(message, []byte(",s="))
	salt, count, found := bytes.Cut(rest, []byte(",i="))
	own, isNonce := bytes.CutPrefix(r, []byte("r="))
	if !ok || !found || !isNonce || len(own) <= len(nonce) || !bytes.HasPrefix(own, nonce) || bytes.IndexByte(own, ',') >= 0 {
		return 0, broken('R', "is no challenge of SCRAM")
	}
	decoded := make([]byte, base64.StdEncoding.DecodedLen(len(salt)))
	n, err := base64.StdEncoding.Decode(decoded, salt)
	if err != nil || n == 0 || n > maxSalt {
		return 0, broken('R', "has an unusable salt")
	}
	asked, err := strconv.ParseUint(string(count), 10, 31)
	if err != nil || asked == 0 {
		return 0, broken('R', "has no number of iterations")
	}
	if asked > MaxIterations {
		return 0, ErrIterations
	}
	return int(asked), nil
}
