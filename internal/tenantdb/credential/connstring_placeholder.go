package credential

import (
	"regexp"
	"strings"
)

// placeholderWords are all that a placeholder in brackets consists of. A
// person's own password may be in brackets too, and is never shown.
const placeholderWords = `(?:[ _-]*(?:your|my|the|own|new|insert|enter|here|db|database|project|user|username|name|neon|pg|postgres|postgresql|mysql|root|admin|password|pass|pwd|secret|host|hostname|server|ref|region|id))+`

// placeholders that providers' pages have in place of a value.
var placeholders = []*regexp.Regexp{
	// [YOUR-PASSWORD], <db_password>, {your_password}, ${DB_PASS}, {{password}}, %PASSWORD%
	regexp.MustCompile(`(?i)^(?:\[+|<+|\{+|\$\{+|\$\(|%)` + placeholderWords + `(?:\]+|>+|\}+|\)|%)$`),
	// YOUR_PASSWORD, your-db-password, yourpassword
	regexp.MustCompile(`(?i)^(?:your|my|the|insert|enter)[ _-]?(?:own[ _-]?|db[ _-]?|database[ _-]?|project[ _-]?|secret[ _-]?)?(?:password|pwd|username|database|host)(?:[ _-]?here)?$`),
	// $PASSWORD, $PGPASSWORD
	regexp.MustCompile(`^\$(?:DB|PG|MYSQL|POSTGRES|DATABASE|_)*(?:PASSWORD|PASS|PWD|SECRET)$`),
	// What pages show of a hidden password.
	regexp.MustCompile(`^(?:\*{3,}|•{3,}|●{3,}|\.{3,}|…|[xX]{4,}|\[?(?i:redacted|hidden|masked)\]?)$`),
}

// isPlaceholder reports whether s stands for a value that is still to be put in.
func isPlaceholder(s string) bool {
	for _, p := range placeholders {
		if p.MatchString(s) {
			return true
		}
	}
	return false
}

// hostPlaceholder is a part of a host's name that is still to be put in.
var hostPlaceholder = regexp.MustCompile(`(?i)\[[a-z _-]+\]|<[^>]*>|\{[^}]*\}|^your[-_](?:host|hostname|server)(?:$|\.)`)

// checkPlaceholders names what was not put in. A placeholder consists of
// known words and signs alone, so that it may be shown.
func (r *pasteReader) checkPlaceholders() {
	if isPlaceholder(r.password) {
		r.fault("The password is still the placeholder %s; put the database user's password there. "+
			"Who does not know it sets a new one on the provider's page", strings.ReplaceAll(r.password, "%", ""))
	}
	for name, value := range map[string]string{"user": r.user, "database": r.database} {
		if isPlaceholder(value) {
			r.fault("The %s is still a placeholder; put the real one there", name)
		}
	}
	if hostPlaceholder.MatchString(r.host) {
		r.fault("The host is still a placeholder; put the database server's host name there")
	}
	if strings.ContainsAny(r.user, "[]<>{}") && hostPlaceholder.MatchString(r.user) {
		r.fault("The user has a placeholder in it; put the real value there")
	}
}
