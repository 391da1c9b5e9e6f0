package credential

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/stoahq/stoa/internal/keyring"
)

var (
	postgresCommand = regexp.MustCompile(`(?:^|[\s/])(?:psql|pgcli)(?:\.exe)?\s`)
	// Words that only settings of one engine have.
	postgresWords = regexp.MustCompile(`(?i)\b(?:PG(?:HOST|USER|PASSWORD|DATABASE|PORT)|POSTGRES(?:QL)?_\w+|sslmode|dbname|5432|6432|6543|DB_CONNECTION\s*[=:]\s*["']?(?:pgsql|postgres\w*))\b`)
	mysqlWords    = regexp.MustCompile(`(?i)\b(?:MYSQL_\w+|MARIADB_\w+|uid|3306|DB_CONNECTION\s*[=:]\s*["']?(?:mysql|mariadb))\b`)
)

// DetectEngine returns the engine that a pasted connection string is for, or "" when
// the text does not say. It makes no connection. For the database of a Supabase project
// it returns Supabase.
func DetectEngine(raw keyring.Secret, rules SupabaseRules) EngineName {
	text := raw.Reveal()
	if len(text) > maxConnectionString || !utf8.ValidString(text) {
		return ""
	}
	text, several := unwrap(text)
	if several {
		return ""
	}
	engine := engineOfText(text, raw.Reveal())
	if engine == "" {
		engine = onlyReader(raw)
	}
	if engine != PostgreSQL {
		return engine
	}
	r := &pasteReader{engine: PostgreSQL}
	r.readForm(text)
	if rules.IsSupabase(r.host) {
		return Supabase
	}
	return PostgreSQL
}

// engineOfText returns the engine that the form of an unwrapped text or the words of
// the whole one name, or "".
func engineOfText(text, whole string) EngineName {
	if len(text) > 5 && strings.EqualFold(text[:5], "jdbc:") {
		text = text[5:]
	}
	if scheme := schemePattern.FindString(text); scheme != "" {
		return EngineOfScheme(scheme[:len(scheme)-3])
	}
	switch {
	case commandPattern.MatchString(text):
		if postgresCommand.MatchString(text) {
			return PostgreSQL
		}
		return MySQL
	case goDSNPattern.MatchString(text):
		return MySQL
	}
	postgres, mysql := postgresWords.MatchString(whole), mysqlWords.MatchString(whole)
	switch {
	case postgres && !mysql:
		return PostgreSQL
	case mysql && !postgres:
		return MySQL
	}
	return ""
}

// onlyReader returns the only engine whose rules accept the text, or "".
func onlyReader(raw keyring.Secret) (found EngineName) {
	for _, engine := range []EngineName{PostgreSQL, MySQL} {
		if _, err := ParseConnectionString(engine, raw); err != nil {
			continue
		}
		if found != "" {
			return ""
		}
		found = engine
	}
	return found
}
