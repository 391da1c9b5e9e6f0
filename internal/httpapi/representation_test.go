package httpapi

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

func TestAcceptedCoding(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"": "", "gzip": "gzip", "zstd": "zstd", "gzip, zstd": "zstd", "GZIP;Q=0.5": "gzip", "gzip;q=0": "", "gzip;q=0, *": "zstd", "*": "zstd",
		"*;q=0": "", "zstd;q=0.1, gzip;q=0.2": "gzip", "br, deflate": "", "gzip;q=x": "", "gzip;q=2": "", "gzip;q=-1": "", "identity, gzip;q=0.5": "",
		"identity;q=0.5, gzip": "gzip", "identity;q=0, gzip;q=0": "", " gzip ; q = 0.3 ": "gzip", ",,;": "", "zstd;q=0, *;q=0.5": "gzip",
	} {
		if got := acceptedCoding([]string{header}, "zstd", "gzip"); got != want {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
	}
}

func TestHasRepresentation(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]bool{
		"": false, `"a"`: true, `W/"a"`: true, `"a-gzip"`: true, `W/"a-zstd"`: true, `"b"`: false, `"b", "a"`: true, "*": true, `"b.a"`: false, `""`: false, "a": true, `","`: false,
	} {
		if got := hasRepresentation([]string{header}, "a"); got != want {
			t.Errorf("%s: %v, want %v", header, got, want)
		}
	}
}

// recorded is an answer.
type recorded struct {
	code   int
	header http.Header
	body   io.Reader
}

// answerOf returns the answer to a request with that body.
func answerOf(t *testing.T, method string, secret bool, body []byte, status int, version string, header ...string) recorded {
	t.Helper()
	r := httptest.NewRequest(method, "/", nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	w := &responseWriter{ResponseWriter: rec, request: r, secret: secret, control: http.NewResponseController(rec), stall: stallTimeout}
	w.Header().Set("Content-Type", jsonType)
	if version != "" {
		w.Header().Set("ETag", `"`+version+`"`)
	}
	w.WriteHeader(status)
	w.writeWhole(body)
	w.finish()
	return recorded{rec.Code, rec.Header(), rec.Body}
}

func TestWholeBodies(t *testing.T) {
	t.Parallel()
	small, large := []byte(`{"a":1}`), []byte(`{"a":"`+strings.Repeat("x", minCompressed)+`"}`)
	readers := map[string]func(io.Reader) (io.Reader, error){
		"":     func(r io.Reader) (io.Reader, error) { return r, nil },
		"gzip": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		"zstd": func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) },
	}
	for name, c := range map[string]struct {
		method, accept string
		body           []byte
		status         int
		secret         bool
		coding         string
		tagged         bool
	}{
		"gzip":           {http.MethodGet, "gzip", large, 200, false, "gzip", true},
		"zstd":           {http.MethodGet, "gzip, zstd", large, 200, false, "zstd", true},
		"refused":        {http.MethodGet, "gzip;q=0", large, 200, false, "", true},
		"not asked":      {http.MethodGet, "", large, 200, false, "", true},
		"small":          {http.MethodGet, "gzip", small, 200, false, "", true},
		"answer to POST": {http.MethodPost, "gzip", large, 200, false, "", false},
		"secret":         {http.MethodGet, "gzip", large, 200, true, "", true},
		"an error":       {http.MethodGet, "gzip", large, 404, false, "gzip", false},
	} {
		res := answerOf(t, c.method, c.secret, c.body, c.status, "", "Accept-Encoding", c.accept)
		coding, tag := res.header.Get("Content-Encoding"), res.header.Get("ETag")
		r, err := readers[coding](res.body)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, c.body) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if coding != c.coding || (tag != "") != c.tagged || strings.HasSuffix(tag, "-"+coding+`"`) != (coding != "" && c.tagged) {
			t.Errorf("%s: coding %q, ETag %s", name, coding, tag)
		}
		if vary := res.header.Get("Vary") == "Accept-Encoding"; vary != (c.method == http.MethodGet && !c.secret) {
			t.Errorf("%s: Vary %q", name, res.header.Get("Vary"))
		}
		if !c.tagged {
			continue
		}
		for match, want := range map[string]int{tag: http.StatusNotModified, `W/"` + plainTag(tag) + `"`: http.StatusNotModified, `"another"`: c.status} {
			again := answerOf(t, c.method, c.secret, c.body, c.status, "", "Accept-Encoding", c.accept, "If-None-Match", match)
			body, err := io.ReadAll(again.body)
			if err != nil || again.code != want || (len(body) == 0) != (want == http.StatusNotModified) || again.header.Get("ETag") == "" {
				t.Errorf("%s, If-None-Match %s: %d, %d bytes, %v", name, match, again.code, len(body), again.header)
			}
		}
	}
}

// TestVersionsInTags checks that the ETag of something editable has its version and changes
// with the rest of the answer too.
func TestVersionsInTags(t *testing.T) {
	t.Parallel()
	first := answerOf(t, http.MethodGet, false, []byte(`{"a":1}`), 200, "v1").header.Get("ETag")
	other := answerOf(t, http.MethodGet, false, []byte(`{"a":2}`), 200, "v1").header.Get("ETag")
	changed := answerOf(t, http.MethodPatch, false, []byte(`{"a":1}`), 200, "v1").header.Get("ETag")
	if first == other || first != changed {
		t.Errorf("%s, %s, %s", first, other, changed)
	}
	for _, tag := range []string{first, other} {
		if versions, err := ifMatch(tag); err != nil || len(versions) != 1 || versions[0] != "v1" {
			t.Errorf("%s: %q, %v", tag, versions, err)
		}
	}
}

// TestWhatIsEditableHasAVersion checks that each change of something takes If-Match, and that
// what it changes has an ETag there, unless there is a reason for which it needs none.
func TestWhatIsEditableHasAVersion(t *testing.T) {
	t.Parallel()
	without := map[string]string{}
	for reason, ids := range map[string]string{
		"the change is one choice, which replaces whatever was chosen before": "members.update passkeys.update hostnames.update",
		"what is gone cannot be lost twice": "account.delete apiKeys.delete backups.delete emailChange.cancel hostnames.delete invitations.delete members.delete passkeys.delete " +
			"sessions.delete sessions.deleteOthers supabase.disconnect",
		"a deleted store can be restored for a while": "stores.delete",
	} {
		for id := range strings.FieldsSeq(ids) {
			without[id] = reason
		}
	}
	doc := newAPI(Domains{}, allRoutes()).huma.OpenAPI()
	takes := func(op *huma.Operation, name string) bool {
		return slices.ContainsFunc(op.Parameters, func(p *huma.Param) bool { return p.Name == name })
	}
	matching := 0
	for _, op := range operationsOf(doc) {
		switch op.Method {
		case http.MethodGet:
			json := op.Responses["200"] != nil && op.Responses["200"].Content[jsonType] != nil && op.OperationID != "account.export"
			if tagged := op.Responses["304"] != nil && op.Responses["200"].Headers["ETag"] != nil && takes(op, "If-None-Match"); tagged != json {
				t.Errorf("%s answers with JSON: %v, and has an ETag: %v", op.OperationID, json, tagged)
			}
		case http.MethodPost:
			if takes(op, "If-Match") {
				t.Errorf("%s takes If-Match", op.OperationID)
			}
		default:
			_, excepted := without[op.OperationID]
			delete(without, op.OperationID)
			if takes(op, "If-Match") == excepted {
				t.Errorf("%s takes If-Match: %v, and is an exception: %v", op.OperationID, !excepted, excepted)
			}
			if excepted {
				continue
			}
			matching++
			if read := doc.Paths[op.Path].Get; read == nil || read.Responses["200"].Headers["ETag"] == nil || op.Responses["412"] == nil {
				t.Errorf("%s: what it changes has no ETag, or 412 is not documented", op.OperationID)
			}
		}
	}
	if matching < 6 {
		t.Errorf("%d changes take If-Match", matching)
	}
	for id, reason := range without {
		t.Errorf("%s (%s) changes nothing", id, reason)
	}
}
