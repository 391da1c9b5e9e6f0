package client

import (
	"context"
	"sync"
	"time"
)

const (
	// renewBefore is how long before its end an access token is renewed: an upload cannot be
	// repeated with another token.
	renewBefore = 30 * time.Second
	// refreshTimeout limits one attempt of an exchange. The API accepts a refresh token again
	// for 10 seconds after its first use; a second attempt must be within them.
	refreshTimeout = 4 * time.Second
)

// authorizer has the token of a caller.
type authorizer interface {
	// token returns the access token for a call.
	token(ctx context.Context, c *Client) (string, error)
	// renew replaces the token used, which has expired, unless another call has done so.
	// refused is the API's answer to the token.
	renew(ctx context.Context, c *Client, used string, refused error) error
}

type apiKey string

func (k apiKey) token(context.Context, *Client) (string, error) { return string(k), nil }

// renew fails: an API key cannot be renewed.
func (k apiKey) renew(_ context.Context, _ *Client, _ string, refused error) error { return refused }

// session is a sign-in.
type session struct {
	changed func(Tokens)

	mu      sync.Mutex // guards the rest
	tokens  Tokens
	expires time.Time // when the access token does; zero if that is unknown
	current *exchange // under way, or nil
}

// exchange is one exchange of the refresh token. All calls wait for the same one, since a
// refresh token is used once.
type exchange struct {
	done chan struct{}
	err  error // valid after done is closed
}

func newSession(t Tokens, changed func(Tokens)) *session {
	return &session{tokens: t, changed: changed}
}

func (s *session) token(ctx context.Context, c *Client) (string, error) {
	s.mu.Lock()
	t, late := s.tokens, !s.expires.IsZero() && time.Until(s.expires) < renewBefore
	s.mu.Unlock()
	if t.RefreshToken == "" || t.AccessToken != "" && !late {
		return t.AccessToken, nil
	}
	if err := s.exchange(ctx, c, t.AccessToken); err != nil {
		if t.AccessToken == "" {
			return "", err
		}
		return t.AccessToken, nil // which may still be valid
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens.AccessToken, nil
}

func (s *session) renew(ctx context.Context, c *Client, used string, refused error) error {
	s.mu.Lock()
	refreshable := s.tokens.RefreshToken != ""
	s.mu.Unlock()
	if !refreshable {
		return refused
	}
	return s.exchange(ctx, c, used)
}

// exchange replaces the tokens, unless used is no longer the access token. A call that ends
// while it waits does not end the exchange for the others, nor lose the new tokens.
func (s *session) exchange(ctx context.Context, c *Client, used string) error {
	s.mu.Lock()
	if s.tokens.AccessToken != used {
		s.mu.Unlock()
		return nil
	}
	x := s.current
	if x == nil {
		x = &exchange{done: make(chan struct{})}
		s.current = x
		go s.run(context.WithoutCancel(ctx), c, x, s.tokens.RefreshToken)
	}
	s.mu.Unlock()
	select {
	case <-x.done:
		return x.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *session) run(ctx context.Context, c *Client, x *exchange, refreshToken string) {
	defer close(x.done)
	caller := &Client{base: c.base, http: c.http, retries: 1, timeout: refreshTimeout}
	begun := time.Now()
	tokens, err := call[Tokens](ctx, caller, request{method: "POST", path: "/api/auth/refresh", body: RefreshRequest{RefreshToken: refreshToken}, refresh: true}, nil)
	if err == nil && s.changed != nil {
		s.changed(*tokens)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x.err, s.current = err, nil
	if err == nil {
		s.tokens, s.expires = *tokens, begun.Add(time.Duration(tokens.ExpiresIn)*time.Second)
	}
}
