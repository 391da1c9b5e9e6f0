package accounts

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/mail"
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

const maxName = 100 // characters

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
	r.Email, fault = canonicalEmail(r.Email)
	add("email", fault)
	r.Password = normalPassword(r.Password)
	add("password", passwordFault(r.Password, r.Email))
	r.FirstName, fault = personName(r.FirstName)
	add("firstName", fault)
	r.LastName, fault = personName(r.LastName)
	add("lastName", fault)
	if r.StoreName != nil {
		add("storeName", stores.NameFault(*r.StoreName))
	}
	return r, faults.Err()
}

// personName trims a first or last name. It goes into mails to others, so it may
// hold nothing that a mail client makes a link of.
func personName(s string) (name, fault string) {
	if name, fault = normalName(s); fault == "" && mail.HasLink(name) {
		fault = "must not hold a web or e-mail address"
	}
	return name, fault
}

// normalName trims what a person calls something.
func normalName(s string) (name, fault string) {
	name = strings.TrimSpace(s)
	switch n := utf8.RuneCountInString(name); {
	case n == 0:
		return name, "must not be empty"
	case n > maxName:
		return name, "must be at most 100 characters long"
	case strings.ContainsFunc(name, unicode.IsControl) || strings.ContainsFunc(name, mail.IsHidden) || !utf8.ValidString(name):
		return name, "must not contain control or invisible characters"
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
