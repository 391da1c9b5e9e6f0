package accounts

import (
	"context"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
)

const (
	maxEmail     = 254 // bytes: the longest path of RFC 5321, 4.5.3.1.3, without its brackets
	maxEmailName = 64  // bytes before the @: RFC 5321, 4.5.3.1.1

	malformedEmail  = "must be an e-mail address such as owner@example.com"
	confusableEmail = "has letters before the @ that can be mistaken for others: use an address of plain letters and digits, or of one script"
)

// mailDomain accepts what DNS can look up, and maps the spellings of an
// international domain to one (UTS 46, non-transitional).
var mailDomain = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true), idna.VerifyDNSLength(true))

// canonicalEmail returns the form in which an address is stored and compared:
// lower case, the domain in ASCII. Two addresses are equal exactly when their
// canonical forms are the same bytes. The fault is empty when s is a bare address
// without confusable characters before the @.
func canonicalEmail(s string) (email, fault string) {
	if len(s) > maxEmail {
		return s, "must be at most 254 characters long"
	}
	if !mail.IsBareAddress(s) {
		return s, malformedEmail
	}
	at := strings.LastIndexByte(s, '@')
	domain, err := mailDomain.ToASCII(s[at+1:])
	if err != nil || !strings.Contains(domain, ".") {
		return s, malformedEmail
	}
	name := lowerEmailName(s[:at])
	if !isASCII(s[:at]) && (lowersToASCII(s[:at]) || isConfusable(name)) {
		return s, confusableEmail
	}
	email = name + "@" + domain
	if len(name) > maxEmailName || len(email) > maxEmail {
		return s, malformedEmail
	}
	return email, ""
}

// storedEmail returns the form in which an address may be stored: the canonical
// one or, for an address that is no longer accepted, its form in earlier releases.
// It is for finding an account only, not for creating or comparing one. ok is
// false for a malformed address.
func storedEmail(s string) (email string, ok bool) {
	email, fault := canonicalEmail(s)
	switch fault {
	case "":
		return email, true
	case confusableEmail:
		at := strings.LastIndexByte(s, '@')
		domain, err := mailDomain.ToASCII(s[at+1:])
		email = lowerEmailName(s[:at]) + "@" + domain
		_, fault = canonicalEmail(email)
		return email, err == nil && fault != "" // else the spelling would stand for another address
	}
	return "", false
}

// IrregularEmails lists the users whose address is not in canonical form, because
// an earlier release accepted it. They sign in with that spelling.
func IrregularEmails(ctx context.Context, q masterdb.Querier) ([]User, error) {
	var users, out []User
	// ASCII addresses have always been stored in canonical form.
	err := q.Select(ctx, &users, `SELECT `+userColumns+` FROM users WHERE octet_length(email) > length(email) ORDER BY id`)
	for _, u := range users {
		if email, fault := canonicalEmail(u.Email); fault != "" || email != u.Email {
			out = append(out, u)
		}
	}
	return out, err
}

// lowerEmailName normalises case and accents. It changes nothing that mail
// servers distinguish.
func lowerEmailName(s string) string { return strings.ToLower(norm.NFC.String(s)) }

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// lowersToASCII reports whether s contains a character outside ASCII whose lower case
// is ASCII: the Kelvin sign or the dotted capital I, which may also be composed of two
// characters.
func lowersToASCII(s string) bool {
	return strings.ContainsFunc(s+norm.NFC.String(s), func(r rune) bool {
		return r >= utf8.RuneSelf && unicode.ToLower(r) < utf8.RuneSelf
	})
}

// isConfusable reports whether the part of an address before the @, in lower
// case, can be confused with another one, by a program that folds case or width or
// by a person. It is strict: it accepts letters of one script, each in its
// plainest form, and ASCII digits and punctuation.
func isConfusable(name string) bool {
	if !norm.NFKC.IsNormalString(name) || cases.Fold().String(name) != name {
		return true
	}
	var used scripts
	before := rune(0)
	for _, r := range name {
		if r >= utf8.RuneSelf || isLetter(r) {
			if !used.add(r, before) {
				return true
			}
		}
		before = r
	}
	return used.mixed() || used.looksLatin
}

func isLetter(r rune) bool { return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' }

// scripts collects the scripts of the letters of a name.
type scripts struct {
	names      map[string]bool
	looksLatin bool // every letter so far has the look of a Latin one, and none is Latin
}

// latinLooks are letters of other scripts that look like Latin ones: a word of
// only such letters is read as Latin (browsers apply the same rule to domains:
// UTS 39, 4.1).
const latinLooks = "аысԁеԍһіюјӏорԗԛѕԝхуъьҽпгѵѡ" + "αικνρυωηοτγχ" + "ոսւօհցյզ"

// plainLatin are the Latin letters of common alphabets other than ASCII letters
// with accents.
const plainLatin = "æœøðþđłħŋ"

// add adds one letter, or a mark that follows it. It reports whether the
// character is allowed in a name.
func (s *scripts) add(r, before rune) bool {
	if s.names == nil {
		s.names, s.looksLatin = map[string]bool{}, true
	}
	if unicode.IsMark(r) {
		// A mark that is left after composition: of a script that writes its
		// vowels so, on a letter of that script.
		script := scriptOf(r)
		return script != "" && script == scriptOf(before)
	}
	if r == 'ー' { // common to both kana
		return scriptOf(before) == "Katakana" || scriptOf(before) == "Hiragana" || before == r
	}
	script := scriptOf(r)
	if !unicode.IsLetter(r) || script == "" || script == "Latin" && !isPlainLatin(r) || isLetter(unicode.ToUpper(r)) && !isLetter(r) {
		return false
	}
	s.names[script] = true
	s.looksLatin = s.looksLatin && strings.ContainsRune(latinLooks, r)
	return true
}

// isPlainLatin reports whether r is an ASCII letter, with or without accents, or one of
// plainLatin.
func isPlainLatin(r rune) bool {
	base, _ := utf8.DecodeRuneInString(norm.NFD.String(string(r)))
	return isLetter(base) || strings.ContainsRune(plainLatin, r)
}

// mixed reports whether the letters are of scripts that no language writes
// together.
func (s *scripts) mixed() bool {
	if len(s.names) <= 1 {
		return false
	}
	for _, together := range [][]string{{"Han", "Hiragana", "Katakana"}, {"Han", "Hangul"}, {"Han", "Bopomofo"}} {
		rest := len(s.names)
		for _, name := range together {
			if s.names[name] {
				rest--
			}
		}
		if rest == 0 {
			return false
		}
	}
	return true
}

// scriptOf returns the script of a character, "" for those common to several.
func scriptOf(r rune) string {
	for name, table := range unicode.Scripts {
		if name != "Common" && name != "Inherited" && unicode.Is(table, r) {
			return name
		}
	}
	return ""
}
