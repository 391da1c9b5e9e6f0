package credential

import (
	"regexp"
	"strings"
	"unicode"
)

var (
	schemePattern  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://`)
	commandPattern = regexp.MustCompile(`^(?:(?:export\s+)?[A-Z][A-Z0-9_]*=(?:'[^']*'|"[^"]*"|[^\s'"])*\s*(?:;|&&)?\s+)*(?:\S*/)?(` + programPattern() + `)(?:\.exe)?\s`)
	goDSNPattern   = regexp.MustCompile(`^[^\s=]*@tcp\([^()]*\)/`)

	// assignment matches a variable or a label before a connection string:
	// DATABASE_URL=, export DATABASE_URL=, "url":, spring.datasource.url=.
	assignment = regexp.MustCompile(`^(?i:export\s+|set\s+|env\s+|const\s+|let\s+|var\s+|\$env:)?(?:"[A-Za-z_][\w. -]{0,60}"|'[A-Za-z_][\w. -]{0,60}'|[A-Za-z_][\w. -]{0,60})\s*(?::=|[=:])\s*`)
	// beginning matches the beginning of a connection string, with or without
	// quotes.
	beginning = regexp.MustCompile("^[\\s\"'`“”‘’<]*(?:(?i:jdbc:)|[A-Za-z][A-Za-z0-9+.-]*://|" + programPattern() + "\\s|[^\\s=:]+:\\S*@tcp\\(|(?i:host|user|server|data source|dbname|driver)\\s*=)")
)

// maxWrappers limits how deeply a connection string may be wrapped, and so the
// time that one string takes.
const maxWrappers = 12

// closing maps opening quotes to their closing quotes.
var closing = map[string]string{`"`: `"`, `'`: `'`, "`": "`", "“": "”", "”": "”", "‘": "’", "’": "’", "«": "»", "„": "“", "<": ">"}

// unwrap removes what surrounds a connection string in files, chats and
// documents. several is true if more than one string would remain.
func unwrap(text string) (_ string, several bool) {
	text = strings.Map(plainSpace, text)
	text = strings.NewReplacer("\\\r\n", " ", "\\\n", " ").Replace(text)
	if text, several = contentLines(text); several {
		return "", true
	}
	for range maxWrappers {
		text = strings.TrimSpace(text)
		text = strings.TrimPrefix(text, "$ ")
		if beginning.MatchString(text) || strings.ContainsAny(text[:min(1, len(text))], "\"'`") {
			text = trimEnd(text)
		}
		if prefix := assignment.FindString(text); prefix != "" && beginning.MatchString(text[len(prefix):]) {
			text = text[len(prefix):]
			continue
		}
		text = unquote(text)
	}
	return text, false
}

// plainSpace drops invisible characters and replaces every space with a plain
// one.
func plainSpace(r rune) rune {
	switch {
	case r == '\ufeff', r >= '\u200b' && r <= '\u200f', r == '\u2060':
		return -1
	case r != ' ' && unicode.Is(unicode.Zs, r):
		return ' '
	}
	return r
}

// engineLine matches the line of a configuration file that names the engine.
var engineLine = regexp.MustCompile(`^(?:export\s+)?(?:DB_CONNECTION|DB_DRIVER|DB_TYPE|DB_ENGINE|DB_CLIENT|DATABASE_CLIENT)\s*=`)

// contentLines drops comments, blank lines, the marks of a code block and the line that
// names the engine. Several lines remain if they are the settings of one connection.
func contentLines(text string) (_ string, several bool) {
	var lines []string
	urls := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "//") || strings.HasPrefix(line, "```") || strings.HasPrefix(line, "-- ") || engineLine.MatchString(line) {
			continue
		}
		lines = append(lines, line)
		if strings.Contains(line, "://") {
			urls++
		}
	}
	return strings.Join(lines, "\n"), len(lines) > 1 && urls > 0
}

// trimEnd drops the characters that end a statement or a line. In a keyword
// string they may be part of the password, so it keeps them.
func trimEnd(text string) string {
	if schemePattern.MatchString(text) || closing[text[:1]] != "" || strings.HasPrefix(strings.ToLower(text), "jdbc:") {
		text = strings.TrimRight(text, ";, ")
		text = strings.TrimSuffix(strings.TrimSuffix(text, `\n`), `\r`)
		text = strings.TrimRight(text, ";, ")
	}
	return text
}

// unquote removes one pair of quotes around the whole text.
func unquote(text string) string {
	for open, end := range closing {
		inner, ok := strings.CutPrefix(text, open)
		if !ok {
			continue
		}
		if inner, ok = strings.CutSuffix(inner, end); ok && (!strings.Contains(inner, end) || beginning.MatchString(inner)) {
			return inner
		}
	}
	return text
}
