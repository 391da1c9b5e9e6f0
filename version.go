package stoa

import (
	"cmp"
	"runtime"
	"runtime/debug"
	"strings"
)

// These are set at link time, with -ldflags "-X github.com/stoahq/stoa.linkedVersion=v0.1.0".
// Without them the build information that the go command records is used.
var (
	linkedVersion string // the release
	linkedCommit  string // the full hash
	linkedDate    string // of the commit, in RFC 3339
)

// BuildInfo says what this program was built from.
type BuildInfo struct {
	Version  string `json:"version"`  // "dev" if it is not known
	Commit   string `json:"commit"`   // empty if it is not known
	Date     string `json:"date"`     // of the commit, in RFC 3339; empty if it is not known
	Modified bool   `json:"modified"` // the source differed from the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Version is the release, or "dev".
var Version = Info().Version

// Info returns what this program was built from.
func Info() BuildInfo {
	recorded, _ := debug.ReadBuildInfo()
	return buildInfo(recorded)
}

func buildInfo(recorded *debug.BuildInfo) BuildInfo {
	b := BuildInfo{Version: linkedVersion, Commit: linkedCommit, Date: linkedDate, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if recorded != nil {
		for _, s := range recorded.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Commit = cmp.Or(b.Commit, s.Value)
			case "vcs.time":
				b.Date = cmp.Or(b.Date, s.Value)
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
		if v := recorded.Main.Version; b.Version == "" && recorded.Main.Path == modulePath && v != "(devel)" {
			b.Version = v // of 'go install module@version', or made of the last tag and the commit
		}
	}
	b.Version = cmp.Or(b.Version, "dev")
	return b
}

const modulePath = "github.com/stoahq/stoa"

// Build returns the version with the commit it was built from, when known.
func Build() string {
	b := Info()
	const short = 12
	if len(b.Commit) < short || strings.Contains(b.Version, b.Commit[:short]) {
		return b.Version
	}
	return b.Version + " (" + b.Commit[:short] + ")"
}
