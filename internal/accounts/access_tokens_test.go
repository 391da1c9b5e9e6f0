package accounts

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

type object = map[string]any

// signToken signs any header and claims with HMAC-SHA-256, whatever algorithm the
// header names.
func signToken(t *testing.T, header, claims object, key []byte) string {
	t.Helper()
	var parts []string
	for _, part := range []object{header, claims} {
		b, err := json.Marshal(part)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, new(jwt.Token).EncodeSegment(b))
	}
	text := strings.Join(parts, ".")
	signature, err := jwt.SigningMethodHS256.Sign(text, key)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + new(jwt.Token).EncodeSegment(signature)
}

// goodToken returns the header and claims of a token for p.
func goodToken(p authz.Principal) (header, claims object) {
	header = object{"alg": "HS256", "typ": "JWT", "kid": "test"}
	claims = object{
		"iss": "stoa", "aud": []string{audience}, "sub": p.UserID.String(), "sid": p.SessionID.String(),
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(), "jti": "1",
	}
	return header, claims
}

func TestAuthenticateCraftedTokens(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		ring := testRing(t)
		a := setup(t, db, ring)
		p := principal(t, a, register(t, a))
		_, key := ring.Current()
		for name, c := range map[string]struct {
			change func(header, claims object)
			want   stoa.Code
		}{
			"good":                   {func(_, _ object) {}, ""},
			"audience as string":     {func(_, c object) { c["aud"] = audience }, ""},
			"alg none":               {func(h, _ object) { h["alg"] = "none" }, stoa.TokenInvalid},
			"alg RS256":              {func(h, _ object) { h["alg"] = "RS256" }, stoa.TokenInvalid},
			"alg ES256":              {func(h, _ object) { h["alg"] = "ES256" }, stoa.TokenInvalid},
			"alg HS512":              {func(h, _ object) { h["alg"] = "HS512" }, stoa.TokenInvalid},
			"alg in another case":    {func(h, _ object) { h["alg"] = "hs256" }, stoa.TokenInvalid},
			"no alg":                 {func(h, _ object) { delete(h, "alg") }, stoa.TokenInvalid},
			"unknown kid":            {func(h, _ object) { h["kid"] = "other" }, stoa.TokenInvalid},
			"no kid":                 {func(h, _ object) { delete(h, "kid") }, stoa.TokenInvalid},
			"kid of another type":    {func(h, _ object) { h["kid"] = 1 }, stoa.TokenInvalid},
			"no exp":                 {func(_, c object) { delete(c, "exp") }, stoa.TokenInvalid},
			"expired":                {func(_, c object) { c["exp"] = time.Now().Add(-time.Second).Unix() }, stoa.TokenExpired},
			"expires this moment":    {func(_, c object) { c["exp"] = time.Now().Unix() }, stoa.TokenExpired},
			"exp of another type":    {func(_, c object) { c["exp"] = "tomorrow" }, stoa.TokenInvalid},
			"not valid yet":          {func(_, c object) { c["nbf"] = time.Now().Add(time.Hour).Unix() }, stoa.TokenInvalid},
			"wrong audience":         {func(_, c object) { c["aud"] = []string{"stoa-mail"} }, stoa.TokenInvalid},
			"no audience":            {func(_, c object) { delete(c, "aud") }, stoa.TokenInvalid},
			"wrong issuer":           {func(_, c object) { c["iss"] = "stoa-staging" }, stoa.TokenInvalid},
			"no issuer":              {func(_, c object) { delete(c, "iss") }, stoa.TokenInvalid},
			"no subject":             {func(_, c object) { delete(c, "sub") }, stoa.TokenInvalid},
			"subject is no id":       {func(_, c object) { c["sub"] = "' OR 1=1 --" }, stoa.TokenInvalid},
			"another subject":        {func(_, c object) { c["sub"] = stoa.NewID[stoa.UserID]().String() }, stoa.TokenInvalid},
			"no session":             {func(_, c object) { delete(c, "sid") }, stoa.TokenInvalid},
			"session does not exist": {func(_, c object) { c["sid"] = stoa.NewID[stoa.SessionID]().String() }, stoa.SessionRevoked},
			"oversized":              {func(_, c object) { c["pad"] = strings.Repeat("x", maxAccessToken) }, stoa.TokenInvalid},
		} {
			header, claims := goodToken(p)
			c.change(header, claims)
			got, err := a.Authenticate(t.Context(), signToken(t, header, claims, key))
			if stoa.CodeOf(err) != c.want {
				t.Errorf("%s: error %v, want code %q", name, err, c.want)
			}
			if want := map[bool]authz.Principal{true: p}[c.want == ""]; got != want {
				t.Errorf("%s: principal %+v, want %+v", name, got, want)
			}
		}
	})
}

func TestAuthenticateDamagedTokens(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		session := register(t, a)
		good := session.AccessToken.Reveal()
		header, claims := goodToken(principal(t, a, session))
		expired := object{"iss": "stoa", "aud": audience, "exp": 1}
		otherKey := make([]byte, keyring.KeySize)
		parts := strings.Split(good, ".")
		for name, token := range map[string]string{
			"empty": "", "dots": "..", "garbage": "garbage", "a refresh token": session.RefreshToken.Reveal(),
			"other key": signToken(t, header, claims, otherKey), "other key, expired": signToken(t, header, expired, otherKey),
			"empty key":           signToken(t, header, claims, nil),
			"no signature":        parts[0] + "." + parts[1] + ".",
			"two parts":           parts[0] + "." + parts[1],
			"four parts":          good + ".x",
			"changed claims":      parts[0] + "." + new(jwt.Token).EncodeSegment([]byte(`{"sub":"x"}`)) + "." + parts[2],
			"truncated signature": good[:len(good)-4],
			"padded":              good + "=",
			"with its scheme":     "Bearer " + good,
			"long":                strings.Repeat("a.", 1<<20),
		} {
			got, err := a.Authenticate(t.Context(), token)
			if stoa.CodeOf(err) != stoa.TokenInvalid || got != (authz.Principal{}) {
				t.Errorf("%s: principal %+v, error %v", name, got, err)
			}
		}
	})
}

// TestAuthenticateUnsignedToken checks a token without a signature, whose header names
// the algorithm "none".
func TestAuthenticateUnsignedToken(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		header, claims := goodToken(principal(t, a, register(t, a)))
		for _, alg := range []string{"none", "None", "NONE", ""} {
			header["alg"] = alg
			token := signToken(t, header, claims, nil)
			_, err := a.Authenticate(t.Context(), token[:strings.LastIndexByte(token, '.')+1])
			wantCode(t, err, stoa.TokenInvalid)
		}
	})
}

// TestAuthenticateOtherAlgorithm checks a token that is signed correctly with the
// current key. Only the list of accepted algorithms rejects it.
func TestAuthenticateOtherAlgorithm(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		ring := testRing(t)
		a := setup(t, db, ring)
		_, claims := goodToken(principal(t, a, register(t, a)))
		id, key := ring.Current()
		for method, want := range map[jwt.SigningMethod]stoa.Code{
			jwt.SigningMethodHS256: "", jwt.SigningMethodHS384: stoa.TokenInvalid, jwt.SigningMethodHS512: stoa.TokenInvalid,
		} {
			token := jwt.NewWithClaims(method, jwt.MapClaims(claims))
			token.Header["kid"] = id
			signed, err := token.SignedString(key)
			if err != nil {
				t.Fatal(err)
			}
			_, err = a.Authenticate(t.Context(), signed)
			wantCode(t, err, want)
		}
	})
}

// TestVerifiedToken checks that a token which was right once expires all the same, and that
// one which differs in any byte is checked anew.
func TestVerifiedToken(t *testing.T) {
	t.Parallel()
	now := time.Now()
	tokens := newTokens(testRing(t, keyring.Generate("test")), "stoa", time.Minute, func() time.Time { return now })
	p := authz.Principal{UserID: stoa.NewID[stoa.UserID](), SessionID: stoa.NewID[stoa.SessionID]()}
	secret, err := tokens.sign(p, now)
	testkit.Must(t, err)
	token := secret.Reveal()
	for range 3 {
		if got, err := tokens.verify(token); err != nil || got != p {
			t.Fatalf("%+v, %v, want %+v", got, err, p)
		}
		for i := range token {
			other := token[:i] + string(token[i]^1) + token[i+1:]
			_, err := tokens.verify(other)
			wantCode(t, err, stoa.TokenInvalid)
		}
	}
	now = now.Add(time.Minute + time.Second)
	_, err = tokens.verify(token)
	wantCode(t, err, stoa.TokenExpired)
}

func TestSigningKeyRotation(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		first, second := keyring.Generate("first"), keyring.Generate("second")
		before := setup(t, db, testRing(t, first))
		during := setup(t, db, testRing(t, second, first))
		after := setup(t, db, testRing(t, second))
		session := register(t, before)
		old := session.AccessToken.Reveal()

		if _, err := during.Authenticate(t.Context(), old); err != nil {
			t.Errorf("the old key is still configured: %v", err)
		}
		_, err := after.Authenticate(t.Context(), old)
		wantCode(t, err, stoa.TokenInvalid)

		fresh, err := during.Refresh(t.Context(), session.RefreshToken, Client{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := after.Authenticate(t.Context(), fresh.AccessToken.Reveal()); err != nil {
			t.Errorf("a token made after the rotation: %v", err)
		}
	})
}

func TestAccessTokenClaims(t *testing.T) {
	t.Parallel()
	tokens := newTokens(testRing(t), "stoa.example", 5*time.Minute, time.Now)
	p := authz.Principal{UserID: stoa.NewID[stoa.UserID](), SessionID: stoa.NewID[stoa.SessionID]()}
	now := time.Now()
	seen := map[string]bool{}
	for range 2 {
		signed, err := tokens.sign(p, now)
		if err != nil {
			t.Fatal(err)
		}
		var c claims
		token, _, err := jwt.NewParser().ParseUnverified(signed.Reveal(), &c)
		if err != nil {
			t.Fatal(err)
		}
		if token.Header["alg"] != "HS256" || token.Header["kid"] != "test" {
			t.Errorf("header %v", token.Header)
		}
		if c.Issuer != "stoa.example" || c.Subject != p.UserID.String() || c.SessionID != p.SessionID.String() {
			t.Errorf("claims %+v", c)
		}
		if got := c.ExpiresAt.Sub(c.IssuedAt.Time); got != 5*time.Minute {
			t.Errorf("valid for %v", got)
		}
		if len(signed.Reveal()) > maxAccessToken/2 {
			t.Errorf("%d bytes are close to the limit", len(signed.Reveal()))
		}
		seen[c.ID] = true
	}
	if len(seen) != 2 || seen[""] {
		t.Errorf("token ids %v are not unique", seen)
	}
}
