package stoa_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestTransactionsUseTheirOwnHandle checks that a function that has a transaction does not
// also use the database handle: on SQLite all writes share one connection.
func TestTransactionsUseTheirOwnHandle(t *testing.T) {
	t.Parallel()
	functions := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			body := bodyWithTx(n)
			if body == nil {
				return true
			}
			functions++
			for _, at := range databasesIn(body) {
				t.Errorf("%s: the database is used inside a transaction; use the transaction", files.Position(at))
			}
			return false
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if functions < 100 {
		t.Errorf("only %d functions with a transaction were found", functions)
	}
}

// bodyWithTx returns the body of a function that takes a *masterdb.Tx.
func bodyWithTx(n ast.Node) *ast.BlockStmt {
	var typ *ast.FuncType
	var body *ast.BlockStmt
	switch n := n.(type) {
	case *ast.FuncDecl:
		typ, body = n.Type, n.Body
	case *ast.FuncLit:
		typ, body = n.Type, n.Body
	default:
		return nil
	}
	for _, p := range typ.Params.List {
		star, ok := p.Type.(*ast.StarExpr)
		if !ok || body == nil {
			continue
		}
		if s, ok := star.X.(*ast.SelectorExpr); ok && s.Sel.Name == "Tx" {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "masterdb" {
				return body
			}
		}
	}
	return nil
}

// databasesIn returns the positions at which fields that hold the master database are used.
func databasesIn(body *ast.BlockStmt) (out []token.Pos) {
	ast.Inspect(body, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && (s.Sel.Name == "db" || s.Sel.Name == "master" || s.Sel.Name == "Master") {
			out = append(out, s.Pos())
		}
		return true
	})
	return out
}
