package stoa_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestOnePollingHelper checks that tests wait with testkit.Eventually: no other function of a
// test or of a fixture calls a condition that it was given in a loop.
func TestOnePollingHelper(t *testing.T) {
	t.Parallel()
	files := 0
	for _, root := range []string{"internal", "client", "cmd", "bench", "."} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && path != "." && (root == "." || path == "internal/testkit") {
				return fs.SkipDir
			}
			if !strings.HasSuffix(path, ".go") || !strings.HasSuffix(path, "_test.go") && !strings.Contains(filepath.Dir(path), "test") {
				return nil
			}
			files++
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			for _, fn := range pollingHelpers(file) {
				t.Errorf("%s: %s polls: use testkit.Eventually", set.Position(fn.Pos()), fn.Name)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 100 {
		t.Errorf("only %d files were read", files)
	}
}

// TestPollingHelpers checks the rule itself.
func TestPollingHelpers(t *testing.T) {
	t.Parallel()
	const source = `package p
		func a(t *testing.T, ok func() bool) { for !ok() {} }
		func b(t *testing.T, what string, is, ok func() bool) { for { if ok() { return } } }
		func (x y) c(ok func() bool) { func() { for range 9 { _ = ok() } }() }
		func d(ok func() bool) { x.soon(ok); for !other() {} }
		func e(ok func() bool) { if ok() { return }; for range 3 {} }
		func f(ok func() error) { for ok() != nil {} }`
	file, err := parser.ParseFile(token.NewFileSet(), "p.go", source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, fn := range pollingHelpers(file) {
		got = append(got, fn.Name.Name)
	}
	if want := []string{"a", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

// pollingHelpers returns the functions that call a parameter of type func() bool in a loop.
func pollingHelpers(file *ast.File) (found []*ast.FuncDecl) {
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		conditions := conditionsOf(fn.Type)
		if len(conditions) > 0 && slices.ContainsFunc(loopsOf(fn.Body), func(loop ast.Node) bool { return calls(loop, conditions) }) {
			found = append(found, fn)
		}
	}
	return found
}

// conditionsOf returns the names of the parameters of type func() bool.
func conditionsOf(fn *ast.FuncType) (names []string) {
	for _, field := range fn.Params.List {
		f, ok := field.Type.(*ast.FuncType)
		if !ok || len(f.Params.List) > 0 || f.Results == nil || len(f.Results.List) != 1 {
			continue
		}
		if result, ok := f.Results.List[0].Type.(*ast.Ident); !ok || result.Name != "bool" {
			continue
		}
		for _, name := range field.Names {
			names = append(names, name.Name)
		}
	}
	return names
}

func loopsOf(body ast.Node) (loops []ast.Node) {
	ast.Inspect(body, func(n ast.Node) bool {
		switch n.(type) {
		case *ast.ForStmt, *ast.RangeStmt:
			loops = append(loops, n)
		}
		return true
	})
	return loops
}

// calls tells whether the code calls one of the functions by its name.
func calls(code ast.Node, names []string) (found bool) {
	ast.Inspect(code, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if name, ok := call.Fun.(*ast.Ident); ok && slices.Contains(names, name.Name) {
				found = true
			}
		}
		return !found
	})
	return found
}
