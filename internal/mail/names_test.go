package mail_test

import (
	"strings"
	"testing"
	"unicode"

	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/testkit"
)

// linkable are names that a mail client would turn into a link.
var linkable = []string{
	"http://evil.test/pay", "HTTPS://EVIL.TEST", "ftp://x", "custom+scheme://x", "Click https://evil.test now", "//evil.example.com/a", "www.evil", "Www.Evil.Test",
	"evil.com", "Evil.COM", "Call evil.co.uk today", "shop.evil.dev/pay?x=1", "evil.com:8080", "(evil.com)", "\"evil.com\"", "evil.com.", "evil.com,", "<evil.com>",
	"bücher.de", "例え.テスト.jp", "中文.中国", "xn--fiqs8s.xn--fiqs8s", "ｅｖｉｌ．ｃｏｍ", "evil。com", "evil．com", "evil｡com", "e\u200bvil.com", "evil.c\u00adom", "evil\u2024com",
	"me@evil.test", "mailto:me", "MAILTO:me@evil", "tel:+123456", "javascript:alert(1)", "data:text/html,x", "me＠evil.test", "[2001:db8::1]://",
	"Olive evil.com Owner", "a.b.evil.shop", "evil.com\u202e", "Olive|evil.io|Owner", "Olive/evil.io",
}

// plainNames are ordinary names of people and stores.
var plainNames = []string{
	"Olive", "Dr. Olive Owner", "O'Brien", "Anne-Marie", "J.R.R. Tolkien", "St.John's", "Mr. & Mrs. Müller GmbH", "Müller GmbH & Co. KG", "A.P.C.", "Zoë", "山田 太郎",
	"Store No.1", "Shop 1.5", "50% off: all week", "Bread / Butter", "C/O Olive", "Shop: Berlin", "24/7", "Yes! We're open...", "Tom @ Work", "Ключи", "نرگس\u200cها", "José Ñandú", "#1 Store", "Node.js",
	"Café.Zoë", "10:30", "Part 1: The End", "Ratio 3:4", "R2-D2", "e.g. this", "Two..dots", "Mozilla/5.0 (X11; Linux x86_64) Chrome/120.0.0.0 Safari/537.36", "www", "http", "Dot . Com",
}

func TestHasLink(t *testing.T) {
	t.Parallel()
	for _, name := range linkable {
		if !mail.HasLink(name) {
			t.Errorf("%q has a link", name)
		}
	}
	for _, name := range plainNames {
		if mail.HasLink(name) {
			t.Errorf("%q has no link", name)
		}
	}
}

// TestPlain checks that the result has no link, no control characters and at most the given
// length, and that an ordinary name is unchanged.
func TestPlain(t *testing.T) {
	t.Parallel()
	hostile := append([]string{"a\r\nBcc: x@example.com", "\x1b]0;evil\a", "own\u202eer", "\u2066x", "a\u2028b", strings.Repeat("evil.com ", 40), strings.Repeat("Ж", 300), "\xff\xfe", "", " \t "}, linkable...)
	for _, name := range append(hostile, plainNames...) {
		got := mail.Plain(name, mail.MaxName)
		if mail.HasLink(got) || len([]rune(got)) > mail.MaxName || strings.ContainsFunc(got, func(r rune) bool { return unicode.Is(unicode.C, r) && r != '\u200c' || r == '\u2028' }) {
			t.Errorf("%q becomes %q", name, got)
		}
	}
	for _, name := range plainNames {
		if got := mail.Plain(name, mail.MaxName); got != name {
			t.Errorf("%q becomes %q", name, got)
		}
	}
	if got := mail.Plain("Olive evil.com", mail.MaxName); got != "Olive evil. com" {
		t.Errorf("%q", got)
	}
}

// FuzzPlain checks that no result contains a link.
func FuzzPlain(f *testing.F) {
	for _, name := range append(linkable, plainNames...) {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := mail.Plain(name, mail.MaxName)
		if mail.HasLink(got) || len([]rune(got)) > mail.MaxName || mail.Plain(got, mail.MaxName) != got {
			t.Fatalf("%q becomes %q, and that %q", name, got, mail.Plain(got, mail.MaxName))
		}
	})
}

// TestRecipientsNameIsPlain checks that the header with the recipient's name contains no
// link either.
func TestRecipientsNameIsPlain(t *testing.T) {
	t.Parallel()
	s := sender(t, mail.Options{Dir: t.TempDir()})
	m := hello
	m.To.Name = "Win at http://evil.test"
	testkit.Must(t, s.Send(t.Context(), m))
	box, err := s.Box()
	testkit.Must(t, err)
	if len(box) != 1 || strings.Contains(box[0].To, "evil.test") || !strings.Contains(box[0].To, "zoe@example.com") {
		t.Errorf("to %q", box[0].To)
	}
}
