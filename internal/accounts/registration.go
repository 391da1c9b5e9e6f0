package accounts

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/stores"
)

// Registration is a request to open an account. StoreName, unless nil, is the
// name of a first store to create.
type Registration struct {
	Email     string
	Password  keyring.Secret
	FirstName string
	LastName  string
	StoreName *string
	Client    Client
}

// validate returns the registration in the form that is stored. It fails with
// invalid_request, naming every fault.
func (r Registration) validate() (Registration, error) {
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

// personName normalises a first or last name. Names appear in mails to other
// people, so they may not contain what a mail client turns into a link.
func personName(s string) (name, fault string) {
	if name, fault = stoa.NormalName(s); fault == "" && mail.HasLink(name) {
		fault = "must not hold a web or e-mail address"
	}
	return name, fault
}

// sanitize makes a client's text fit for a column: valid UTF-8, without control
// characters, at most most bytes.
func sanitize(s string, most int) string {
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
