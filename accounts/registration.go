package accounts

import (
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/stores"
)

// Registration is what a person gives to open an account. StoreName, when
// not nil, asks for a first store of that name.
type Registration struct {
	Email     string
	Password  keyring.Secret
	FirstName string
	LastName  string
	StoreName *string
	Client    Client
}

const (
	maxEmail     = 254 // bytes: the longest path of RFC 5321, 4.5.3.1.3, without its brackets
	maxEmailName = 64  // bytes before the @: RFC 5321, 4.5.3.1.1
	maxName      = 100 // characters
)

// checked returns the registration as it is stored, or invalid_request with
// every fault.
func (r Registration) checked() (Registration, error) {
	var faults stoa.Invalid
	add := func(field, fault string) {
		if fault != "" {
			faults.Add(field, "%s", fault)
		}
	}
	var fault string
	r.Email, fault = normalEmail(r.Email)
	add("email", fault)
	r.Password = normalPassword(r.Password)
	add("password", passwordFault(r.Password, r.Email))
	r.FirstName, fault = normalName(r.FirstName)
	add("firstName", fault)
	r.LastName, fault = normalName(r.LastName)
	add("lastName", fault)
	if r.StoreName != nil {
		add("storeName", stores.NameFault(*r.StoreName))
	}
	return r, faults.Err()
}

// mailDomain accepts what DNS can look up, and maps the spellings of an
// international domain to one.
var mailDomain = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true), idna.VerifyDNSLength(true))

// normalEmail returns the one spelling under which an address is stored and
// looked up: lower case, the domain in ASCII. The fault is empty when s is a
// bare address: no display name, no comment, no quotes.
func normalEmail(s string) (email, fault string) {
	const malformed = "must be an e-mail address such as owner@example.com"
	if len(s) > maxEmail {
		return s, "must be at most 254 characters long"
	}
	if strings.ContainsFunc(s, unfitForEmail) || !utf8.ValidString(s) {
		return s, malformed
	}
	// What mail.Address renders equals its input only for a bare address.
	address, err := mail.ParseAddress(s)
	if err != nil || address.Address != s {
		return s, malformed
	}
	at := strings.LastIndexByte(s, '@')
	domain, err := mailDomain.ToASCII(s[at+1:])
	if err != nil || !strings.Contains(domain, ".") {
		return s, malformed
	}
	name := strings.ToLower(norm.NFC.String(s[:at]))
	email = name + "@" + domain
	if len(name) > maxEmailName || len(email) > maxEmail {
		return s, malformed
	}
	return email, ""
}

// unfitForEmail: net/mail lets every character beyond ASCII pass, invisible
// and direction-changing ones included.
func unfitForEmail(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }

// normalName trims a first or last name.
func normalName(s string) (name, fault string) {
	name = strings.TrimSpace(s)
	switch n := utf8.RuneCountInString(name); {
	case n == 0:
		return name, "must not be empty"
	case n > maxName:
		return name, "must be at most 100 characters long"
	case strings.ContainsFunc(name, unicode.IsControl) || !utf8.ValidString(name):
		return name, "must not contain control characters"
	}
	return name, ""
}

// cleaned makes what a client says about itself fit for a text column:
// valid, without control characters, at most so many bytes.
func cleaned(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) <= most {
		return s
	}
	for !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}
