package stores

import (
	"net/netip"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/stoahq/stoa"
)

// maxCustomHostname leaves room for "_stoa." within the 253 bytes of a name.
const maxCustomHostname = 253 - len(recordLabel) - len(".")

// customHostname returns a name that a store may claim in the form in which
// it is stored, or hostname_invalid with the reason why none may.
func (r *Registry) customHostname(given string) (string, error) {
	given = strings.TrimSpace(given)
	if fault := writtenFault(given); fault != "" {
		return "", invalidHostname(fault)
	}
	name, err := NormalHostname(given)
	if err != nil {
		return "", invalidHostname("is not a domain name")
	}
	if fault := r.nameFault(name); fault != "" {
		return "", invalidHostname(fault)
	}
	return name, nil
}

func invalidHostname(fault string) error {
	return &stoa.Error{
		Code: stoa.HostnameInvalid, Message: "The hostname " + fault + ".",
		Fields: []stoa.FieldError{{Field: "hostname", Message: fault}},
	}
}

// writtenFault meets what people take for a hostname.
func writtenFault(given string) string {
	address := strings.Trim(given, "[]")
	if _, err := netip.ParseAddr(address); err == nil {
		return "must be a name, not an IP address"
	}
	switch {
	case given == "":
		return "is required"
	case strings.Contains(given, "*"):
		return "must not hold a wildcard: add each name by itself"
	case strings.ContainsAny(given, "/:@?#"):
		return "must be a name alone, such as shop.example.com: no scheme, port or path"
	}
	return ""
}

// nameFault says why no store may have the name, which is in stored form.
func (r *Registry) nameFault(name string) string {
	domain := strings.ToLower(r.domain)
	labels := strings.Split(name, ".")
	switch suffix, _ := publicsuffix.PublicSuffix(name); {
	case len(name) > maxCustomHostname:
		return "is too long"
	case !wellFormed(labels):
		return "is not a domain name: between its dots are 1 to 63 letters, digits and hyphens, with no hyphen at either end"
	case numeric(labels[len(labels)-1]):
		return "must be a name, not an IP address"
	case name == domain || strings.HasSuffix(name, "."+domain):
		return "belongs to the platform; a store's address there follows its slug"
	case r.platform.hosts[name]:
		return "belongs to the platform"
	case len(labels) == 1:
		return "must be a whole domain name, such as shop.example.com"
	case name == suffix:
		return "is one under which domains are registered; name your own"
	}
	return ""
}

// wellFormed looks at what NormalHostname does not: the labels' lengths and
// their ends.
func wellFormed(labels []string) bool {
	for _, l := range labels {
		if len(l) < 1 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
	}
	return true
}

// numeric: browsers read a name that ends in a number, of whatever base, as
// an IPv4 address (url.spec.whatwg.org, "ends in a number").
func numeric(label string) bool {
	digits, hex := strings.CutPrefix(label, "0x")
	return strings.Trim(digits, "0123456789") == "" || hex && strings.Trim(digits, "0123456789abcdef") == ""
}
