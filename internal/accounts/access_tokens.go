package accounts

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/maypok86/otter/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
)

const (
	// audience distinguishes access tokens from tokens that are signed with the same
	// key for another purpose.
	audience = "stoa-api"

	// maxAccessToken is in bytes. An issued token has about 450; longer ones are
	// rejected without decoding.
	maxAccessToken = 2048

	maxVerified = 10_000 // tokens; about 200 bytes each
)

// claims are the contents of an access token: the subject is the user.
type claims struct {
	jwt.RegisteredClaims
	SessionID string `json:"sid"`
}

// tokens signs and verifies access tokens: JWT (RFC 7519) with HMAC-SHA-256.
type tokens struct {
	ring   *keyring.Ring
	issuer string
	ttl    time.Duration
	now    func() time.Time
	parser *jwt.Parser

	// Whether a signature is right never changes, so it is checked once. The keys are
	// hashes: what may be used to sign in is not kept.
	verified *otter.Cache[[sha256.Size]byte, verifiedToken]
}

// verifiedToken is a token whose signature is right.
type verifiedToken struct {
	principal authz.Principal
	expiresAt time.Time
}

// newTokens returns tokens whose lifetimes are measured with now, a clock that all
// replicas share.
func newTokens(ring *keyring.Ring, issuer string, ttl time.Duration, now func() time.Time) *tokens {
	return &tokens{
		ring: ring, issuer: issuer, ttl: ttl, now: now,
		verified: otter.Must(&otter.Options[[sha256.Size]byte, verifiedToken]{MaximumSize: maxVerified}),
		parser: jwt.NewParser(
			// The token must not select the algorithm (RFC 8725, 3.1).
			jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
			jwt.WithExpirationRequired(),
			jwt.WithIssuer(issuer),
			jwt.WithAudience(audience),
			jwt.WithStrictDecoding(),
			jwt.WithTimeFunc(now),
		),
	}
}

// sign returns an access token for p that is valid from now for the ttl.
func (t *tokens) sign(p authz.Principal, now time.Time) (keyring.Secret, error) {
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    t.issuer,
			Subject:   p.UserID.String(),
			Audience:  jwt.ClaimStrings{audience},
			IssuedAt:  jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(now.Add(t.ttl)),
			ID:        rand.Text(),
		},
		SessionID: p.SessionID.String(),
	})
	id, key := t.ring.Current()
	token.Header["kid"] = id
	signed, err := token.SignedString(key)
	return keyring.NewSecret(signed), err
}

// verify returns the principal of a token. The caller checks whether the session
// is open. It fails with token_invalid or token_expired.
func (t *tokens) verify(token string) (authz.Principal, error) {
	if len(token) > maxAccessToken {
		return authz.Principal{}, errAccessInvalid()
	}
	hash := sha256.Sum256([]byte(token))
	if known, ok := t.verified.GetIfPresent(hash); ok {
		if !t.now().Before(known.expiresAt) {
			return authz.Principal{}, errAccessExpired()
		}
		return known.principal, nil
	}
	var c claims
	_, err := t.parser.ParseWithClaims(token, &c, t.key)
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return authz.Principal{}, errAccessExpired()
	case err != nil:
		return authz.Principal{}, errAccessInvalid().WithCause(err)
	}
	user, userErr := stoa.ParseID[stoa.UserID](c.Subject)
	session, sessionErr := stoa.ParseID[stoa.SessionID](c.SessionID)
	if err := errors.Join(userErr, sessionErr); err != nil {
		return authz.Principal{}, errAccessInvalid().WithCause(err)
	}
	p := authz.Principal{UserID: user, SessionID: session}
	t.verified.Set(hash, verifiedToken{p, c.ExpiresAt.Time})
	return p, nil
}

// key returns the key that a token names. Removing a key from the configuration
// invalidates its tokens.
func (t *tokens) key(token *jwt.Token) (any, error) {
	id, _ := token.Header["kid"].(string)
	return t.ring.Key(id)
}

func errAccessExpired() error {
	return stoa.Errorf(stoa.TokenExpired, "The access token has expired. Refresh it, or sign in again.")
}

func errAccessInvalid() *stoa.Error {
	return stoa.Errorf(stoa.TokenInvalid, "The access token is not valid. Sign in again.")
}
