package hostnames_test

import (
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/hostnames"
)

// FuzzNormalize checks that every Host header is refused or has one normal form, which is
// short, in lower case, ASCII, and unchanged when it is normalized again.
func FuzzNormalize(f *testing.F) {
	for _, seed := range []string{
		"", ".", "shop.example.com", "Shop.Example.COM.", "shop.example.com:3000", "[::1]:80", "shop.example.com:", "a..b", "-a-.b", "müller.example", "xn--mller-kva.example",
		"xn--.example", "XN--MLLER-KVA.example", "straße.example", "٠.example", "a\u200db.example", "\xff", "a b", "shop.example.com\x00", strings.Repeat("a.", 126) + "a", strings.Repeat("ü", 80),
		"a。b", "shop.example.com.:3000", "..", "x:y:z", "xn--a.xn--b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, host string) {
		name, err := hostnames.Normalize(host)
		if err != nil {
			return
		}
		if name == "" || name != strings.ToLower(name) || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) || strings.ContainsAny(name, ":/@[]") {
			t.Fatalf("%q has become %q", host, name)
		}
		if again, err := hostnames.Normalize(name); err != nil || again != name {
			t.Fatalf("%q has become %q and then %q, %v", host, name, again, err)
		}
	})
}
