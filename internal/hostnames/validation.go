package hostnames

import (
	"net/netip"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/stoahq/stoa"
)

// maxCustomLength is the maximum length of a custom hostname: with "_stoa." it fits in
// the 253 bytes of a name.
const maxCustomLength = 253 - len(recordLabel) - len(".")

// validate returns a hostname that a store may claim, in stored form. It fails with
// hostname_invalid and the reason for a name that no store may claim.
func (s *Service) validate(given string) (string, error) {
	given = strings.TrimSpace(given)
	if fault := syntaxFault(given); fault != "" {
		return "", invalid(fault)
	}
	name, err := Normalize(given)
	if err != nil {
		return "", invalid("is not a domain name")
	}
	if fault := s.nameFault(name); fault != "" {
		return "", invalid(fault)
	}
	return name, nil
}

func invalid(fault string) error {
	return &stoa.Error{
		Code: stoa.HostnameInvalid, Message: "The hostname " + fault + ".",
		Fields: []stoa.FieldError{{Field: "hostname", Message: fault}},
	}
}

// syntaxFault returns what is wrong with input that people mistake for a
// hostname, or "".
func syntaxFault(given string) string {
	address := strings.Trim(given, "[]")
	if _, err := netip.ParseAddr(address); err == nil {
		return "must be a name, not an IP address"
	}
	switch {
	case given == "":
		return "is required"
	case strings.Contains(given, "*"):
		return "must not contain a wildcard: add each name by itself"
	case strings.ContainsAny(given, "/:@?#"):
		return "must be a name alone, such as shop.example.com: no scheme, port or path"
	}
	return ""
}

// nameFault returns why no store may have the name, or "". The name is in stored form.
func (s *Service) nameFault(name string) string {
	labels := strings.Split(name, ".")
	switch suffix, _ := publicsuffix.PublicSuffix(name); {
	case len(name) > maxCustomLength:
		return "is too long"
	case !areLabels(labels):
		return "is not a domain name: between its dots are 1 to 63 letters, digits and hyphens, with no hyphen at either end"
	case isNumeric(labels[len(labels)-1]):
		return "must be a name, not an IP address"
	case name == s.domain || strings.HasSuffix(name, "."+s.domain):
		return "belongs to the platform; a store's address there follows its slug"
	case s.platform.hosts[name]:
		return platformFault
	case len(labels) == 1:
		return "must be a whole domain name, such as shop.example.com"
	case name == suffix:
		return "is one under which domains are registered; name your own"
	}
	return ""
}

const platformFault = "belongs to the platform"

// areLabels checks what Normalize does not check: the labels' lengths and their first and
// last characters.
func areLabels(labels []string) bool {
	for _, l := range labels {
		if len(l) < 1 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
	}
	return true
}

// isNumeric reports whether the label is a number of any base. Browsers read a
// name that ends in one as an IPv4 address (url.spec.whatwg.org, "ends in a
// number").
func isNumeric(label string) bool {
	digits, hex := strings.CutPrefix(label, "0x")
	return strings.Trim(digits, "0123456789") == "" || hex && strings.Trim(digits, "0123456789abcdef") == ""
}
