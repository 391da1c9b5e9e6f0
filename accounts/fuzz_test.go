package accounts

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/masterdb/masterdbtest"
)

// FuzzAccessToken: of all that can be sent, only what was signed here, as it
// was signed, names anybody; every other text is refused in our words.
func FuzzAccessToken(f *testing.F) {
	key := base64.StdEncoding.EncodeToString(make([]byte, keyring.KeySize)) // the same in every process
	tokens := newTokens(testRing(f, keyring.NewSecret("k:"+key)), "stoa", time.Minute, time.Now)
	p := access.Principal{UserID: stoa.UserID{1}, SessionID: stoa.SessionID{2}}
	// Of fixed claims, so that every fuzzing process has the same.
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
		if code := stoa.CodeOf(err); code != stoa.TokenInvalid && code != stoa.TokenExpired || got != (access.Principal{}) {
			t.Fatalf("%q is %+v, %v", token, got, err)
		}
	})
}

// FuzzAPIKey: only a key that was made here acts for anybody, and what is not
// one is refused before it costs a query.
func FuzzAPIKey(f *testing.F) {
	a := setup(f, masterdbtest.Open(f, masterdbtest.URL(f, masterdb.SQLite)), testRing(f))
	store := "Shop"
	r := registration()
	r.StoreName = &store
	session, made, err := a.Register(f.Context(), r)
	if err != nil {
		f.Fatal(err)
	}
	prove(f, a, r.Email)
	_, key, err := a.CreateKey(f.Context(), principal(f, a, session), made.ID, NewKey{Name: "K", Scopes: []string{"store:read"}})
	if err != nil {
		f.Fatal(err)
	}
	good := key.Reveal()
	for _, seed := range []string{
		good, newKey().Reveal(), keyPrefix, keyPrefix + strings.Repeat("A", keyRandom+keySum), strings.ToLower(good), good + " ", good[:len(good)-1], "sk_live_x",
		keyPrefix + strings.Repeat("\x00", keyRandom+keySum), keyPrefix + strings.Repeat("Ä", keyRandom),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := a.authenticateKey(t.Context(), text)
		if text == good {
			if err != nil || p.Key.StoreID != made.ID {
				t.Fatalf("the good one: %+v, %v", p, err)
			}
			return
		}
		if stoa.CodeOf(err) != stoa.TokenInvalid || p.IsKey() {
			t.Fatalf("%q is %+v, %v", text, p, err)
		}
		if looksLikeKey(text) && (len(text) != len(good) || !strings.HasPrefix(text, keyPrefix)) {
			t.Fatalf("%q looks like a key", text)
		}
	})
}
