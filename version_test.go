package stoa

import (
	"runtime/debug"
	"testing"
)

// TestBuildInfo checks where the version comes from: the linker first, then what the go
// command recorded.
func TestBuildInfo(t *testing.T) {
	settings := []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"}, {Key: "vcs.modified", Value: "true"}}
	for name, c := range map[string]struct {
		linked   string
		recorded *debug.BuildInfo
		want     BuildInfo
	}{
		"nothing is known":  {"", nil, BuildInfo{Version: "dev"}},
		"a clone":           {"", &debug.BuildInfo{Main: debug.Module{Path: modulePath, Version: "(devel)"}, Settings: settings}, BuildInfo{Version: "dev", Commit: "0123456789abcdef", Date: "2026-01-02T03:04:05Z", Modified: true}},
		"go install":        {"", &debug.BuildInfo{Main: debug.Module{Path: modulePath, Version: "v1.2.3"}}, BuildInfo{Version: "v1.2.3"}},
		"another program":   {"", &debug.BuildInfo{Main: debug.Module{Path: "example.com/shop", Version: "v9.0.0"}}, BuildInfo{Version: "dev"}},
		"the linker's wins": {"v2.0.0", &debug.BuildInfo{Main: debug.Module{Path: modulePath, Version: "v1.2.3"}}, BuildInfo{Version: "v2.0.0"}},
	} {
		t.Run(name, func(t *testing.T) {
			linkedVersion = c.linked
			t.Cleanup(func() { linkedVersion = "" })
			got := buildInfo(c.recorded)
			if got.Go == "" || got.Platform == "" {
				t.Errorf("no Go version or platform: %+v", got)
			}
			got.Go, got.Platform = "", ""
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}
