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

	"github.com/stoahq/stoa/internal/keyring"
)

// Tokens are the tokens that an owner's consent gives. The refresh token can be used
// once: its use issues two new tokens and invalidates both old ones.
type Tokens struct {
	Access  keyring.Secret
	Refresh keyring.Secret
	Expires time.Time // expiry of Access
}

// NewVerifier returns a new PKCE verifier (RFC 7636, 4.1).
func NewVerifier() keyring.Secret {
	var b [32]byte
	_, _ = rand.Read(b[:]) // it never fails
	return keyring.NewSecret(base64.RawURLEncoding.EncodeToString(b[:]))
}

// AuthorizeURL returns the page where the owner consents. The browser returns to
// redirect with state and a code for Exchange, or with an error.
func (c *Client) AuthorizeURL(redirect, state string, verifier keyring.Secret) string {
	challenge := sha256.Sum256([]byte(verifier.Reveal()))
	return c.base + "/v1/oauth/authorize?" + url.Values{
		"client_id": {c.id}, "response_type": {"code"}, "redirect_uri": {redirect}, "state": {state},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	}.Encode()
}

// Exchange exchanges the code of a consent for tokens. A code can be used once.
func (c *Client) Exchange(ctx context.Context, code keyring.Secret, redirect string, verifier keyring.Secret) (Tokens, error) {
	return c.token(ctx, url.Values{
		"grant_type": {"authorization_code"}, "code": {code.Reveal()},
		"redirect_uri": {redirect}, "code_verifier": {verifier.Reveal()},
	})
}

// Refresh exchanges a refresh token for new tokens. After an error for which Refused is
// false, it is unknown whether the token is spent.
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
	return Tokens{Access: answer.Access, Refresh: answer.Refresh, Expires: asked.Add(lifetime).UTC().Truncate(time.Microsecond)}, nil
}

// Refused reports whether err means that a code or a refresh token is spent, expired or
// revoked. It is false when the credentials of the application are not accepted, which
// only the operator can correct.
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

// Check fails when Supabase does not accept the credentials of the application. It sends
// a token that does not exist, so that no token is spent.
func (c *Client) Check(ctx context.Context) error {
	_, err := c.Refresh(ctx, keyring.NewSecret("none"))
	if Refused(err) {
		return nil
	}
	return err
}

// oauthCode returns the error code of RFC 6749, 5.2, or "" for anything else.
func oauthCode(v any) string {
	code, _ := v.(string)
	switch code {
	case "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope":
		return code
	}
	return ""
}

// Revoke revokes the consent that the refresh token belongs to.
func (c *Client) Revoke(ctx context.Context, refresh keyring.Secret) error {
	body := struct {
		ID      string `json:"client_id"`
		Secret  string `json:"client_secret"`
		Refresh string `json:"refresh_token"`
	}{ID: c.id, Secret: c.secret.Reveal(), Refresh: refresh.Reveal()}
	return c.do(ctx, call{method: http.MethodPost, path: "/v1/oauth/revoke", json: body, quiet: true}, nil)
}
