package credential

import (
	"slices"
	"testing"
)

// TestEveryEngineHasFacts checks that no fact of an engine is missing, and that the URLs of an
// engine with a server are read as its own.
func TestEveryEngineHasFacts(t *testing.T) {
	t.Parallel()
	for _, f := range engines {
		if f.name == "" || f.title == "" || f.products == "" {
			t.Errorf("%q lacks a name: %+v", f.name, f)
		}
		if f.name.facts() != f {
			t.Errorf("two engines have the name %q", f.name)
		}
		if f.name.Embedded() {
			continue
		}
		if len(f.schemes) == 0 || f.prefixes == "" || f.admin == "" || f.words == nil {
			t.Errorf("%s lacks schemes, prefixes, a database of administrators, or words", f.name)
		}
		for _, scheme := range f.schemes {
			if engine := EngineOfScheme(scheme); engine != f.name {
				t.Errorf("the scheme %s of %s is read as that of %q", scheme, f.name, engine)
			}
		}
		for _, mode := range []TLSMode{TLSVerify, TLSVerifyCA, TLSDisable} {
			if f.tls[mode] == "" {
				t.Errorf("%s has no parameter for the TLS mode %q", f.name, mode)
			}
		}
		c := f.command
		if len(c.programs) == 0 || len(c.positional) == 0 || c.short == nil || c.flags == "" || c.long == nil {
			t.Errorf("the commands of %s's own clients are not known: %+v", f.name, c)
		}
		for _, program := range c.programs {
			if engine := engineOfProgram(program); engine != f.name {
				t.Errorf("the program %s of %s is taken for one of %q", program, f.name, engine)
			}
		}
		if f.snippets == nil {
			t.Errorf("no page shows how to connect to %s", f.name)
		}
	}
	if len(Engines) != len(engines) || len(Servers) != len(Engines)-1 || slices.Contains(Servers, SQLite) {
		t.Errorf("the engines are %v, those with servers %v", Engines, Servers)
	}
}
