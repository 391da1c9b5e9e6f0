package storedata

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"
	_ "time/tzdata" // the known time zones must not depend on the machine
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/language"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/mail"
)

// check is a function that returns what is wrong with a value, as text that follows the field's name,
// or "".
type check func(string) string

// optional returns c for which the empty string is valid.
func optional(c check) check {
	return func(s string) string {
		if s == "" {
			return ""
		}
		return c(s)
	}
}

// checkLine accepts text of at most limit characters without line breaks. The text is
// stored literally, including spaces at its ends.
func checkLine(limit int) check {
	return func(s string) string { return checkText(s, limit, "") }
}

// checkLines accepts text of at most limit characters in any number of lines.
func checkLines(limit int) check {
	return func(s string) string { return checkText(s, limit, "\n\r\t") }
}

// checkText counts characters, as all engines do for text columns. It refuses U+0000,
// which PostgreSQL cannot store, and invalid UTF-8, which SQLite would store and the
// others refuse.
func checkText(s string, limit int, controls string) string {
	switch {
	case !utf8.ValidString(s):
		return "must be valid UTF-8"
	case utf8.RuneCountInString(s) > limit:
		return fmt.Sprintf("must have at most %d characters", limit)
	case strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune(controls, r) }):
		return "must not contain control characters"
	}
	return ""
}

// checkName accepts a line with a visible character.
func checkName(limit int) check {
	return func(s string) string {
		if strings.TrimSpace(s) == "" {
			return "must not be empty"
		}
		return checkLine(limit)(s)
	}
}

var slugForm = regexp.MustCompile(`^[a-z0-9]+(?:-+[a-z0-9]+)*$`)

func checkSlug(limit int) check {
	return func(s string) string {
		if len(s) > limit || !slugForm.MatchString(s) {
			return fmt.Sprintf("must be 1 to %d lower-case letters, digits and inner hyphens", limit)
		}
		return ""
	}
}

// checkSKU refuses spaces at the ends, which MySQL does not distinguish.
func checkSKU(s string) string {
	if s != strings.TrimSpace(s) {
		return "must not begin or end with a space"
	}
	return checkName(64)(s)
}

// checkEmail accepts a bare address of at most 254 characters.
func checkEmail(s string) string {
	if utf8.RuneCountInString(s) > 254 || !mail.IsBareAddress(s) {
		return "must be an e-mail address"
	}
	return ""
}

var phoneForm = regexp.MustCompile(`^[0-9+()./ x-]{3,40}$`)

func checkPhone(s string) string {
	if !phoneForm.MatchString(s) || !strings.ContainsAny(s, "0123456789") {
		return "must be a telephone number of at most 40 characters"
	}
	return ""
}

// checkURL refuses user information: a link that contains a password is a mistake or
// a deception.
func checkURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || !stoa.HasValidPort(u) || strings.ContainsFunc(s, unicode.IsSpace) {
		return "must be a URL that begins with https:// or http://"
	}
	return checkLine(2048)(s)
}

// checkCountry accepts ISO 3166-1 alpha-2. Canonicalize turns codes of former
// countries, and UK, into today's.
func checkCountry(s string) string {
	r, err := language.ParseRegion(s)
	if err != nil || len(s) != 2 || !r.IsCountry() || r.Canonicalize().String() != s {
		return "must be an ISO 3166-1 country code of two capital letters, such as DE"
	}
	return ""
}

func checkCurrency(s string) string {
	if _, ok := currencies[s]; !ok {
		return "must be an ISO 4217 currency code of three capital letters, such as EUR"
	}
	return ""
}

// zoneForm refuses names that LoadLocation would read from the machine's own folders
// ("posix/UTC", "localtime"). Every name in the IANA database matches.
var zoneForm = regexp.MustCompile(`^[A-Z][A-Za-z0-9_+-]*(?:/[A-Z][A-Za-z0-9_+-]*){0,2}$`)

func checkTimezone(s string) string {
	const message = "must be an IANA time zone, such as Europe/Berlin"
	if len(s) > 64 || !zoneForm.MatchString(s) || s == "Local" || s == "Factory" {
		return message
	}
	if _, err := time.LoadLocation(s); err != nil {
		return message
	}
	return ""
}

// checkLocale accepts a BCP 47 tag in its canonical spelling, so that each locale has
// one text.
func checkLocale(s string) string {
	tag, err := language.Parse(s)
	base, _, _ := tag.Raw()
	switch {
	case err != nil || len(s) > 35 || base.String() == "und":
		return "must be a BCP 47 language tag, such as en or de-CH"
	case tag.String() != s:
		return "must be written " + tag.String()
	}
	return ""
}

// verify runs one check and adds its result to faults.
func verify(faults *stoa.Invalid, field, value string, c check) {
	if message := c(value); message != "" {
		faults.Add(field, "%s", message)
	}
}
