package credential

import (
	"regexp"
	"strings"
)

// placeholderWords matches the words of a placeholder in brackets. A
// placeholder consists only of these words, because a person's own password may
// be in brackets too and must never be shown.
const placeholderWords = `(?:[ _-]*(?:your|my|the|own|new|insert|enter|here|db|database|project|user|username|name|neon|pg|postgres|postgresql|mysql|root|admin|password|pass|pwd|secret|host|hostname|server|ref|region|id))+`

// placeholders match the placeholders that providers' pages show in place of a
// value.
var placeholders = []*regexp.Regexp{
	// [YOUR-PASSWORD], <db_password>, {your_password}, ${DB_PASS}, {{password}}, %PASSWORD%
	regexp.MustCompile(`(?i)^(?:\[+|<+|\{+|\$\{+|\$\(|%)` + placeholderWords + `(?:\]+|>+|\}+|\)|%)$`),
	// YOUR_PASSWORD, your-db-password, yourpassword
	regexp.MustCompile(`(?i)^(?:your|my|the|insert|enter)[ _-]?(?:own[ _-]?|db[ _-]?|database[ _-]?|project[ _-]?|secret[ _-]?)?(?:password|pwd|username|database|host)(?:[ _-]?here)?$`),
	// $PASSWORD, $PGPASSWORD
	regexp.MustCompile(`^\$(?:DB|PG|MYSQL|POSTGRES|DATABASE|_)*(?:PASSWORD|PASS|PWD|SECRET)$`),
	// These are the forms in which pages show a hidden password.
	regexp.MustCompile(`^(?:\*{3,}|•{3,}|●{3,}|\.{3,}|…|[xX]{4,}|\[?(?i:redacted|hidden|masked)\]?)$`),
}

// isPlaceholder reports whether s is a placeholder for a value.
func isPlaceholder(s string) bool {
	for _, p := range placeholders {
		if p.MatchString(s) {
			return true
		}
	}
	return false
}

// hostPlaceholder matches a placeholder in a host name.
var hostPlaceholder = regexp.MustCompile(`(?i)\[[a-z _-]+\]|<[^>]*>|\{[^}]*\}|^your[-_](?:host|hostname|server)(?:$|\.)`)

// checkPlaceholders adds a fault for each placeholder that was not replaced. A
// placeholder consists only of known words and signs, so the fault may show it.
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
