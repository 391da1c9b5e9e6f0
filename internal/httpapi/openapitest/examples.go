package openapitest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Example is what was sent to an operation, and what it answered, by status.
type Example struct {
	Request   json.RawMessage            `json:"request,omitempty"`
	Responses map[string]json.RawMessage `json:"responses,omitempty"`
}

// Examples collects an example of each operation from requests and answers. What differs
// between two runs, and what looks like a secret, is replaced. It is safe for concurrent use.
type Examples struct {
	mu   sync.Mutex
	best map[string]*candidates // by operation id
}

type candidates struct {
	request   candidate
	responses map[string]candidate
}

// candidate is an example with how much it shows.
type candidate struct {
	text  []byte
	shown int
}

// NewExamples returns an empty collection.
func NewExamples() *Examples { return &Examples{best: map[string]*candidates{}} }

// maxExample is the size of the largest example, in bytes.
const maxExample = 4 << 10

// better returns the one of two candidates that shows more. Of two that show as much it is
// the shorter one, then the first one in alphabetical order, so that the order of the tests
// does not matter.
func (c candidate) better(o candidate) candidate {
	switch {
	case o.text == nil || len(o.text) > maxExample && c.text != nil && len(c.text) <= len(o.text):
		return c
	case c.text == nil || len(c.text) > maxExample && len(o.text) < len(c.text):
		return o
	case c.shown != o.shown:
		if c.shown > o.shown {
			return c
		}
		return o
	case len(c.text) != len(o.text):
		if len(c.text) < len(o.text) {
			return c
		}
		return o
	case bytes.Compare(c.text, o.text) <= 0:
		return c
	}
	return o
}

// newCandidate returns the example that a body makes, or none when it is no JSON.
func newCandidate(body []byte) candidate {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return candidate{}
	}
	n := &normalizer{ids: map[string]string{}}
	v = n.value("", v)
	text, err := json.Marshal(v)
	if err != nil {
		return candidate{}
	}
	return candidate{text: text, shown: shown(v)}
}

// shown counts the members that are not empty.
func shown(v any) (n int) {
	switch v := v.(type) {
	case map[string]any:
		for _, below := range v {
			n += 1 + shown(below)
		}
	case []any:
		for _, below := range v {
			n += shown(below)
		}
	case nil:
		n--
	}
	return n
}

// add notes a request with its answer of success.
func (e *Examples) add(operation string, status int, request, answer []byte) {
	sent, got := newCandidate(request), newCandidate(answer)
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.best[operation]
	if c == nil {
		c = &candidates{responses: map[string]candidate{}}
		e.best[operation] = c
	}
	c.request = c.request.better(sent)
	if name := strconv.Itoa(status); got.text != nil {
		c.responses[name] = c.responses[name].better(got)
	}
}

// Merge returns the examples of an earlier run with those that this one has found.
func (e *Examples) Merge(earlier []byte) ([]byte, error) {
	all := map[string]*Example{}
	if len(earlier) > 0 {
		if err := json.Unmarshal(earlier, &all); err != nil {
			return nil, fmt.Errorf("earlier examples: %w", err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, c := range e.best {
		x := all[id]
		if x == nil {
			x = &Example{}
			all[id] = x
		}
		if c.request.text != nil {
			x.Request = c.request.text
		}
		if x.Responses == nil {
			x.Responses = map[string]json.RawMessage{}
		}
		for status, got := range c.responses {
			x.Responses[status] = got.text
		}
	}
	text, err := json.MarshalIndent(all, "", " ")
	return append(text, '\n'), err
}

// normalizer replaces what differs between two runs.
type normalizer struct {
	ids map[string]string
}

var (
	uuids     = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	times     = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$`)
	days      = regexp.MustCompile(`\b20\d\d-\d\d-\d\d\b`)
	addresses = regexp.MustCompile(`https?://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?`)
	loopback  = regexp.MustCompile(`(127\.0\.0\.1|\[::1\])(:\d+)?`)
	files     = regexp.MustCompile(`/tmp/[^\s"]*`)
	opaque    = regexp.MustCompile(`^[A-Za-z0-9_+/=.-]{24,}$`)
	digits    = regexp.MustCompile(`^\d+$`)
	random    = regexp.MustCompile(`[a-z0-9]{20,}`)
)

// secretMembers are the members whose strings are secrets, whatever they look like.
var secretMembers = []string{"password", "oldPassword", "newPassword", "accessToken", "refreshToken", "token", "challengeToken", "passkeyToken", "key", "secret",
	"recoveryCodes", "connectionString", "anonKey", "serviceRoleKey", "passphrase", "challenge", "url", "identity"}

func (n *normalizer) value(member string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			v[name] = n.value(name, v[name])
		}
		return v
	case []any:
		v = v[:min(len(v), 2)]
		for i := range v {
			v[i] = n.value(member, v[i])
		}
		return v
	case json.Number:
		if member == "port" && len(v) == 5 {
			return json.Number("5432")
		}
		return v
	case string:
		return n.text(member, v)
	}
	return v
}

func (n *normalizer) text(member, s string) string {
	if times.MatchString(s) {
		return "2026-01-02T03:04:05Z"
	}
	s = uuids.ReplaceAllStringFunc(s, func(id string) string {
		if n.ids[id] == "" {
			n.ids[id] = fmt.Sprintf("0198f2b4-5a1c-7d3e-8f60-%012d", len(n.ids)+1)
		}
		return n.ids[id]
	})
	s = days.ReplaceAllString(s, "2026-01-02")
	s = addresses.ReplaceAllString(s, "https://stoa.example.com")
	s = loopback.ReplaceAllString(s, "db.example.com")
	s = files.ReplaceAllString(s, "/var/lib/stoa")
	if uuids.MatchString(s) || s == "" {
		return s
	}
	switch {
	case member == "code" && digits.MatchString(s):
		return "123456"
	case slices.Contains(secretMembers, member):
		return secretLike(s)
	case opaque.MatchString(s) && !strings.Contains(s, ".example.") && !strings.Contains(s, ".localhost"):
		return "c3RvYQ-this-is-not-a-real-value"
	}
	return random.ReplaceAllString(s, "abcdefghijklmnopqrst")
}

// secretLike returns a constant of the form of a secret.
func secretLike(s string) string {
	switch {
	case strings.HasPrefix(s, "stoa_live_"):
		return "stoa_live_…"
	case strings.Contains(s, "://"):
		scheme, _, _ := strings.Cut(s, "://")
		if strings.HasPrefix(scheme, "http") {
			if address, _, query := strings.Cut(s, "?"); query {
				return address + "?…"
			}
			return s
		}
		if scheme == "otpauth" {
			return "otpauth://totp/Stoa:owner@example.com?secret=…&issuer=Stoa"
		}
		return scheme + "://user:…@db.example.com/store"
	case strings.HasPrefix(s, "eyJ"):
		return "eyJ…"
	}
	return "…"
}

// record notes an exchange for the examples.
func (d *Document) record(examples *Examples, r *http.Request, status int, answer []byte) {
	operation := d.operation(r.Method, r.URL.Path)
	id, _ := operation["operationId"].(string)
	if id == "" || status < 200 || status > 299 {
		return
	}
	var sent []byte
	if r.GetBody != nil {
		if body, err := r.GetBody(); err == nil {
			var b bytes.Buffer
			_, _ = b.ReadFrom(body)
			sent = b.Bytes()
		}
	}
	examples.add(id, status, sent, answer)
}
