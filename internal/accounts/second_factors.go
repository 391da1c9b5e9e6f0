package accounts

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"image/png"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/keyrotation"
	"github.com/stoahq/stoa/internal/masterdb"
)

const (
	codePeriod = 30 * time.Second // the time step of a code (RFC 6238, 4.1)
	codeSkew   = 1                // accepted clock skew, in periods before and after

	recoveryCodes = 10
	recoverySize  = 16 // characters of base32: 80 bits

	// maxFailures wrong codes in a row lock the factor for lockTime. A code has a
	// million values, and is asked for only after the correct password.
	maxFailures = 10
	lockTime    = 15 * time.Minute
)

// SecondFactorRequired reports that the password is correct and a code is required
// too. The caller passes Challenge and the code to LoginSecondFactor within five
// minutes.
type SecondFactorRequired struct {
	Challenge keyring.Secret
}

func (e *SecondFactorRequired) Error() string { return e.Unwrap().Error() }

// Unwrap returns the error with its code.
func (e *SecondFactorRequired) Unwrap() error {
	return stoa.Errorf(stoa.SecondFactorRequired, "Your account has a second factor. Send its code with the challenge.")
}

// factor is a row of second_factors.
type factor struct {
	UserID      stoa.UserID
	Secret      string // encrypted
	LastStep    int64
	Failures    int
	LockedUntil *time.Time
	ConfirmedAt *time.Time
}

// SealedFactors returns the column with encrypted secrets, for key rotation.
func SealedFactors() keyrotation.Column {
	return keyrotation.Column{Table: "second_factors", Key: "user_id", Name: "secret", Owner: func(user string) string { return user }}
}

// Enrolment is the configuration of an authenticator app.
type Enrolment struct {
	Secret keyring.Secret // base32
	URL    keyring.Secret // otpauth://…, as a QR code shows it
}

// QRCode returns the QR code of the URL as a PNG image of size × size pixels.
func (e Enrolment) QRCode(size int) ([]byte, error) {
	key, err := otp.NewKeyFromURL(e.URL.Reveal())
	if err != nil {
		return nil, errors.New("accounts: the URL of an enrolment is malformed") // err may hold the secret
	}
	picture, err := key.Image(size, size)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = png.Encode(&out, picture)
	return out.Bytes(), err
}

// EnrolFactor starts the enrolment of a second factor (TOTP, RFC 6238), or starts
// it again. The factor is active after ConfirmFactor. It fails with
// invalid_credentials for a wrong password, with forbidden when a second factor is
// active, and with email_unverified until the address is verified.
func (a *Accounts) EnrolFactor(ctx context.Context, p authz.Principal, password keyring.Secret) (Enrolment, error) {
	_, email, err := a.reauthenticate(ctx, p, password, audit.FactorEnabled)
	if err != nil {
		return Enrolment{}, err
	}
	key, err := totp.Generate(totp.GenerateOpts{Issuer: "Stoa", AccountName: email})
	if err != nil {
		return Enrolment{}, err
	}
	sealed, err := a.opts.Encryption.Seal([]byte(key.Secret()), p.UserID.String())
	if err != nil {
		return Enrolment{}, err
	}
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := authz.CheckVerified(ctx, tx, p); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM second_factors WHERE user_id = $1 AND confirmed_at IS NULL`, p.UserID); err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `INSERT INTO second_factors (user_id, secret, created_at) VALUES ($1, $2, $3) ON CONFLICT (user_id) DO NOTHING`,
			p.UserID, sealed, tx.Now)
		if err == nil && n == 0 {
			return stoa.Errorf(stoa.Forbidden, "Your account has a second factor already. Disable it first.")
		}
		return err
	})
	if err != nil {
		return Enrolment{}, err
	}
	return Enrolment{Secret: keyring.NewSecret(key.Secret()), URL: keyring.NewSecret(key.URL())}, nil
}

// ConfirmFactor activates the second factor and returns the recovery codes, which
// cannot be read again. Each signs in once without the app. It fails with
// invalid_credentials for a wrong code, with not_found when no enrolment is
// pending, and with email_unverified until the address is verified.
func (a *Accounts) ConfirmFactor(ctx context.Context, p authz.Principal, code string) ([]keyring.Secret, error) {
	if err := p.InPerson(); err != nil {
		return nil, err
	}
	codes := make([]keyring.Secret, recoveryCodes)
	for i := range codes {
		codes[i] = keyring.NewSecret(newRecoveryCode())
	}
	var refused error
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		refused = nil
		if err := authz.CheckVerified(ctx, tx, p); err != nil {
			return err
		}
		f, err := lockFactor(ctx, tx, p.UserID)
		if err != nil {
			return err
		}
		if f == nil || f.ConfirmedAt != nil {
			return stoa.Errorf(stoa.NotFound, "There is no second factor to confirm. Enrol one first.")
		}
		if refused, err = a.verifyCode(ctx, tx, *f, code); err != nil || refused != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE second_factors SET confirmed_at = $1 WHERE user_id = $2`, tx.Now, p.UserID); err != nil {
			return err
		}
		for _, c := range codes {
			if _, err := tx.Exec(ctx, `INSERT INTO recovery_codes (user_id, hash) VALUES ($1, $2)`, p.UserID, recoveryHash(c.Reveal())); err != nil {
				return err
			}
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.FactorEnabled})
	})
	if err := eitherError(err, refused); err != nil {
		return nil, err
	}
	return codes, nil
}

// DisableFactor removes the second factor. It fails with invalid_credentials for a
// wrong password.
func (a *Accounts) DisableFactor(ctx context.Context, p authz.Principal, password keyring.Secret) error {
	if _, _, err := a.reauthenticate(ctx, p, password, audit.FactorDisabled); err != nil {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		n, err := tx.Exec(ctx, `DELETE FROM second_factors WHERE user_id = $1`, p.UserID)
		if err != nil || n == 0 {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.FactorDisabled})
	})
}

// HasFactor reports whether the caller's account has a second factor, and how
// many recovery codes are left.
func (a *Accounts) HasFactor(ctx context.Context, p authz.Principal) (has bool, left int, err error) {
	if err := p.SignedIn(); err != nil {
		return false, 0, err
	}
	var found struct{ Factors, Codes int }
	err = a.db.Get(ctx, &found, `
		SELECT (SELECT count(*) FROM second_factors WHERE user_id = $1 AND confirmed_at IS NOT NULL) AS factors,
			(SELECT count(*) FROM recovery_codes WHERE user_id = $1 AND used_at IS NULL) AS codes`, p.UserID)
	return found.Factors > 0, found.Codes, err
}

// challenge issues the token that proves a correct password, or returns the zero
// Secret for a user without a second factor.
func (a *Accounts) challenge(ctx context.Context, tx *masterdb.Tx, user stoa.UserID) (keyring.Secret, error) {
	var n int
	err := tx.Get(ctx, &n, `SELECT count(*) FROM second_factors WHERE user_id = $1 AND confirmed_at IS NOT NULL`, user)
	if err != nil || n == 0 {
		return keyring.Secret{}, err
	}
	return issueToken(ctx, tx, secondFactor, oneTime{UserID: &user, ExpiresAt: tx.Now.Add(lifetimes[secondFactor])})
}

// LoginSecondFactor opens a session with the challenge of Login and a code, of the
// app or a recovery code. A code is accepted once. It fails with token_invalid or
// token_expired for the challenge, with invalid_credentials for a wrong code, and
// with rate_limited after many wrong codes.
func (a *Accounts) LoginSecondFactor(ctx context.Context, challenge keyring.Secret, code string, c Client) (Session, error) {
	var session Session
	var refused error
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		session, refused = Session{}, nil
		t, err := lockToken(ctx, tx, secondFactor, challenge)
		if err != nil {
			return err
		}
		f, err := lockFactor(ctx, tx, *t.UserID)
		if err != nil {
			return err
		}
		if f == nil {
			return errLinkInvalid() // the factor was disabled meanwhile: the password suffices
		}
		by, refusal, err := a.verifyAnyCode(ctx, tx, *f, code, c)
		if err != nil {
			return err
		}
		if refused = refusal; refused != nil {
			return audit.Record(ctx, tx, c.as(f.UserID), audit.Event{Action: audit.SignedIn, Outcome: audit.Failed, Details: map[string]string{"by": "second factor"}})
		}
		if _, err := spendToken(ctx, tx, secondFactor, challenge); err != nil {
			return err
		}
		user, err := lockUser(ctx, tx, f.UserID)
		if err != nil {
			return err
		}
		session, err = a.signIn(ctx, tx, user, c, by)
		return err
	})
	if err := eitherError(err, refused); err != nil {
		return Session{}, err
	}
	return session, nil
}

// eitherError returns err or the refusal. A refusal is committed, so at most one
// of them is not nil.
func eitherError(err, refused error) error {
	if err != nil {
		return err
	}
	return refused
}

// verifyAnyCode verifies and uses up a recovery code or a code of the app.
func (a *Accounts) verifyAnyCode(ctx context.Context, tx *masterdb.Tx, f factor, code string, c Client) (by string, refused, err error) {
	if refused := f.checkLock(tx.Now); refused != nil {
		return "", refused, nil
	}
	if plain := normalRecoveryCode(code); len(plain) == recoverySize {
		n, err := tx.Exec(ctx, `UPDATE recovery_codes SET used_at = $1 WHERE user_id = $2 AND hash = $3 AND used_at IS NULL`,
			tx.Now, f.UserID, recoveryHash(plain))
		if err != nil || n == 0 {
			return "", errWrongCode(), errors.Join(err, f.recordFailure(ctx, tx))
		}
		return "recovery code", nil, audit.Record(ctx, tx, c.as(f.UserID), audit.Event{Action: audit.RecoveryCodeUsed})
	}
	refused, err = a.verifyCode(ctx, tx, f, code)
	return "second factor", refused, err
}

// verifyCode verifies and uses up a code of the app. It returns a refusal apart
// from an error, because the count of failures must be committed.
func (a *Accounts) verifyCode(ctx context.Context, tx *masterdb.Tx, f factor, code string) (refused, err error) {
	if refused := f.checkLock(tx.Now); refused != nil {
		return refused, nil
	}
	secret, err := a.opts.Encryption.Open(f.Secret, f.UserID.String())
	if err != nil {
		return nil, err
	}
	// The app uses the time of day, as this machine does; the master's clock is not
	// relevant here.
	step, ok := matchCode(string(secret), code, time.Now(), f.LastStep)
	if !ok {
		return errWrongCode(), f.recordFailure(ctx, tx)
	}
	_, err = tx.Exec(ctx, `UPDATE second_factors SET last_step = $1, failures = 0, locked_until = NULL WHERE user_id = $2`, step, f.UserID)
	return nil, err
}

// matchCode returns the period of a code, if it is later than the last accepted
// one.
func matchCode(secret, code string, now time.Time, last int64) (step int64, ok bool) {
	current := now.Unix() / int64(codePeriod.Seconds())
	for step := max(current-codeSkew, last+1); step <= current+codeSkew; step++ {
		ok, err := hotp.ValidateCustom(code, uint64(step), secret, hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1}) //nolint:gosec // no time is negative
		if err == nil && ok {
			return step, true
		}
	}
	return 0, false
}

// checkLock fails with rate_limited while the factor is locked.
func (f factor) checkLock(now time.Time) error {
	if f.LockedUntil == nil || !now.Before(*f.LockedUntil) {
		return nil
	}
	return errRateLimited(f.LockedUntil.Sub(now).Round(time.Second)+time.Second, "There were too many wrong codes. Try again later.")
}

// recordFailure counts a wrong code.
func (f factor) recordFailure(ctx context.Context, tx *masterdb.Tx) error {
	var until *time.Time
	failures := f.Failures + 1
	if failures >= maxFailures {
		at := tx.Now.Add(lockTime)
		until, failures = &at, 0
	}
	_, err := tx.Exec(ctx, `UPDATE second_factors SET failures = $1, locked_until = $2 WHERE user_id = $3`, failures, until, f.UserID)
	return err
}

// lockFactor reads the user's second factor and locks its row; nil when there is
// none.
func lockFactor(ctx context.Context, tx *masterdb.Tx, user stoa.UserID) (*factor, error) {
	var f factor
	err := tx.Get(ctx, &f, `
		SELECT user_id, secret, last_step, failures, locked_until, confirmed_at FROM second_factors WHERE user_id = $1`+tx.ForUpdate(), user)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil, nil //nolint:nilnil // documented: none
	}
	return &f, err
}

// newRecoveryCode returns a random code in groups of four characters.
func newRecoveryCode() string {
	s := strings.ToLower(rand.Text()[:recoverySize])
	return s[:4] + "-" + s[4:8] + "-" + s[8:12] + "-" + s[12:]
}

// normalRecoveryCode returns a code in lower case, without hyphens and spaces.
func normalRecoveryCode(s string) string {
	return strings.ToLower(strings.NewReplacer("-", "", " ", "").Replace(s))
}

func recoveryHash(code string) string { return keyring.NewSecret(normalRecoveryCode(code)).Hash() }

func errWrongCode() error {
	return stoa.Errorf(stoa.InvalidCredentials, "The code is not correct, or was used before. Wait for the next one.")
}
