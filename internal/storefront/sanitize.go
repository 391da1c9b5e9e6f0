package storefront

import (
	"math"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa/internal/mail"
)

// pictureURL returns s when ContentSecurityPolicy allows it, and "" otherwise, so
// that a page shows its placeholder instead of a broken image.
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
	// An unescaped question mark in the address would start header fields, such as
	// cc (RFC 6068, section 2).
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

// textColor returns the text colour with the higher contrast on a hex colour: black
// or white. The contrast is at least 4.5:1, since both reach it at luminance 0.179
// (WCAG 2.2, relative luminance).
func textColor(color string) string {
	digits := color[1:]
	if len(digits) == 3 {
		digits = string([]byte{digits[0], digits[0], digits[1], digits[1], digits[2], digits[2]})
	}
	rgb, _ := strconv.ParseUint(digits, 16, 32) // hexColor has matched it
	if 0.2126*linearChannel(rgb>>16)+0.7152*linearChannel(rgb>>8)+0.0722*linearChannel(rgb) > 0.179 {
		return "#000000"
	}
	return "#ffffff"
}

// linearChannel converts the low byte of an sRGB channel to linear light.
func linearChannel(channel uint64) float64 {
	c := float64(channel&255) / 255
	if c <= 0.04045 {
		return c / 12.92
	}
	return math.Pow((c+0.055)/1.055, 2.4)
}

// initial returns the letter that replaces a missing picture.
func initial(name string) string {
	for _, r := range name {
		if unicode.IsLetter(r) || unicode.IsNumber(r) {
			return string(unicode.ToUpper(r))
		}
	}
	return ""
}
