package storedata

import (
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/currency"
)

func TestChecks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		check     check
		good, bad []string
	}{
		{"name", checkName(5), []string{"a", "👩‍👩‍👧", "ab de", " a  "}, []string{"", " ", "\u00a0", "abcdef", "a\tb", "a\x00", "\u0085b", "\xc3"}},
		{"lines", checkLines(5), []string{"", "a\nb", "\r\n\t"}, []string{"abcdef", "\x00", "\x1b[m", "\xff"}},
		{"slug", checkSlug(5), []string{"a", "a-b", "a--b", "0"}, []string{"", "-a", "a-", "A", "a b", "é", "a_b", "a.b", "abcdef", "a\n", "ａ"}},
		{"sku", checkSKU, []string{"A 1", "ß", "'"}, []string{"", " a", "a ", "a\u00a0", "a\tb", strings.Repeat("a", 65)}},
		{"email", checkEmail, []string{"a@b.de", "A+b'c@Example.COM", "ü@ü.de"},
			[]string{"", "a", "@b", "a@", "a b@c.de", "A <a@b.de>", "a@b.de, c@d.de", "a@b.de ", "a@b.de\n", "\"a b\"@c.de", "a\u00a0@b.de", "a\u200b@b.de", strings.Repeat("a", 250) + "@b.de"}},
		{"phone", checkPhone, []string{"+1 (555) 123-4567", "112"}, []string{"", "12", "abc", "()-()", "1\n23", strings.Repeat("1", 41)}},
		{"url", checkURL, []string{"https://a.de", "HTTP://a.de:8080/b?c=d#e", "https://[::1]/", "https://ü.de/ü"},
			[]string{"", "a.de", "//a.de", "javascript:alert(1)", "data:text/html,x", "https://", "https:///a", "https://u:p@a.de", "https://a.de/a b",
				"https://a.de/\n", "https://a.de:0", "https://a.de:99999/b", "ftp://a.de", "https://a.de/" + strings.Repeat("a", 2048)}},
		{"country", checkCountry, []string{"DE", "GB", "US", "XK", "TW"}, []string{"", "de", "UK", "DEU", "ZZ", "EU", "001", "DD", "D", "D\n"}},
		{"currency", checkCurrency, []string{"EUR", "USD", "JPY", "XCG", "SLE"}, []string{"", "eur", "EURO", "DEM", "XXX", "XAU", "BTC", "€"}},
		{"timezone", checkTimezone, []string{"UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "America/Port_of_Spain", "America/Port-au-Prince", "W-SU"},
			[]string{"", "Local", "localtime", "Factory", "europe/berlin", "../etc/passwd", "/etc/localtime", "Europe", "Europe/", "Europe/../UTC",
				"posix/UTC", "right/UTC", "Mars/Phobos", "UTC\n", "Europe\\Berlin", strings.Repeat("A", 100)}},
		{"locale", checkLocale, []string{"en", "de-CH", "zh-Hant-TW", "de-CH-1996", "es-419"},
			[]string{"", "en_US", "EN", "de-ch", "iw", "und", "english", "qq", "x-foo", "e", "en-", "en\n"}},
	} {
		for _, s := range c.good {
			if message := c.check(s); message != "" {
				t.Errorf("%s %q: %s", c.name, s, message)
			}
		}
		for _, s := range c.bad {
			if c.check(s) == "" {
				t.Errorf("%s %q was accepted", c.name, s)
			}
		}
	}
}

func TestDecimal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		minor    int64
		currency string
		want     string
	}{
		{1250, "EUR", "12.50"},
		{5, "EUR", "0.05"},
		{0, "EUR", "0.00"},
		{-5, "EUR", "-0.05"},
		{-12345, "USD", "-123.45"},
		{1250, "JPY", "1250"},
		{0, "JPY", "0"},
		{1250, "KWD", "1.250"},
		{7, "KWD", "0.007"},
		{1250, "IDR", "12.50"}, // CLDR has no decimal places: 1250
		{100, "???", "1.00"},
		{-1 << 63, "EUR", "-92233720368547758.08"},
	} {
		if got := NewMoney(c.minor, c.currency); got != (Money{c.want, c.currency}) {
			t.Errorf("%d %s: got %+v, want %s", c.minor, c.currency, got, c.want)
		}
	}
}

// TestCurrenciesAreComplete checks that the table contains every currency that CLDR lists
// as money in use, except those that have ended since and accounting units.
func TestCurrenciesAreComplete(t *testing.T) {
	t.Parallel()
	ended := strings.Fields("ANG BGN BYR CUC HRK LTL MRO SLL STD VEF ZMK BOV CHE CHW CLF COU MXV USN UYI")
	inUse := currency.Query(currency.Date(time.Now()))
	checked := 0
	for inUse.Next() {
		code := inUse.Unit().String()
		if _, ok := currencies[code]; !ok && !slices.Contains(ended, code) {
			t.Errorf("%s is missing", code)
		}
		checked++
	}
	if checked < 150 {
		t.Errorf("only %d currencies to compare with", checked)
	}
}
