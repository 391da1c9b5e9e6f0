package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/testkit"
)

// TestVendoredScripts checks that the scripts of other projects are what their packages
// hold: a change of one would be invisible in a review.
func TestVendoredScripts(t *testing.T) {
	t.Parallel()
	sums, err := os.ReadFile("static/vendor/SHA256SUMS")
	testkit.Must(t, err)
	want := map[string]string{}
	for line := range strings.Lines(string(sums)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		want[name] = sum
	}
	entries, err := static.ReadDir("static/vendor")
	testkit.Must(t, err)
	if len(entries) != len(want) {
		t.Errorf("%d scripts and %d checksums", len(entries), len(want))
	}
	for _, e := range entries {
		sum := sha256.Sum256(read("static/vendor/" + e.Name()))
		if got := hex.EncodeToString(sum[:]); got != want[e.Name()] {
			t.Errorf("%s has the checksum %s, not that of SHA256SUMS", e.Name(), got)
		}
	}
}

// maxScripts is how much JavaScript a page loads at most, compressed, in bytes.
const maxScripts = 100 << 10

func TestScriptsAreSmall(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	for _, folder := range []string{"static/vendor", "static/js"} {
		entries, err := static.ReadDir(folder)
		testkit.Must(t, err)
		for _, e := range entries {
			_, err := z.Write(read(folder + "/" + e.Name()))
			testkit.Must(t, err)
		}
	}
	testkit.Must(t, z.Close())
	if b.Len() > maxScripts {
		t.Errorf("%d bytes of JavaScript, want at most %d", b.Len(), maxScripts)
	}
}
