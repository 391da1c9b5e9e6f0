package supabase

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/stoahq/stoa/keyring"
)

// Tokens are what an owner's consent gives. The refresh token is good for one
// use, which makes both tokens anew and ends these.
type Tokens struct {
	Access  keyring.Secret
	Refresh keyring.Secret
	Expires time.Time // of Access
}

// NewVerifier returns a fresh PKCE verifier (RFC 7636, 4.1).
func NewVerifier() keyring.Secret {
	var b [32]byte
	_, _ = rand.Read(b[:]) // it never fails
	return keyring.NewSecret(base64.RawURLEncoding.EncodeToString(b[:]))
}

// AuthorizeURL is where the owner's browser goes to consent. It comes back to
// redirect with state and a code for Exchange, or with an error.
func (c *Client) AuthorizeURL(redirect, state string, verifier keyring.Secret) string {
	challenge := sha256.Sum256([]byte(verifier.Reveal()))
	return c.base + "/v1/oauth/authorize?" + url.Values{
		"client_id": {c.id}, "response_type": {"code"}, "redirect_uri": {redirect}, "state": {state},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	}.Encode()
}

// Exchange turns the code of a consent into tokens, once.
func (c *Client) Exchange(ctx context.Context, code keyring.Secret, redirect string, verifier keyring.Secret) (Tokens, error) {
	return c.token(ctx, url.Values{
		"grant_type": {"authorization_code"}, "code": {code.Reveal()},
		"redirect_uri": {redirect}, "code_verifier": {verifier.Reveal()},
	})
}

// Refresh spends a refresh token. When it fails for another reason than
// Refused, nobody knows whether the token is spent.
func (c *Client) Refresh(ctx context.Context, refresh keyring.Secret) (Tokens, error) {
	return c.token(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh.Reveal()}})
}

func (c *Client) token(ctx context.Context, form url.Values) (Tokens, error) {
	var answer struct {
		Access  keyring.Secret `json:"access_token"`
		Refresh keyring.Secret `json:"refresh_token"`
		Seconds float64        `json:"expires_in"`
	}
	asked := time.Now()
	if err := c.do(ctx, call{method: http.MethodPost, path: "/v1/oauth/token", form: form}, &answer); err != nil {
		return Tokens{}, err
	}
	if answer.Access.IsZero() || answer.Refresh.IsZero() {
		return Tokens{}, unavailable(errors.New("an answer without tokens"))
	}
	lifetime := time.Duration(min(max(answer.Seconds, 1), 30*24*3600)) * time.Second
	return Tokens{answer.Access, answer.Refresh, asked.Add(lifetime).UTC().Truncate(time.Microsecond)}, nil
}

// Refused reports whether err is Supabase's final word on a code or a refresh
// token: it is spent, expired or revoked. That the application's own
// credentials are not accepted is the operator's affair and no such word.
func Refused(err error) bool {
	var a *Answer
	if !errors.As(err, &a) {
		return false
	}
	switch a.Code {
	case "invalid_client", "unauthorized_client":
		return false
	case "invalid_grant":
		return true
	}
	switch a.Status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusGone, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// Check asks whether Supabase accepts the application's own credentials. It
// spends nothing: the token it shows is nobody's.
func (c *Client) Check(ctx context.Context) error {
	_, err := c.Refresh(ctx, keyring.NewSecret("none"))
	if Refused(err) {
		return nil
	}
	return err
}

// oauthCode reads the code of RFC 6749, 5.2, and nothing that is none.
func oauthCode(v any) string {
	code, _ := v.(string)
	switch code {
	case "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope":
		return code
	}
	return ""
}

// Revoke ends what the refresh token stands for.
func (c *Client) Revoke(ctx context.Context, refresh keyring.Secret) error {
	body := struct {
		ID      string `json:"client_id"`
		Secret  string `json:"client_secret"`
		Refresh string `json:"refresh_token"`
	}{c.id, c.secret.Reveal(), refresh.Reveal()}
	return c.do(ctx, call{method: http.MethodPost, path: "/v1/oauth/revoke", json: body, quiet: true}, nil)
}
