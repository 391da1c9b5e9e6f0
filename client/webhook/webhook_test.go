package webhook_test

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/stoahq/stoa/client/webhook"
)

var (
	secret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	other  = "whsec_" + base64.StdEncoding.EncodeToString([]byte("another secret of the endpoint"))
	body   = []byte(`{"type":"credits.spent","data":{"amount":"12.5"}}`)
	now    = time.Unix(1800000000, 0)
)

// sign signs with the library of Standard Webhooks.
func sign(t *testing.T, secret string, at time.Time, body []byte) string {
	t.Helper()
	signer, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := signer.Sign("msg_1", at, body)
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

func header(at time.Time, signature string) http.Header {
	h := http.Header{}
	h.Set("webhook-id", "msg_1")
	h.Set("webhook-timestamp", strconv.FormatInt(at.Unix(), 10))
	h.Set("webhook-signature", signature)
	return h
}

func TestVerify(t *testing.T) {
	t.Parallel()
	good := sign(t, secret, now, body)
	changed := func(name, value string) http.Header {
		h := header(now, good)
		h.Set(name, value)
		return h
	}
	for name, c := range map[string]struct {
		header http.Header
		body   []byte
		want   error
	}{
		"signed":                  {header(now, good), body, nil},
		"several signatures":      {header(now, "v1a,AAAA v1,AAAA "+sign(t, other, now, body)+" "+good), body, nil},
		"signed by the other":     {header(now, sign(t, other, now, body)), body, webhook.ErrSignature},
		"another body":            {header(now, good), append([]byte(" "), body...), webhook.ErrSignature},
		"another id":              {changed("webhook-id", "msg_2"), body, webhook.ErrSignature},
		"another time":            {header(now.Add(time.Second), good), body, webhook.ErrSignature},
		"4 minutes old":           {header(now.Add(-4*time.Minute), sign(t, secret, now.Add(-4*time.Minute), body)), body, nil},
		"6 minutes old":           {header(now.Add(-6*time.Minute), sign(t, secret, now.Add(-6*time.Minute), body)), body, webhook.ErrTime},
		"from the future":         {header(now.Add(6*time.Minute), sign(t, secret, now.Add(6*time.Minute), body)), body, webhook.ErrTime},
		"the largest time":        {changed("webhook-timestamp", "9223372036854775807"), body, webhook.ErrTime},
		"the smallest time":       {changed("webhook-timestamp", "-9223372036854775808"), body, webhook.ErrTime},
		"a time that is no time":  {changed("webhook-timestamp", "soon"), body, webhook.ErrHeader},
		"no id":                   {changed("webhook-id", ""), body, webhook.ErrHeader},
		"no signature":            {changed("webhook-signature", ""), body, webhook.ErrHeader},
		"another version":         {changed("webhook-signature", "v2"+strings.TrimPrefix(good, "v1")), body, webhook.ErrSignature},
		"no version":              {changed("webhook-signature", strings.TrimPrefix(good, "v1,")), body, webhook.ErrSignature},
		"an empty signature":      {changed("webhook-signature", "v1,"), body, webhook.ErrSignature},
		"a shortened signature":   {changed("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString([]byte("x"))), body, webhook.ErrSignature},
		"thousands of signatures": {changed("webhook-signature", strings.Repeat("v1,AAAA ", 5000)+good), body, webhook.ErrSignature},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, err := webhook.New(secret)
			if err != nil {
				t.Fatal(err)
			}
			if err := v.Verify(c.header, c.body, now); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// TestRotation verifies with both secrets of a rotation.
func TestRotation(t *testing.T) {
	t.Parallel()
	v, err := webhook.New(other, secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{secret, other} {
		if err := v.Verify(header(now, sign(t, s, now, body)), body, now); err != nil {
			t.Error(err)
		}
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "whsec_", "whsec_?", "whsec_AAAA", strings.TrimPrefix(secret, "whsec_")} {
		if _, err := webhook.New(secret, bad); err == nil {
			t.Errorf("the secret %q is accepted", bad)
		} else if bad != "" && bad != "whsec_" && strings.Contains(err.Error(), bad) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
	if _, err := webhook.New(); err == nil {
		t.Error("no secret is accepted")
	}
}

// TestRead reads requests as a server receives them.
func TestRead(t *testing.T) {
	t.Parallel()
	v, err := webhook.New(secret)
	if err != nil {
		t.Fatal(err)
	}
	read := func(sent []byte, h http.Header) ([]byte, error) {
		r := httptest.NewRequest("POST", "/hook", strings.NewReader(string(sent)))
		r.Header = h
		return v.Read(r)
	}
	if got, err := read(body, header(time.Now(), sign(t, secret, time.Now(), body))); err != nil || string(got) != string(body) {
		t.Errorf("%s, %v", got, err)
	}
	long := []byte(strings.Repeat("x", 1<<20+1))
	if _, err := read(long, header(time.Now(), sign(t, secret, time.Now(), long))); !errors.Is(err, webhook.ErrTooLong) {
		t.Errorf("a long body: %v", err)
	}
	r := httptest.NewRequest("POST", "/hook", io.MultiReader(strings.NewReader("x"), failing{}))
	if _, err := v.Read(r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a body that ends early: %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
