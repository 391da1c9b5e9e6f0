package web

import (
	"cmp"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa/mail"
)

// pictureURL returns s when ContentSecurityPolicy lets a browser load it, and
// "" otherwise, so that a page shows its placeholder and not a broken image.
func pictureURL(s string) templ.SafeURL {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	switch {
	case u.Scheme == "https" && u.Host != "" && u.User == nil:
	case u.Scheme == "data" && strings.HasPrefix(strings.ToLower(u.Opaque), "image/"):
	case u.Scheme == "" && u.Host == "" && strings.HasPrefix(s, "/"):
	default:
		return ""
	}
	return templ.SafeURL(s)
}

// mailURL returns a link for a bare address, and "" for anything else.
func mailURL(address string) templ.SafeURL {
	if !mail.IsBareAddress(address) {
		return ""
	}
	// A question mark in the address would begin headers, such as a copy to
	// someone else: RFC 6068, section 2.
	return templ.SafeURL("mailto:" + url.PathEscape(address))
}

var hexColor = regexp.MustCompile(`^#(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})$`)

// safeColor returns s when it is a hex colour, and "" otherwise.
func safeColor(s string) string {
	if !hexColor.MatchString(s) {
		return ""
	}
	return s
}

// inkOn returns the colour of letters on a hex colour: black or white,
// whichever is easier to read. Both reach 4.5:1 or more at luminance 0.179,
// so no colour leaves less than that. Source: WCAG 2.2, relative luminance.
func inkOn(color string) string {
	digits := color[1:]
	if len(digits) == 3 {
		digits = string([]byte{digits[0], digits[0], digits[1], digits[1], digits[2], digits[2]})
	}
	rgb, _ := strconv.ParseUint(digits, 16, 32) // hexColor has seen it
	if 0.2126*linear(rgb>>16)+0.7152*linear(rgb>>8)+0.0722*linear(rgb) > 0.179 {
		return "#000000"
	}
	return "#ffffff"
}

// linear turns the low byte of an sRGB channel into its share of light.
func linear(channel uint64) float64 {
	c := float64(channel&255) / 255
	if c <= 0.04045 {
		return c / 12.92
	}
	return math.Pow((c+0.055)/1.055, 2.4)
}

// initial is the letter that stands in for a missing picture.
func initial(name string) string {
	for _, r := range name {
		if unicode.IsLetter(r) || unicode.IsNumber(r) {
			return string(unicode.ToUpper(r))
		}
	}
	return ""
}

// price writes an amount with its currency.
func price(amount, currency string) string {
	if amount == "" {
		return ""
	}
	return strings.TrimSpace(amount + "\u00a0" + currency)
}

// statusTitle is the heading of an error that brings none.
func statusTitle(status int) string {
	return cmp.Or(http.StatusText(status), "Something went wrong")
}
