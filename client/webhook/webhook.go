// Package webhook verifies the webhooks of a Stoa platform. They are signed as Standard
// Webhooks (https://www.standardwebhooks.com) describes.
//
//	verifier, err := webhook.New(os.Getenv("STOA_WEBHOOK_SECRET"))
//	...
//	func(w http.ResponseWriter, r *http.Request) {
//		body, err := verifier.Read(r)
//		if err != nil {
//			http.Error(w, err.Error(), http.StatusUnauthorized)
//			return
//		}
//		...
//	}
package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	secretPrefix = "whsec_"
	// tolerance is how far the time of a webhook may be from now, for clocks that differ and
	// against webhooks that somebody else recorded and sends again.
	tolerance = 5 * time.Minute
	// longestBody is how many bytes Read reads.
	longestBody = 1 << 20
	// mostSignatures bounds the work for one webhook. There are several while a secret is
	// rotated.
	mostSignatures = 20
	shortestSecret = 16 // bytes
)

// Reasons why a webhook is refused.
var (
	ErrHeader    = errors.New("webhook: a header is missing or malformed")
	ErrTime      = errors.New("webhook: it is more than 5 minutes old, or from the future")
	ErrSignature = errors.New("webhook: no signature fits")
	ErrTooLong   = errors.New("webhook: the body is too long")
)

// Verifier verifies the webhooks of one endpoint. It is safe for concurrent use.
type Verifier struct{ keys [][]byte }

// New returns a verifier for the secrets of an endpoint, which begin with whsec_. During a
// rotation there are two.
func New(secrets ...string) (*Verifier, error) {
	v := &Verifier{}
	for _, secret := range secrets {
		text, ok := strings.CutPrefix(secret, secretPrefix)
		key, err := base64.StdEncoding.DecodeString(text)
		if !ok || err != nil || len(key) < shortestSecret {
			return nil, fmt.Errorf("webhook: a secret is not %s with at least %d bytes in base64", secretPrefix, shortestSecret)
		}
		v.keys = append(v.keys, key)
	}
	if v.keys == nil {
		return nil, errors.New("webhook: there is no secret")
	}
	return v, nil
}

// Read reads the body of a request and verifies it.
func (v *Verifier) Read(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, longestBody+1))
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	if len(body) > longestBody {
		return nil, ErrTooLong
	}
	if err := v.Verify(r.Header, body, time.Now()); err != nil {
		return nil, err
	}
	return body, nil
}

// Verify returns nil if one of the secrets signed the body not long before or after now. The
// body has the bytes that were received: JSON that was decoded and encoded again is another
// one.
func (v *Verifier) Verify(header http.Header, body []byte, now time.Time) error {
	id, sent := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(sent, 10, 64)
	if id == "" || err != nil || header.Get("webhook-signature") == "" {
		return ErrHeader
	}
	if at := time.Unix(seconds, 0); at.Before(now.Add(-tolerance)) || at.After(now.Add(tolerance)) {
		return ErrTime
	}
	signatures := strings.SplitN(header.Get("webhook-signature"), " ", mostSignatures+1)
	for _, key := range v.keys {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + sent + "."))
		mac.Write(body)
		want := mac.Sum(nil)
		for _, signature := range signatures[:min(len(signatures), mostSignatures)] {
			text, ok := strings.CutPrefix(signature, "v1,")
			if got, err := base64.StdEncoding.DecodeString(text); ok && err == nil && hmac.Equal(got, want) {
				return nil
			}
		}
	}
	return ErrSignature
}
