package accounts

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
)

// FuzzAccessToken checks that only an unmodified token that was signed with the key
// authenticates a user, and that any other text fails with token_invalid or
// token_expired.
func FuzzAccessToken(f *testing.F) {
	key := base64.StdEncoding.EncodeToString(make([]byte, keyring.KeySize)) // the same in every process
	tokens := newTokens(testRing(f, keyring.NewSecret("k:"+key)), "stoa", time.Minute, time.Now)
	p := authz.Principal{UserID: stoa.UserID{1}, SessionID: stoa.SessionID{2}}
	// The claims are fixed, so that every fuzzing process has the same token.
	id, secret := tokens.ring.Current()
	unsigned := jwt.NewWithClaims(jwt.SigningMethodHS256, claims{RegisteredClaims: jwt.RegisteredClaims{
		Issuer: "stoa", Subject: p.UserID.String(), Audience: jwt.ClaimStrings{audience}, ExpiresAt: jwt.NewNumericDate(time.Unix(1<<33, 0)), ID: "1",
	}, SessionID: p.SessionID.String()})
	unsigned.Header["kid"] = id
	good, err := unsigned.SignedString(secret)
	if err != nil {
		f.Fatal(err)
	}
	header, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	encode := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	for _, seed := range []string{
		good, "", ".", "..", "...", good + "=", good + ".", " " + good, good[:len(good)-1], good[:len(good)-1] + "B",
		encode(`{"alg":"none"}`) + "." + payload + ".", encode(`{"alg":"HS512","kid":"k"}`) + "." + payload + "." + signature,
		encode(`{"alg":"HS256","kid":""}`) + "." + payload + "." + signature, header + "." + encode(`{"exp":1e999}`) + "." + signature,
		header + "." + encode(`{"sub":{}}`) + "." + signature, encode(`{"alg":"HS256","kid":["k"]}`) + "." + payload + "." + signature, "eyJ\x00." + payload + "." + signature,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		got, err := tokens.verify(token)
		if token == good {
			if err != nil || got != p {
				t.Fatalf("the good one: %+v, %v", got, err)
			}
			return
		}
		if code := stoa.CodeOf(err); code != stoa.TokenInvalid && code != stoa.TokenExpired || got != (authz.Principal{}) {
			t.Fatalf("%q is %+v, %v", token, got, err)
		}
	})
}
