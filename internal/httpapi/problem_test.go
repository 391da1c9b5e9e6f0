package httpapi

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
)

// TestEveryCodeHasAStatus reads the codes from their source, so that a new code
// without a status, which would be 500, fails.
func TestEveryCodeHasAStatus(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "../../errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); !ok || kind.Name != "Code" {
			return true
		}
		code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		codes++
		if info := infos[stoa.Code(code)]; info.status == 0 || info.remedy == "" {
			t.Errorf("%s has no status or no remedy", code)
		}
		return true
	})
	if codes != len(infos) {
		t.Errorf("%d codes, %d with a status", codes, len(infos))
	}
}

// TestRemediesNameWhatExists checks the calls and the members that causes and remedies name
// against the OpenAPI document.
func TestRemediesNameWhatExists(t *testing.T) {
	t.Parallel()
	doc := newAPI(Domains{}, allRoutes()).huma.OpenAPI()
	known := map[string]bool{"sslmode": true} // of a connection string
	for _, op := range operationsOf(doc) {
		known[op.Method+" "+op.Path] = true
	}
	for _, schema := range doc.Components.Schemas.Map() {
		for member := range schema.Properties {
			known[member] = true
		}
	}
	call, member := regexp.MustCompile("`([A-Z]+ /[^`]*)`"), regexp.MustCompile("`([a-z][A-Za-z.]*)`")
	for _, c := range codes {
		text := c.cause + c.remedy
		for _, found := range call.FindAllStringSubmatch(text, -1) {
			if !known[found[1]] {
				t.Errorf("%s names the call %s", c.code, found[1])
			}
		}
		for _, found := range member.FindAllStringSubmatch(text, -1) {
			for name := range strings.SplitSeq(found[1], ".") {
				if !known[name] {
					t.Errorf("%s names the member %s", c.code, found[1])
				}
			}
		}
	}
}

func TestFieldFault(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		detail huma.ErrorDetail
		want   ProblemField
	}{
		{huma.ErrorDetail{Location: "body.email", Message: "x", Value: "secret"}, ProblemField{"email", "x"}},
		{huma.ErrorDetail{Location: "body.tls.mode", Message: "x"}, ProblemField{"tls.mode", "x"}},
		{huma.ErrorDetail{Location: "query.limit", Message: "x"}, ProblemField{"limit", "x"}},
		{huma.ErrorDetail{Location: "body", Message: "name" + missingField}, ProblemField{"name", "is required"}},
		{huma.ErrorDetail{Location: "body.tls", Message: "mode" + missingField}, ProblemField{"tls.mode", "is required"}},
		{huma.ErrorDetail{Location: "body", Message: "x"}, ProblemField{"body", "x"}},
	} {
		if diff := cmp.Diff(test.want, fieldFault(&test.detail)); diff != "" {
			t.Errorf("%+v: %s", test.detail, diff)
		}
	}
}

func TestPreferredWait(t *testing.T) {
	t.Parallel()
	for prefer, want := range map[string]time.Duration{
		"": defaultWait, "wait=3": 3 * time.Second, "wait=0": 0, "respond-async, wait=10": 10 * time.Second,
		`Wait = "7"`: 7 * time.Second, "wait=999999999999": MaxWait, "wait=4000": MaxWait, "wait=-1": defaultWait, "wait=x": defaultWait,
	} {
		if got, _ := preferredWait(prefer); got != want {
			t.Errorf("%q: %v, want %v", prefer, got, want)
		}
	}
}

func TestPrintableMethod(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]string{"DELETE": "DELETE", "<b>": "this method", "AVERYLONGMETHOD": "this method"} {
		if got := printableMethod(method); got != want {
			t.Errorf("%q: %q, want %q", method, got, want)
		}
	}
}
