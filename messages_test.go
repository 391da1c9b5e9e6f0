package stoa_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// settings matches the names of the operator's settings. Merchants and shoppers, who read
// error messages too, cannot use them.
var settings = regexp.MustCompile(`STOA_|STRIPE_|SUPABASE_|SMTP_URL|REDIS_URL|MASTER_DB_URL|ENCRYPTION_KEY|JWT_|(^|[ ('"])--[a-z]|'stoa |stoa\.yaml`)

// TestMessagesNameNoSetting checks that the texts of answers (stoa.Errorf, the faults of
// fields, problems) name no environment variable, flag or command.
func TestMessagesNameNoSetting(t *testing.T) {
	t.Parallel()
	seen := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == "cmd" || path == "bench" || path == "internal/cli" || path == "internal/config" || path == "internal/app" || strings.HasSuffix(path, "test") || strings.HasPrefix(d.Name(), ".") && path != "."):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !isMessage(call) {
				return true
			}
			seen++
			for _, arg := range call.Args {
				if text := literals(arg); settings.MatchString(text) {
					t.Errorf("%s: %q names a setting", files.Position(call.Pos()), text)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 200 {
		t.Errorf("only %d messages were found", seen)
	}
}

func isMessage(call *ast.CallExpr) bool {
	switch f := call.Fun.(type) {
	case *ast.SelectorExpr:
		return f.Sel.Name == "Errorf" && isIdent(f.X, "stoa") || f.Sel.Name == "Add" && len(call.Args) > 1
	case *ast.Ident:
		return f.Name == "newProblem" || f.Name == "Errorf"
	}
	return false
}

func isIdent(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

// literals joins the string literals of an expression.
func literals(e ast.Expr) string {
	var b strings.Builder
	ast.Inspect(e, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if text, err := strconv.Unquote(lit.Value); err == nil {
				b.WriteString(text)
			}
		}
		return true
	})
	return b.String()
}
