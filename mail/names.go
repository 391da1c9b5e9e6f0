package mail

import (
	"regexp"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
	"golang.org/x/text/unicode/norm"
)

// MaxName is how long, in characters, a name in a mail should be at most.
const MaxName = 80

// HasLink reports whether a mail client may make a link of some part of a
// text: a URL, an e-mail address, or what has the form of a host's name under a
// top-level domain that exists.
func HasLink(s string) bool {
	s = asClientsRead(s)
	if atSign.MatchString(s) || strings.Contains(s, "//") || scheme.MatchString(s) {
		return true
	}
	for _, word := range strings.FieldsFunc(s, endsHost) {
		if isHost(strings.Trim(word, ".")) {
			return true
		}
	}
	return false
}

// atSign joins the parts of an address.
var atSign = regexp.MustCompile(`\S@\S`)

// scheme begins a URL without slashes that clients know.
var scheme = regexp.MustCompile(`(?i)\b(mailto|tel|sms|javascript|data|skype|whatsapp|bitcoin|callto|facetime):\S`)

// Plain makes a text that somebody has chosen, such as the name of a person or
// a store, fit for a mail to somebody else: one line of at most so many
// characters, without control and direction-changing characters, and with
// spaces in what a client would make a link of.
func Plain(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if IsHidden(r) {
			return -1
		}
		return r
	}, oneLine(s))
	if HasLink(s) {
		s = separator.ReplaceAllString(norm.NFKC.String(s), "$0 ")
		s = strings.NewReplacer("@", " at ", "/", " ").Replace(s)
		s = oneLine(s)
	}
	if runes := []rune(s); len(runes) > most {
		s = strings.TrimSpace(string(runes[:most-1])) + "…"
	}
	return s
}

// separator is what the parts of a link are joined by.
var separator = regexp.MustCompile(`[.:。．｡\x{2024}]`)

// IsHidden reports whether a character is not seen or changes how those around
// it are: format characters such as direction overrides, and line separators.
// The joiners that several scripts are written with are none.
func IsHidden(r rune) bool {
	return unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs) && r != '\u200c' && r != '\u200d'
}

// asClientsRead is a text as the most lenient client takes it: compatibility
// forms as what they stand for, without what is not seen.
func asClientsRead(s string) string {
	s = strings.NewReplacer("。", ".", "｡", ".").Replace(norm.NFKC.String(s))
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, s)
}

// endsHost reports whether a character is none of a host's name.
func endsHost(r rune) bool {
	return r != '.' && r != '-' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r)
}

// isHost reports whether a word is a host's name under a public suffix, begins
// with www.
func isHost(word string) bool {
	word = strings.ToLower(word)
	if rest, ok := strings.CutPrefix(word, "www."); ok && rest != "" {
		return true
	}
	labels := strings.Split(word, ".")
	if len(labels) < 2 || labels[len(labels)-2] == "" {
		return false
	}
	last, err := idna.ToASCII(labels[len(labels)-1])
	if err != nil {
		return false
	}
	_, icann := publicsuffix.PublicSuffix(last)
	return icann
}
