package httpapi

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
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

// TestEveryCodeIsListed reads all sources for codes that are declared or written elsewhere
// than in errors.go and have no row in the list.
func TestEveryCodeIsListed(t *testing.T) {
	t.Parallel()
	root, files := filepath.Dir(documentPath(t, "go.mod")), 0
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == "node_modules" || e.Name() == "testdata" || strings.HasPrefix(e.Name(), ".") && path != root):
			return fs.SkipDir
		case filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, "_templ.go"),
			strings.HasSuffix(path, "/internal/tenantdb/warnings.go"): // the codes of warnings are no problems
			return nil
		}
		files++
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			for _, code := range codesWrittenIn(n) {
				if _, listed := infos[code]; !listed {
					t.Errorf("%s: %q is not listed", set.Position(n.Pos()), code)
				}
			}
			return true
		})
		return nil
	})
	if err != nil || files < 300 {
		t.Errorf("%d files, %v", files, err)
	}
}

// codesWrittenIn returns the literals of a node that are codes: the values of constants and
// variables of the type stoa.Code, and the first arguments of stoa.Code and stoa.Errorf.
func codesWrittenIn(n ast.Node) (found []stoa.Code) {
	isStoas := func(e ast.Expr, names ...string) bool {
		s, ok := e.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		x, ok := s.X.(*ast.Ident)
		return ok && x.Name == "stoa" && slices.Contains(names, s.Sel.Name)
	}
	var values []ast.Expr
	switch n := n.(type) {
	case *ast.ValueSpec:
		if isStoas(n.Type, "Code") {
			values = n.Values
		}
	case *ast.CallExpr:
		if isStoas(n.Fun, "Code", "Errorf") && len(n.Args) > 0 {
			values = n.Args[:1]
		}
	}
	for _, v := range values {
		if l, ok := v.(*ast.BasicLit); ok && l.Kind == token.STRING {
			code, _ := strconv.Unquote(l.Value)
			found = append(found, stoa.Code(code))
		}
	}
	return found
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
