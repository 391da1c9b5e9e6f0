package accounts

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

func containsAll(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// TestMatchCode checks the values of RFC 6238, appendix B, shortened to six digits.
func TestMatchCode(t *testing.T) {
	t.Parallel()
	const secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ" // "12345678901234567890"
	for at, code := range map[int64]string{59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130"} {
		step := at / 30
		if got, ok := matchCode(secret, code, time.Unix(at, 0), 0); !ok || got != step {
			t.Errorf("%d: step %d, %t", at, got, ok)
		}
		if _, ok := matchCode(secret, code, time.Unix(at, 0), step); ok {
			t.Errorf("%d: a code is taken twice", at)
		}
		for _, off := range []int64{-30, 30} {
			if got, ok := matchCode(secret, code, time.Unix(at+off, 0), 0); !ok || got != step {
				t.Errorf("%d, a clock off by %d s: step %d, %t", at, off, got, ok)
			}
		}
		for _, off := range []int64{-90, 90} {
			if _, ok := matchCode(secret, code, time.Unix(at+off, 0), 0); ok {
				t.Errorf("%d: taken %d s off", at, off)
			}
		}
		for _, wrong := range []string{"", code + "0", "１" + code[1:], "abcdef", strings.Repeat("1", 1000)} {
			if _, ok := matchCode(secret, wrong, time.Unix(at, 0), 0); ok {
				t.Errorf("%d: %q is taken", at, wrong)
			}
		}
	}
}

// factorFixture is a user with a second factor.
type factorFixture struct {
	*testing.T
	*Accounts
	p      authz.Principal
	secret string
	codes  []keyring.Secret // recovery codes
}

func eachFactorFixture(t *testing.T, test func(factorFixture)) {
	t.Helper()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := factorFixture{T: t, Accounts: setup(t, db, testRing(t))}
		b.p = principal(t, b.Accounts, register(t, b.Accounts))
		markVerified(t, b.Accounts, registration().Email)
		e, err := b.EnrolFactor(t.Context(), b.p, keyring.NewSecret(goodPassword))
		if err != nil {
			t.Fatal(err)
		}
		b.secret = e.Secret.Reveal()
		login(t, b.Accounts, Client{}) // a factor that is not confirmed is not required
		_, err = b.ConfirmFactor(t.Context(), b.p, "000000")
		wantCode(t, err, stoa.InvalidCredentials)
		if b.codes, err = b.ConfirmFactor(t.Context(), b.p, b.code(0)); err != nil {
			t.Fatal(err)
		}
		b.forget()
		test(b)
	})
}

// code returns a code of the app, periods periods from now.
func (b factorFixture) code(periods int) string {
	b.Helper()
	code, err := totp.GenerateCode(b.secret, time.Now().Add(time.Duration(periods)*codePeriod))
	if err != nil {
		b.Fatal(err)
	}
	return code
}

// forget allows the current code to be used again, as if a period had passed.
func (b factorFixture) forget() {
	b.Helper()
	exec(b.T, b.db, `UPDATE second_factors SET last_step = 0`)
}

func (b factorFixture) challengeFor() keyring.Secret {
	b.Helper()
	_, err := b.Login(b.Context(), "owner@example.com", keyring.NewSecret(goodPassword), Client{})
	wantCode(b.T, err, stoa.SecondFactorRequired)
	var required *SecondFactorRequired
	if !errors.As(err, &required) {
		b.Fatalf("%v", err)
	}
	return required.Challenge
}

func (b factorFixture) second(challenge keyring.Secret, code string) error {
	_, err := b.LoginSecondFactor(b.Context(), challenge, code, Client{})
	return err
}

func TestSecondFactor(t *testing.T) {
	t.Parallel()
	eachFactorFixture(t, func(b factorFixture) {
		dump := dumpTables(b.T, b.db, "second_factors", "recovery_codes", "one_time_tokens")
		if strings.Contains(dump, b.secret) || strings.Contains(dump, b.codes[0].Reveal()) {
			b.Errorf("the secret or a recovery code is kept:\n%s", dump)
		}
		challenge := b.challengeFor()
		code := b.code(0)
		wantCode(b.T, b.second(newToken(secondFactor.prefix()), code), stoa.TokenInvalid)
		session, err := b.LoginSecondFactor(b.Context(), challenge, code, Client{})
		if err != nil || principal(b.T, b.Accounts, session).UserID != b.p.UserID {
			b.Fatal(err)
		}
		wantCode(b.T, b.second(challenge, b.code(1)), stoa.TokenInvalid)         // a challenge is accepted once
		wantCode(b.T, b.second(b.challengeFor(), code), stoa.InvalidCredentials) // a code is accepted once
		_, err = b.Login(b.Context(), "owner@example.com", keyring.NewSecret("wrong password"), Client{})
		wantCode(b.T, err, stoa.InvalidCredentials)
		expired := b.challengeFor()
		exec(b.T, b.db, `UPDATE one_time_tokens SET expires_at = $1`, time.Now().UTC().Add(-time.Second))
		wantCode(b.T, b.second(expired, b.code(1)), stoa.TokenExpired)
	})
}

// TestConcurrentSecondFactor checks that of several calls with one code only one signs
// in.
func TestConcurrentSecondFactor(t *testing.T) {
	t.Parallel()
	eachFactorFixture(t, func(b factorFixture) {
		challenges := make([]keyring.Secret, 6)
		for i := range challenges {
			challenges[i] = b.challengeFor()
		}
		code := b.code(0)
		got := codes(concurrently(len(challenges), func(i int) error { return b.second(challenges[i], code) }))
		if got[""] != 1 {
			b.Errorf("outcomes %v", got)
		}
	})
}

func TestRecoveryCodes(t *testing.T) {
	t.Parallel()
	eachFactorFixture(t, func(b factorFixture) {
		if len(b.codes) != recoveryCodes {
			b.Fatalf("%d codes", len(b.codes))
		}
		first := b.codes[0].Reveal()
		if err := b.second(b.challengeFor(), strings.ToUpper(strings.ReplaceAll(first, "-", " "))); err != nil {
			b.Errorf("as a person may type it: %v", err)
		}
		wantCode(b.T, b.second(b.challengeFor(), first), stoa.InvalidCredentials)
		wantCode(b.T, b.second(b.challengeFor(), newRecoveryCode()), stoa.InvalidCredentials)
		has, left, err := b.HasFactor(b.Context(), b.p)
		if !has || left != recoveryCodes-1 || err != nil {
			b.Errorf("%t, %d left, %v", has, left, err)
		}
		wantAudited(b.T, b.db, audit.RecoveryCodeUsed, audit.Success, 1)
	})
}

// TestWrongCodes checks that wrong codes are limited, and that nobody is locked out
// permanently.
func TestWrongCodes(t *testing.T) {
	t.Parallel()
	eachFactorFixture(t, func(b factorFixture) {
		challenge := b.challengeFor()
		for range maxFailures {
			wantCode(b.T, b.second(challenge, "000000"), stoa.InvalidCredentials)
		}
		for _, code := range []string{b.code(0), b.codes[0].Reveal()} {
			err := b.second(challenge, code)
			var limited *stoa.Error
			if !errors.As(err, &limited) || limited.Code != stoa.RateLimited || limited.RetryAfter <= 0 || limited.RetryAfter > lockTime+time.Second {
				b.Errorf("after %d wrong ones: %v", maxFailures, err)
			}
		}
		exec(b.T, b.db, `UPDATE second_factors SET locked_until = $1`, time.Now().UTC().Add(-time.Second))
		if err := b.second(challenge, b.code(0)); err != nil {
			b.Errorf("once the time is over: %v", err)
		}
		wantAudited(b.T, b.db, audit.SignedIn, audit.Failed, maxFailures+2)
	})
}

func TestDisableFactor(t *testing.T) {
	t.Parallel()
	eachFactorFixture(t, func(b factorFixture) {
		password := keyring.NewSecret(goodPassword)
		_, err := b.EnrolFactor(b.Context(), b.p, password)
		wantCode(b.T, err, stoa.Forbidden)
		_, err = b.EnrolFactor(b.Context(), b.p, keyring.NewSecret("wrong password"))
		wantCode(b.T, err, stoa.InvalidCredentials)
		wantCode(b.T, b.DisableFactor(b.Context(), b.p, keyring.NewSecret("wrong password")), stoa.InvalidCredentials)
		pending := b.challengeFor()
		for range 2 {
			if err := b.DisableFactor(b.Context(), b.p, password); err != nil {
				b.Fatal(err)
			}
		}
		login(b.T, b.Accounts, Client{})
		wantCode(b.T, b.second(pending, b.code(0)), stoa.TokenInvalid)
		_, err = b.ConfirmFactor(b.Context(), b.p, b.code(0))
		wantCode(b.T, err, stoa.NotFound)
		wantAudited(b.T, b.db, audit.FactorDisabled, audit.Success, 1)
	})
}

// TestPasswordChangeEndsChallenges checks that a password change invalidates pending
// challenges.
func TestPasswordChangeEndsChallenges(t *testing.T) {
	t.Parallel()
	eachFactorFixture(t, func(b factorFixture) {
		pending := b.challengeFor()
		if err := b.ChangePassword(b.Context(), b.p, keyring.NewSecret(goodPassword), keyring.NewSecret("quite another one")); err != nil {
			b.Fatal(err)
		}
		wantCode(b.T, b.second(pending, b.code(0)), stoa.TokenInvalid)
	})
}
