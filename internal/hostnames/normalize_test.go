package hostnames

import (
	"strings"
	"testing"
)

func TestNormalize(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"bakery.shops.test":        "bakery.shops.test",
		"Bakery.SHOPS.Test":        "bakery.shops.test",
		"bakery.shops.test:3000":   "bakery.shops.test",
		"bakery.shops.test:":       "bakery.shops.test",
		"bakery.shops.test.":       "bakery.shops.test",
		"BAKERY.shops.test.:443":   "bakery.shops.test",
		"localhost":                "localhost",
		"127.0.0.1:3000":           "127.0.0.1",
		"a--b.example":             "a--b.example",
		"müller.example":           "xn--mller-kva.example",
		"MÜLLER.example:80":        "xn--mller-kva.example",
		"mu\u0308ller.example":     "xn--mller-kva.example",
		"xn--mller-kva.example":    "xn--mller-kva.example",
		"XN--MLLER-KVA.example":    "xn--mller-kva.example",
		"straße.example":           "xn--strae-oqa.example",
		"ｂａｋｅｒｙ.example":           "bakery.example",
		"bakery。shops。test":        "bakery.shops.test",
		strings.Repeat("a", 253):   strings.Repeat("a", 253),
		"小店.example":               "xn--yetu2d.example",
		"xn--yetu2d.example.:8080": "xn--yetu2d.example",
	} {
		if got, err := Normalize(in); got != want || err != nil {
			t.Errorf("%q becomes %q, %v, want %q", in, got, err, want)
		}
	}
	for name, in := range map[string]string{
		"empty": "", "dot": ".", "empty label": "a..example", "empty label of other dots": "a。。example", "port only": ":80", "too long": strings.Repeat("a", 254),
		"IPv6": "::1", "IPv6 in brackets": "[::1]", "IPv6 with port": "[::1]:80", "IPv6 with zone": "[fe80::1%eth0]:80",
		"NUL": "a\x00.example", "newline": "a.example\nb", "space": "a b.example", "tab": "\ta.example", "broken UTF-8": "a\xff.example",
		"slash": "a.example/b", "at": "a@b.example", "percent": "a%2e.example", "wildcard": "*.example", "quote": "a'.example",
		"underscore": "_a.example", "two ports": "a.example:80:90", "bad punycode": "xn--a.example", "not normal punycode": "xn--ls8h=.example",
		"bidi override": "a\u202eb.example",
	} {
		if got, err := Normalize(in); err == nil {
			t.Errorf("%s: %q becomes %q", name, in, got)
		}
	}
}
