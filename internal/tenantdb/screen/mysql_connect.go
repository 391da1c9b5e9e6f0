package screen

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
)

// These constants are capability flags. Source: MySQL client/server protocol,
// "Capabilities Flags", and MariaDB, "Connecting", for the extended ones.
const (
	mysqlCapMySQL      = 1 << 0 // not set by MariaDB, which then has extended capabilities
	mysqlCapProtocol41 = 1 << 9
	MySQLCapSSL        = 1 << 11
	mysqlCapEOF        = 1 << 24 // CLIENT_DEPRECATE_EOF
	mariaDBCapMetadata = 1 << 4  // MARIADB_CLIENT_CACHE_METADATA
)

// These plugins are known to the driver and need data of a certain form.
const (
	pluginNative  = "mysql_native_password"
	pluginEd25519 = "client_ed25519"
	pluginSHA256  = "sha256_password"
	pluginCaching = "caching_sha2_password"
)

const (
	nativeScramble  = 20 // bytes of the challenge
	ed25519Scramble = 32
	maxPluginName   = 64
	maxRSABits      = 8192 // of the key that encrypts a password; a longer key costs too much time
)

// greeting checks the server's first packet.
// Source: MySQL client/server protocol, "Protocol::HandshakeV10".
func (s *MySQL) greeting(p []byte) error {
	if p[0] == mysqlERR {
		return s.refusal(p, phaseEnded)
	}
	malformed := &ProtocolError{Rule: "malformed greeting"}
	if p[0] != 10 {
		return malformed
	}
	_, p, ok := mysqlText(p[1:])
	// The fields are: connection id, 8 bytes of challenge, filler,
	// capabilities, character set, status, capabilities, length, reserved, 12
	// bytes of challenge, NUL.
	const fixed = 4 + 8 + 1 + 2 + 1 + 2 + 2 + 1 + 10 + 12 + 1
	if !ok || len(p) < fixed {
		return malformed
	}
	capabilities := uint32(binary.LittleEndian.Uint16(p[13:])) | uint32(binary.LittleEndian.Uint16(p[18:]))<<16
	if capabilities&mysqlCapProtocol41 == 0 {
		return malformed
	}
	plugin, _, _ := bytes.Cut(p[fixed:], []byte{0})
	if len(plugin) > maxPluginName {
		return malformed
	}
	s.offersTLS = capabilities&MySQLCapSSL != 0
	s.plugin = string(plugin)
	s.phase = phaseIdle
	return nil
}

// auth checks the server's reply to the client's authentication.
// Source: MySQL client/server protocol, "Authentication Phase".
func (s *MySQL) auth(p []byte) error {
	if s.authPackets++; s.authPackets > maxMySQLAuthPackets {
		return &ProtocolError{Rule: "too many rounds of authentication"}
	}
	ok := false
	switch p[0] {
	case mysqlERR:
		return s.refusal(p, phaseEnded)
	case mysqlOK:
		var status uint16
		status, ok = mysqlStatus(p)
		ok = ok && status&mysqlMoreResults == 0
		s.phase = phaseIdle
	case mysqlEOF:
		ok = s.switchPlugin(p[1:])
	case mysqlMoreData: // for other plugins, the driver treats this packet as a successful log-in
		ok = (s.plugin == pluginCaching || s.plugin == pluginSHA256) && isAuthData(p[1:])
	}
	if !ok {
		return &ProtocolError{Rule: "malformed authentication packet"}
	}
	return nil
}

// switchPlugin checks a request to authenticate with another plugin.
// Source: MySQL client/server protocol, "Protocol::AuthSwitchRequest".
func (s *MySQL) switchPlugin(p []byte) bool {
	name, data, ok := mysqlText(p)
	if !ok || name == "" || len(name) > maxPluginName {
		return false
	}
	s.plugin = name
	data = bytes.TrimSuffix(data, []byte{0})
	switch name {
	case pluginNative:
		return len(data) >= nativeScramble
	case pluginEd25519:
		return len(data) == ed25519Scramble
	}
	return true
}

// isAuthData checks for the data that the driver's plugins expect: one byte
// with the state of caching_sha2_password, or an RSA key in PEM form.
func isAuthData(p []byte) bool {
	if len(p) == 1 {
		return p[0] == 3 || p[0] == 4 // fast authentication succeeded, or full authentication is needed
	}
	block, _ := pem.Decode(p)
	if block == nil {
		return false
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return false
	}
	public, ok := key.(*rsa.PublicKey)
	return ok && public.N.BitLen() <= maxRSABits
}

// respond records the client's answer to the greeting; p is the content of that
// packet.
// Source: MySQL client/server protocol, "Protocol::HandshakeResponse41".
func (s *MySQL) respond(p []byte) {
	s.responded = true
	if s.phase != phaseIdle || len(p) < 32 {
		s.breakOff("the driver answered what is no greeting")
		return
	}
	capabilities := binary.LittleEndian.Uint32(p)
	s.deprecateEOF = capabilities&mysqlCapEOF != 0
	s.cacheMetadata = capabilities&mysqlCapMySQL == 0 && binary.LittleEndian.Uint32(p[28:])&mariaDBCapMetadata != 0
	s.phase = phaseAuth
}

// breakOff makes the next Read fail.
func (s *MySQL) breakOff(what string) { s.broken = &ProtocolError{Rule: what} }
