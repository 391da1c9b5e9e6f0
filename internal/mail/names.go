package mail

import (
	netmail "net/mail"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
	"golang.org/x/text/unicode/norm"

	"github.com/stoahq/stoa"
)

// IsBareAddress reports whether s is an e-mail address alone, without display
// name, comment or quotes, and of visible characters. net/mail accepts all
// characters beyond ASCII, invisible and direction-changing ones included.
func IsBareAddress(s string) bool {
	unfit := func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unfit) {
		return false
	}
	// What mail.Address renders equals its input only for a bare address.
	address, err := netmail.ParseAddress(s)
	return err == nil && address.Address == s
}

// MaxName is the maximum length of a name in a mail, in characters.
const MaxName = 80

// HasLink reports whether a mail client may turn a part of a text into a link: a
// URL, an e-mail address, or a host name under an existing top-level domain.
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

// atSign matches the middle of an address.
var atSign = regexp.MustCompile(`\S@\S`)

// scheme matches the start of a URL without slashes.
var scheme = regexp.MustCompile(`(?i)\b(mailto|tel|sms|javascript|data|skype|whatsapp|bitcoin|callto|facetime):\S`)

// Plain makes a text that a user has chosen, such as the name of a person or a store, safe
// for a mail to somebody else. The result is one line without control and hidden
// characters. It is cut to the given number of characters, and has spaces in places where a
// client would otherwise make a link.
func Plain(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if stoa.IsHidden(r) {
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

// separator matches the separators of a link.
var separator = regexp.MustCompile(`[.:。．｡\x{2024}]`)

// asClientsRead returns a text as the most lenient client reads it: with
// compatibility forms replaced, and without invisible characters.
func asClientsRead(s string) string {
	s = strings.NewReplacer("。", ".", "｡", ".").Replace(norm.NFKC.String(s))
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, s)
}

// endsHost reports whether a character cannot be part of a host name.
func endsHost(r rune) bool {
	return r != '.' && r != '-' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r)
}

// isHost reports whether a word is a host name under a public suffix or begins
// with "www.".
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
