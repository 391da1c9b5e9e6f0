package httpapi

import (
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
)

// TestVersions checks that versions are dates in their order, none in the future of the one
// before, and that docs/api/versions.md says what each has changed.
func TestVersions(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/api/versions.md")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(Versions()) || len(slices.Compact(Versions())) != len(versions) {
		t.Errorf("%v", Versions())
	}
	for i, v := range versions {
		if _, err := time.Parse(time.DateOnly, v.date); err != nil || (v.before == nil) != (i == 0) {
			t.Errorf("%s: %v", v.date, err)
		}
		if !strings.Contains(string(text), "## "+v.date+"\n") {
			t.Errorf("docs/api/versions.md does not say what %s has changed", v.date)
		}
	}
}

func TestRequestedVersion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		header []string
		want   string
		code   stoa.Code
	}{
		{nil, newestVersion(), ""}, {[]string{"2026-10-01"}, "2026-10-01", ""}, {[]string{newestVersion()}, newestVersion(), ""},
		{[]string{""}, newestVersion(), stoa.VersionUnknown}, {[]string{"2099-01-01"}, newestVersion(), stoa.VersionUnknown},
		{[]string{"2026-11-27"}, newestVersion(), stoa.VersionUnknown}, {[]string{"latest"}, newestVersion(), stoa.VersionUnknown},
		{[]string{"2026-10-01", "2026-10-01"}, newestVersion(), stoa.VersionUnknown},
	} {
		r := httptest.NewRequest(http.MethodGet, "/api/stores", nil)
		r.Header[versionHeader] = c.header
		got, err := requestedVersion(r)
		if got != c.want || stoa.CodeOf(err) != c.code {
			t.Errorf("%q: %s, %v", c.header, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), "2026-10-01, "+newestVersion()) {
			t.Errorf("%q: %v does not list the versions", c.header, err)
		}
	}
}

func TestInVersion(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"id":"a","suspendedByOperator":true}`:                `{"held":true,"id":"a"}`,
		`{"data":[{"suspendedByOperator":true}]}`:              `{"data":[{"held":true}]}`,
		`{"stores":[{"suspendedByOperator":false}],"user":{}}`: `{"stores":[{"held":false}],"user":{}}`,
		`{"store":{"suspendedByOperator":true}}`:               `{"store":{"held":true}}`,
		`{"store":null,"data":[1],"n":12345678901234567890}`:   `{"data":[1],"n":12345678901234567890,"store":null}`,
		// What a merchant has written is left alone.
		`{"profile":{"settings":{"suspendedByOperator":"<b>"}}}`: `{"profile":{"settings":{"suspendedByOperator":"<b>"}}}`,
		`[1]`: `[1]`,
	} {
		if got := strings.TrimSpace(string(inVersion("2026-10-01", []byte(body)))); got != want {
			t.Errorf("%s became %s, want %s", body, got, want)
		}
		for _, same := range []string{"", newestVersion()} {
			if got := string(inVersion(same, []byte(body))); got != body {
				t.Errorf("%s became %s", body, got)
			}
		}
	}
}
