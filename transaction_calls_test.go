package stoa_test

import (
	"bufio"
	"bytes"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// waiting lists the functions that must not be called while a transaction of the master is
// open. They wait for something other than the master, and every caller that needs the same
// rows, or on SQLite every writer, waits with them. An entry names one function as go/types
// does or, with a final dot, all functions with that prefix.
var waiting = map[string]string{
	"time.Sleep": "sleeps", "time.After": "sleeps", "time.Tick": "sleeps",
	"net.Dial": "network", "net.DialTimeout": "network", "(*net.Dialer).": "network", "(*net.Resolver).": "network",
	"net.LookupHost": "network", "net.LookupIP": "network", "net.LookupTXT": "network", "net.LookupCNAME": "network",
	"net/http.Get": "network", "net/http.Post": "network", "net/http.Head": "network", "(*net/http.Client).": "network",
	"(net/http.RoundTripper).": "network", "(*github.com/wneessen/go-mail.Client).": "network",
	"(*github.com/redis/go-redis/v9.Client).": "network", "(*github.com/redis/go-redis/v9.Script).": "network",
	"(*os/exec.Cmd).":                         "another process",
	"(*" + module + "/internal/tenantdb.DB).": "a store's database", "(" + module + "/internal/tenantdb.Lease).": "a store's database",
	"(" + module + "/internal/tenantdb.Engine).": "a store's database",
	"(*database/sql.DB).":                        "another database", "(*github.com/jmoiron/sqlx.DB).": "another database",
	"(*" + module + "/internal/masterdb.DB).Tx": "another transaction", "(*" + module + "/internal/masterdb.DB).TxReadCommitted": "another transaction",
	"(*" + module + "/internal/masterdb.DB).Snapshot": "another transaction",
	"(*sync.WaitGroup).Wait":                          "other goroutines", "(*sync.Cond).Wait": "other goroutines",
	"golang.org/x/crypto/argon2.IDKey": "long computation",
}

// mayWait lists the exceptions: the function that waits, the function that it calls, and
// why no other caller is delayed.
var mayWait = map[[2]string]string{}

// TestTransactionsWaitForNothingElse follows the static calls of every function that has a
// transaction of the master. It does not follow function values and interfaces, except for
// the listed ones.
func TestTransactionsWaitForNothingElse(t *testing.T) {
	t.Parallel()
	touchSources(t)
	a := newCallAnalysis(t, "./...")
	found := a.run()
	if len(a.roots) < 200 {
		t.Errorf("only %d functions with a transaction were found", len(a.roots))
	}
	used := map[[2]string]bool{}
	for _, f := range found {
		if key := [2]string{strings.ReplaceAll(f.in, module+"/", ""), f.call}; mayWait[key] != "" {
			used[key] = true
			continue
		}
		t.Errorf("%s inside a transaction of the master: do it before, or after the commit", f)
	}
	for key := range mayWait {
		if !used[key] {
			t.Errorf("%v does not occur any more: remove the exception", key)
		}
	}
}

// TestWaitingIsFound checks the analysis itself.
func TestWaitingIsFound(t *testing.T) {
	t.Parallel()
	touchSources(t)
	found := map[string]bool{}
	for _, f := range newCallAnalysis(t, "./testdata/transactions").run() {
		found[f.in[strings.LastIndex(f.in, ".")+1:]+" "+f.call] = true
	}
	want := []string{
		"sleeps time.Sleep", "helper time.Sleep", "receives channel receive", "selects select", "sends channel send", "ranges channel receive",
		"opens (*" + module + "/internal/tenantdb.DB).Ping", "snapshot time.Sleep", "dials (*net.Dialer).DialContext", "nested (*" + module + "/internal/masterdb.DB).Tx",
	}
	for _, w := range want {
		if !found[w] {
			t.Errorf("not found: %s", w)
		}
		delete(found, w)
	}
	for f := range found {
		t.Errorf("found for nothing: %s", f)
	}
}

// wait is one place where a function waits.
type wait struct {
	in, call, why string
	at            token.Position
	from          []string // the call chain that leads there, from the root
}

func (w wait) String() string {
	return fmt.Sprintf("%s: %s calls %s (%s), reached by %s", w.at, w.in, w.call, w.why, strings.Join(w.from, " → "))
}

// source is a function with a body in this module.
type source struct {
	name string
	body *ast.BlockStmt
	info *types.Info
	from *source // its caller; nil for a root
}

type callAnalysis struct {
	files *token.FileSet
	funcs map[string]*source
	roots []*source
	found []wait
}

// newCallAnalysis parses the packages that match pattern. It reads the types of their
// imports from the compiler's export data.
func newCallAnalysis(t *testing.T, pattern string) *callAnalysis {
	t.Helper()
	a := &callAnalysis{files: token.NewFileSet(), funcs: map[string]*source{}}
	exports, packages := exportFiles(t, pattern)
	imports := importer.ForCompiler(a.files, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	for _, path := range slices.Sorted(maps.Keys(packages)) {
		var files []*ast.File
		for _, name := range packages[path] {
			file, err := parser.ParseFile(a.files, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
		if _, err := (&types.Config{Importer: imports}).Check(path, a.files, files, info); err != nil {
			t.Fatal(err)
		}
		if path != module+"/internal/masterdb" { // masterdb itself runs the transactions
			for _, file := range files {
				a.collect(file, info)
			}
		}
	}
	return a
}

// exportFiles runs the go command to find the export data of each package, and the files of
// the packages that match pattern.
func exportFiles(t *testing.T, pattern string) (exports map[string]string, packages map[string][]string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "-f",
		"{{.ImportPath}}\t{{.Export}}\t{{if not .DepOnly}}{{.Dir}}\t{{join .GoFiles \"\\t\"}}{{end}}", pattern)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	exports, packages = map[string]string{}, map[string][]string{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		f := strings.Split(lines.Text(), "\t")
		exports[f[0]] = f[1]
		for i := 3; i < len(f); i++ {
			packages[f[0]] = append(packages[f[0]], filepath.Join(f[2], f[i]))
		}
	}
	return exports, packages
}

// collect records the functions of a file, and those that have a transaction.
func (a *callAnalysis) collect(file *ast.File, info *types.Info) {
	for _, d := range file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		name := info.Defs[fn.Name].(*types.Func).FullName()
		s := &source{name: name, body: fn.Body, info: info}
		a.funcs[name] = s
		if hasTx(fn.Type, info) {
			a.roots = append(a.roots, s)
		}
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncLit:
				if hasTx(n.Type, info) {
					a.roots = append(a.roots, &source{name: name, body: n.Body, info: info})
				}
			case *ast.CallExpr:
				if callee(n, info) == "(*"+module+"/internal/masterdb.DB).Snapshot" {
					if lit, ok := n.Args[1].(*ast.FuncLit); ok {
						a.roots = append(a.roots, &source{name: name, body: lit.Body, info: info})
					}
				}
			}
			return true
		})
	}
}

// hasTx reports whether a function takes a *masterdb.Tx.
func hasTx(f *ast.FuncType, info *types.Info) bool {
	return slices.ContainsFunc(f.Params.List, func(p *ast.Field) bool {
		t := info.Types[p.Type].Type
		return t != nil && t.String() == "*"+module+"/internal/masterdb.Tx"
	})
}

// callee returns the name of the called function, or "" for a function value.
func callee(call *ast.CallExpr, info *types.Info) string {
	fun := ast.Unparen(call.Fun)
	switch x := fun.(type) { // a call with type arguments
	case *ast.IndexExpr:
		fun = x.X
	case *ast.IndexListExpr:
		fun = x.X
	}
	var id *ast.Ident
	switch x := fun.(type) {
	case *ast.Ident:
		id = x
	case *ast.SelectorExpr:
		id = x.Sel
	default:
		return ""
	}
	if f, ok := info.Uses[id].(*types.Func); ok {
		return f.Origin().FullName()
	}
	return ""
}

// run follows the calls of all roots, each function once.
func (a *callAnalysis) run() []wait {
	seen := map[string]bool{}
	queue := slices.Clone(a.roots)
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		a.look(s, func(call string) {
			if next := a.funcs[call]; next != nil && !seen[call] {
				seen[call] = true
				queue = append(queue, &source{call, next.body, next.info, s})
			}
		})
	}
	return a.found
}

// look records where s waits, and passes the functions that it calls to follow. It skips
// calls in a goroutine or after the commit, which run without the transaction.
func (a *callAnalysis) look(s *source, follow func(string)) {
	ast.Inspect(s.body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			return false
		case *ast.CallExpr:
			call := callee(n, s.info)
			switch {
			case call == "(*"+module+"/internal/masterdb.Tx).AfterCommit":
				return false
			case why(call) != "":
				a.note(s, call, why(call), n.Pos())
			default:
				follow(call)
			}
		case *ast.SelectStmt:
			a.lookAtSelect(s, n, follow)
			return false
		case *ast.SendStmt:
			a.note(s, "channel send", "other goroutines", n.Pos())
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				a.note(s, "channel receive", "other goroutines", n.Pos())
			}
		case *ast.RangeStmt:
			if _, ok := s.info.Types[n.X].Type.Underlying().(*types.Chan); ok {
				a.note(s, "channel receive", "other goroutines", n.Pos())
			}
		}
		return true
	})
}

// lookAtSelect records a select statement without a default case, which waits.
func (a *callAnalysis) lookAtSelect(s *source, n *ast.SelectStmt, follow func(string)) {
	waits := true
	for _, c := range n.Body.List {
		clause := c.(*ast.CommClause)
		waits = waits && clause.Comm != nil
		a.look(&source{s.name, &ast.BlockStmt{List: clause.Body}, s.info, s.from}, follow)
	}
	if waits {
		a.note(s, "select", "other goroutines", n.Pos())
	}
}

func (a *callAnalysis) note(s *source, call, why string, at token.Pos) {
	w := wait{in: s.name, call: call, why: why, at: a.files.Position(at)}
	for from := s; from != nil; from = from.from {
		w.from = slices.Insert(w.from, 0, from.name)
	}
	a.found = append(a.found, w)
}

func why(call string) string {
	if why := waiting[call]; why != "" {
		return why
	}
	for prefix, why := range waiting {
		if strings.HasSuffix(prefix, ".") && strings.HasPrefix(call, prefix) {
			return why
		}
	}
	return ""
}
