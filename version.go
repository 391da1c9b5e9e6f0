package stoa

import "runtime/debug"

// Version is the release, set at build time with
// -ldflags "-X github.com/stoahq/stoa.Version=v0.1.0".
var Version = "dev"

// Build returns the version with the commit it was built from, when known.
func Build() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return Version + " (" + s.Value[:12] + ")"
		}
	}
	return Version
}
