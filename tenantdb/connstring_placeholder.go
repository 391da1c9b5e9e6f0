package tenantdb

import (
	"regexp"
	"strings"
)

// Placeholders that providers' pages have in place of a value. A password of a
// person's own may look odd too, so these are narrow.
var placeholders = []*regexp.Regexp{
	// [YOUR-PASSWORD], <db_password>, {your_password}, ${DB_PASS}, {{password}}, %PASSWORD%
	regexp.MustCompile(`(?i)^(?:\[+|<+|\{+|\$\{+|\$\(|%)[a-z _-]*(?:your|pass|pwd|secret|user|host|database|db|ref|name|region|project)[a-z _-]*(?:\]+|>+|\}+|\)|%)$`),
	// YOUR_PASSWORD, your-db-password, yourpassword
	regexp.MustCompile(`(?i)^(?:your|my|the|insert|enter)[ _-]?(?:own[ _-]?|db[ _-]?|database[ _-]?|project[ _-]?|secret[ _-]?)?(?:password|pwd|username|database|host)(?:[ _-]?here)?$`),
	// $PASSWORD, $PGPASSWORD
	regexp.MustCompile(`^\$[A-Z_]*(?:PASS|PWD|SECRET)[A-Z_]*$`),
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
var hostPlaceholder = regexp.MustCompile(`(?i)\[[a-z _-]+\]|<[^>]*>|\{[^}]*\}|your-|\byour_`)

// checkPlaceholders names what was not put in. A placeholder holds letters
// alone, so that it may be shown.
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
