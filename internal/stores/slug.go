package stores

import (
	"crypto/rand"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/stoahq/stoa"
)

// slugPattern matches a slug, which is a DNS label (RFC 1123) without the "??--" form that is reserved
// for encoded names (RFC 5891).
var slugPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// reserved lists labels that software or people associate with the platform itself: names
// of its pages, of services that clients look up by name (such as WPAD, RFC 8461 and RFC
// 7929), and of mailboxes that represent a domain (RFC 2142). Labels that begin with an
// underscore and encoded names (xn--…) are never slugs.
var reserved = strings.Fields(`
	www web api app apps admin administrator root console dashboard panel portal operator stoa platform
	static assets cdn status health metrics help docs blog billing payments checkout legal privacy
	account accounts login logout signin signup register auth oauth sso secure verify password webhook webhooks

	localhost localdomain broadcasthost internal intranet proxy vpn
	wpad isatap autodiscover autoconfig mta-sts openpgpkey
	mail email webmail smtp imap pop pop3 mx mx1 mx2 relay ftp sftp ssh ldap sip xmpp ntp
	dns ns ns1 ns2 ns3 ns4

	abuse noc security postmaster hostmaster webmaster usenet news uucp info marketing sales support
	noreply no-reply mailer-daemon ssladmin ssladministrator sslwebmaster sysadmin`)

const reservedFault = "is reserved for the platform"

// slugFault returns why a store may not have the slug, or "".
func (r *Registry) slugFault(slug string) string {
	if fault := slugFault(slug); fault != "" {
		return fault
	}
	if r.hostnames.IsReserved(slug) {
		return reservedFault
	}
	return ""
}

// slugFault returns why no store may have the slug on any platform, or "".
func slugFault(slug string) string {
	switch {
	case !slugPattern.MatchString(slug):
		return "must be 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end"
	case len(slug) > 3 && slug[2:4] == "--":
		return "must not have hyphens in third and fourth place"
	case slices.Contains(reserved, slug):
		return reservedFault
	}
	return ""
}

// slugCandidates returns slugs for a name: the plain one, a few numbered ones, and one
// with a random suffix that is almost always free.
func (r *Registry) slugCandidates(name string) []string {
	base := slugify(name)
	var out []string
	if r.slugFault(base) == "" {
		out = append(out, base)
	}
	for n := 2; n <= 5; n++ {
		out = append(out, fmt.Sprintf("%s-%d", base, n))
	}
	return append(out, base+"-"+strings.ToLower(rand.Text()[:8]))
}

// plainLetters replaces the Latin letters that have no decomposition into a plain
// letter and an accent.
var plainLetters = strings.NewReplacer("ß", "ss", "æ", "ae", "œ", "oe", "ø", "o", "ł", "l", "đ", "d", "ð", "d", "þ", "th", "ı", "i")

// slugify returns the ASCII letters and digits of name without accents: "Café Zoë"
// becomes "cafe-zoe". A name in another script becomes "store". The result is short
// enough to add a suffix.
func slugify(name string) string {
	var b strings.Builder
	for _, r := range plainLetters.Replace(strings.ToLower(norm.NFKD.String(name))) {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			b.WriteRune(r)
		case unicode.Is(unicode.Mn, r) || r == '\'' || r == '’':
			// An accent or apostrophe does not separate words.
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() == 50 {
			break
		}
	}
	slug := strings.Trim(b.String(), "-")
	if slug == "" {
		return "store"
	}
	return slug
}

func errSlugTaken(slug string) error {
	e := stoa.Errorf(stoa.HostnameTaken, "The slug %q is taken. Choose another.", slug)
	e.Fields = []stoa.FieldError{{Field: "slug", Message: "is taken"}}
	return e
}
