package supabase

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
)

// answering returns a client of a server that gives every call the same answer.
func answering(t *testing.T, handle http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return New(Options{URL: s.URL + "/", ClientID: "app", ClientSecret: keyring.NewSecret(secret)})
}

const secret = "sba_marker_secret"

var token = keyring.NewSecret("sbp_marker_token")

func wantCode(t *testing.T, err error, want stoa.Code) *stoa.Error {
	t.Helper()
	var e *stoa.Error
	if !errors.As(err, &e) || e.Code != want {
		t.Fatalf("got %v, want %s", err, want)
	}
	return e
}

// TestRefusals checks that every error answer becomes one of the codes, with a message
// that may be shown.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		body   string
		want   stoa.Code
		says   string
	}{
		{401, `{"message":"Unauthorized"}`, stoa.SupabaseReconnect, "Connect Supabase again"},
		{403, `{"message":"Missing required scope: x"}`, stoa.SupabaseRefused, "lacks a right"},
		{403, `{"message":"Missing required scope: x"}`, stoa.SupabaseRefused, "says: Missing required scope: x"},
		{403, `{"message":"` + strings.Repeat("x", 100_000) + `"}`, stoa.SupabaseRefused, "xxx…"},
		{409, `{"message":"There is one."}`, stoa.SupabaseRefused, "says: There is one."},
		{429, ``, stoa.RateLimited, "no more calls"},
		{402, `{"message":"Pay  first.\u0007\n<b>"}`, stoa.SupabaseRefused, "says: Pay first. <b>"},
		{400, `{"message":["a","b"]}`, stoa.SupabaseRefused, "Supabase refuses this."},
		{404, `<html>no</html>`, stoa.SupabaseRefused, "Supabase refuses this."},
		{400, `{"message":"` + strings.Repeat("x", 100_000) + `"}`, stoa.SupabaseRefused, "xxx…"},
		{500, `{"message":"oops"}`, stoa.SupabaseUnavailable, "does not answer"},
		{503, ``, stoa.SupabaseUnavailable, "does not answer"},
		{302, ``, stoa.SupabaseRefused, "refuses"},
		{200, `nonsense`, stoa.SupabaseUnavailable, "does not answer"},
		{200, `{"not":"a list"}`, stoa.SupabaseUnavailable, "does not answer"},
		{200, `[` + strings.Repeat(" ", maxAnswer) + `]`, stoa.SupabaseUnavailable, "does not answer"},
	} {
		elsewhere := answering(t, func(http.ResponseWriter, *http.Request) { t.Error("the token was taken elsewhere") })
		client := answering(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", elsewhere.base)
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.body)
		})
		_, err := client.Organizations(t.Context(), token)
		e := wantCode(t, err, c.want)
		if !strings.Contains(e.Message, c.says) || len(e.Message) > 500 || strings.Contains(err.Error(), "marker") || strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("%d %.60s: %.600s", c.status, c.body, err)
		}
	}
}

// TestProjectRefusals checks that every call about a deleted project reports that, and
// that no error quotes what was sent.
func TestProjectRefusals(t *testing.T) {
	t.Parallel()
	const ref = "abcdefghijklmnopqrst"
	for status, want := range map[int]stoa.Code{404: stoa.SupabaseProjectRemoved, 403: stoa.SupabaseRefused, 400: stoa.SupabaseRefused, 502: stoa.SupabaseUnavailable} {
		client := answering(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, `{"message":"Failed to run sql query: ERROR: 42501: marker"}`)
		})
		for name, call := range map[string]func() error{
			"health":  func() error { _, err := client.Health(t.Context(), token, ref); return err },
			"poolers": func() error { _, err := client.Poolers(t.Context(), token, ref); return err },
			"keys":    func() error { _, err := client.Keys(t.Context(), token, ref); return err },
			"query":   func() error { return client.Query(t.Context(), token, ref, "SELECT 1") },
		} {
			err := call()
			e := wantCode(t, err, want)
			if StatusOf(err) != status || (name == "query" || name == "keys") && strings.Contains(e.Message, "marker") {
				t.Errorf("%d %s: %v", status, name, err)
			}
			if state := SQLStateOf(err); (state == "42501") != (name == "query" || name == "keys") {
				t.Errorf("%d %s: state %q", status, name, state)
			}
		}
	}
}

// TestNobodyAnswers checks that the error contains no address.
func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	_, err := New(Options{URL: s.URL}).Refresh(t.Context(), token)
	if stoa.CodeOf(err) != stoa.SupabaseUnavailable || strings.Contains(err.Error(), "127.0.0.1/") {
		t.Error(err)
	}
	if Refused(err) {
		t.Error("taken for a refusal")
	}
}

// TestTokenRefusals checks which answers end a connection, and which ones the operator
// has to correct or may be temporary.
func TestTokenRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		body   string
		ends   bool
	}{
		{404, `{"message":"Refresh token not found"}`, true},
		{400, `{"error":"invalid_grant"}`, true},
		{401, `{"error":"invalid_grant"}`, true},
		{401, `{"error":"invalid_client"}`, false},
		{400, `{"error":"invalid_client"}`, false},
		{401, `{"message":"Invalid client credentials"}`, false},
		{403, `<html>a firewall</html>`, false},
		{408, ``, false},
		{429, ``, false},
		{500, `{"error":"server_error"}`, false},
		{200, `{}`, false},
	} {
		client := answering(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.body)
		})
		_, err := client.Refresh(t.Context(), token)
		if err == nil || Refused(err) != c.ends {
			t.Errorf("%d %s: ends %v, %v", c.status, c.body, !c.ends, err)
		}
	}
}

// TestCreateQuotes checks that a message that quotes the password is not passed on.
func TestCreateQuotes(t *testing.T) {
	t.Parallel()
	client := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"message":"db_pass marker123 is weak"}`)
	})
	_, err := client.CreateProject(t.Context(), token, NewProject{Password: keyring.NewSecret("marker123")})
	if e := wantCode(t, err, stoa.SupabaseRefused); strings.Contains(e.Error(), "marker123") || StatusOf(err) != 400 {
		t.Error(err)
	}
	if err := client.Query(t.Context(), token, "x", "SELECT 'marker123'"); strings.Contains(err.Error(), "marker123") {
		t.Error(err)
	}
}

func TestSQLState(t *testing.T) {
	t.Parallel()
	for message, want := range map[string]string{
		"Failed to run sql query: ERROR: 42P01: relation": "42P01",
		"Failed to run sql query: ERROR:  42501: no":      "42501",
		"Failed to run sql query: Connection terminated":  "",
		"42P01": "",
	} {
		if got := sqlState(message); got != want {
			t.Errorf("%s: %q", message, got)
		}
	}
}

// TestLimit checks that no call is made after the last one of a window until the window
// ends, and that the time in an answer is accepted only within limits.
func TestLimit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		header map[string]string
		want   time.Duration
	}{
		{200, map[string]string{"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "30"}, 0},
		{200, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "30"}, 30 * time.Second},
		{200, map[string]string{"X-RateLimit-Remaining": "-3"}, time.Minute},
		{429, nil, time.Minute},
		{429, map[string]string{"X-RateLimit-Reset": "soon"}, time.Minute},
		{429, map[string]string{"X-RateLimit-Reset": "0"}, time.Second},
		{429, map[string]string{"X-RateLimit-Reset": "-1"}, time.Minute},
		{429, map[string]string{"X-RateLimit-Reset": "99999999999999999999"}, time.Minute},
		{429, map[string]string{"X-RateLimit-Reset": "9999999"}, 10 * time.Minute},
		{429, map[string]string{"X-RateLimit-Reset": "50", "Retry-After": "7"}, 7 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			var l rateLimit
			res := &http.Response{StatusCode: c.status, Header: http.Header{}}
			for k, v := range c.header {
				res.Header.Set(k, v)
			}
			got := l.note(res, time.Now())
			if wait := l.wait(time.Now()); got != c.want || max(wait, 0) != c.want {
				t.Errorf("%d %v: %v, %v", c.status, c.header, got, wait)
			}
			time.Sleep(c.want) //nolint:forbidigo // fake time of the synctest bubble
			if wait := l.wait(time.Now()); wait > 0 {
				t.Errorf("%d %v: still %v", c.status, c.header, wait)
			}
		})
	}
}

func TestRegions(t *testing.T) {
	t.Parallel()
	if r, ok := FindRegion("emea"); !ok || r.kind() != "smartGroup" {
		t.Errorf("%+v", r)
	}
	if r, ok := FindRegion("eu-central-1"); !ok || r.kind() != "specific" {
		t.Errorf("%+v", r)
	}
	if _, ok := FindRegion("mars-1"); ok {
		t.Error("there is no such region")
	}
}
