package stores

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa/internal/hostnames"
)

func TestSlugify(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{"plain", "Bakery", "bakery"},
		{"words", "My  First Store", "my-first-store"},
		{"accents", "Café Zoë", "cafe-zoe"},
		{"accents apart", "Cafe\u0301 Zoe\u0308", "cafe-zoe"},
		{"Turkish capital", "İstanbul", "istanbul"},
		{"letters that do not decompose", "Straße Łódź Ærø Œuvre Đà Þór Ðal ışık", "strasse-lodz-aero-oeuvre-da-thor-dal-isik"},
		{"compatibility forms", "ﬁne №5 ℡ Ⅷ ①", "fine-no5-tel-viii-1"},
		{"full width", "ＡＢＣ １２３", "abc-123"},
		{"apostrophes", "O'Brien’s", "obriens"},
		{"punctuation", "-- Tom & Jerry, Ltd.! --", "tom-jerry-ltd"},
		{"underscore", "a_b", "a-b"},
		{"Greek", "Καφές", "store"},
		{"Chinese", "小店", "store"},
		{"Devanagari", "दुकान", "store"},
		{"emoji", "🧁🧁", "store"},
		{"two scripts", "Кафе 24 小店", "24"},
		{"only punctuation", "!?", "store"},
		{"empty", "", "store"},
		{"controls", "a\x00b\nc", "a-b-c"},
		{"broken UTF-8", "a\xffb", "a-b"},
		{"longest", strings.Repeat("a", 50), strings.Repeat("a", 50)},
		{"cut", strings.Repeat("a", 51), strings.Repeat("a", 50)},
		{"cut at a hyphen", strings.Repeat("a", 49) + " bc", strings.Repeat("a", 49)},
		{"cut after a hyphen", strings.Repeat("a", 48) + " bc", strings.Repeat("a", 48) + "-b"},
		{"cut inside an expansion", strings.Repeat("a", 49) + "ßx", strings.Repeat("a", 49) + "s"},
		{"long of many words", strings.Repeat("ab ", 40), strings.Repeat("ab-", 16) + "ab"},
	} {
		if got := slugify(c.in); got != c.want {
			t.Errorf("%s: %q becomes %q, want %q", c.name, c.in, got, c.want)
		}
	}
}

func TestSlugCandidates(t *testing.T) {
	t.Parallel()
	r := &Registry{hostnames: &hostnames.Service{}}
	for _, c := range []struct {
		name  string
		plain []string
	}{
		{"Bakery", []string{"bakery", "bakery-2", "bakery-3", "bakery-4", "bakery-5"}},
		{"API", []string{"api-2", "api-3", "api-4", "api-5"}}, // "api" itself is reserved
		{"小店", []string{"store", "store-2", "store-3", "store-4", "store-5"}},
		{"X", []string{"x", "x-2", "x-3", "x-4", "x-5"}},
	} {
		got := r.slugCandidates(c.name)
		if diff := cmp.Diff(c.plain, got[:len(got)-1]); diff != "" {
			t.Error(diff)
		}
	}
	for _, name := range []string{"Bakery", "API", "xn", "Q", strings.Repeat("ab ", 40), strings.Repeat("z", 120), "a b", "ab c"} {
		first, second := r.slugCandidates(name), r.slugCandidates(name)
		if last := len(first) - 1; first[last] == second[last] {
			t.Errorf("%q: the last resort is %q twice", name, first[last])
		}
		for _, slug := range first {
			if fault := slugFault(slug); fault != "" {
				t.Errorf("%q: proposes %q, which %s", name, slug, fault)
			}
		}
	}
}

func TestSlugFault(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"a", "7", "a-b", "a--b", "abc--d", "ab-c", "xn-a", "apis", "www2", strings.Repeat("a", 63)} {
		if fault := slugFault(good); fault != "" {
			t.Errorf("%q: %s", good, fault)
		}
	}
	bad := []string{"", "-", "-a", "a-", "A", "ä", "a b", "a.b", "a_b", "a\n", "a\x00", "ab--c", "xn--abc", "xn--", strings.Repeat("a", 64)}
	for _, slug := range slices.Concat(bad, reserved) {
		if slugFault(slug) == "" {
			t.Errorf("%q is accepted", slug)
		}
	}
}

// TestConfusableSlugs: a slug is ASCII, so no other script can imitate a name.
func TestConfusableSlugs(t *testing.T) {
	t.Parallel()
	for _, slug := range []string{"аpi", "ａpi", "apı", "api\u200d", "WWW", "ｗww", "xn--pi-6kc", "xn--80ak6aa92e", "_dmarc", "_acme-challenge"} {
		if slugFault(slug) == "" {
			t.Errorf("%q is accepted", slug)
		}
	}
}
