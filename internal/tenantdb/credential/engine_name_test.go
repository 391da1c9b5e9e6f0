package credential

import "testing"

// TestEveryEngineHasFacts checks that there is a line for each engine, and that the URLs of an
// engine with a server are read as its own.
func TestEveryEngineHasFacts(t *testing.T) {
	t.Parallel()
	for _, engine := range Engines {
		f := factsOf[engine]
		if f.title == "" || f.products == "" {
			t.Errorf("%s has no line in factsOf, or no names in it", engine)
		}
		if engine.Embedded() {
			continue
		}
		if EngineOfScheme(f.scheme) != engine || f.prefixes == "" {
			t.Errorf("%s: EngineOfScheme(%q) is %q, and the prefixes of its URLs are %q", engine, f.scheme, EngineOfScheme(f.scheme), f.prefixes)
		}
		for _, mode := range []TLSMode{TLSVerify, TLSVerifyCA, TLSDisable} {
			if f.tls[mode] == "" {
				t.Errorf("%s has no parameter for the TLS mode %q", engine, mode)
			}
		}
		if shortOptions[engine] == nil || flags[engine] == "" {
			t.Errorf("%s has no commands of its own clients", engine)
		}
	}
	if len(factsOf) != len(Engines) {
		t.Errorf("%d engines have facts, Engines lists %d", len(factsOf), len(Engines))
	}
}
