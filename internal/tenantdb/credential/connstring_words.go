package credential

import (
	"strings"
	"unicode"
)

// readKeywords parses libpq's form, "host=db.example.com user=anna …", with
// spaces or line ends between the settings, and the lists of settings that
// providers show.
// Source: PostgreSQL manual, "Keyword/Value Connection Strings".
func (r *pasteReader) readKeywords(text string) {
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		if rest, ok := strings.CutPrefix(text, "export "); ok {
			text = rest
			continue
		}
		name, rest, ok := strings.Cut(text, "=")
		name = strings.TrimSpace(name)
		if !ok || strings.ContainsFunc(name, unicode.IsSpace) || name == "" {
			r.fault("has a word that is no setting; put a password with spaces in quotes: password='…'")
			return
		}
		value, rest, ok := keywordValue(strings.TrimLeft(rest, " \t"))
		if !ok {
			r.fault("has a quote that is not closed")
			return
		}
		if field := fieldNames[normalName(name)]; rest == "" && field != passwordName {
			value = strings.TrimRight(value, ";,")
		}
		r.set(name, value)
		text = rest
	}
}

// keywordValue reads a value in quotes or up to the next space. A backslash
// escapes the next character.
func keywordValue(text string) (value, rest string, ok bool) {
	quote := byte(0)
	if text != "" && (text[0] == '\'' || text[0] == '"') {
		quote, text = text[0], text[1:]
	}
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		switch b := text[i]; {
		case b == '\\' && i+1 < len(text):
			i++
			out.WriteByte(text[i])
		case quote == 0 && (b == ' ' || b == '\t' || b == '\n' || b == '\r'):
			return out.String(), text[i:], true
		case b == quote && quote != 0:
			return out.String(), text[i+1:], true
		default:
			out.WriteByte(b)
		}
	}
	return out.String(), "", quote == 0
}

// isADO reports whether text has at least two settings that are separated by
// semicolons.
func isADO(text string) bool {
	first, rest, ok := strings.Cut(text, ";")
	return ok && strings.Contains(first, "=") && (strings.Contains(rest, "=") || strings.Count(first, "=") == 1)
}

// readADO parses "Server=db.example.com;Port=5432;User Id=anna;…", the form of
// .NET and ODBC.
func (r *pasteReader) readADO(text string) {
	for text != "" {
		name, rest, ok := strings.Cut(text, "=")
		if trimmed := strings.Trim(text, "; \t\r\n"); !ok {
			if trimmed != "" {
				r.fault("has a word that is no setting; put a password with a semicolon in quotes: Password=\"…\"")
			}
			return
		}
		if strings.Contains(strings.Trim(name, "; \t\r\n"), ";") {
			r.fault("has a word that is no setting; put a password with a semicolon in quotes: Password=\"…\"")
			return
		}
		var value string
		value, text, ok = adoValue(strings.TrimLeft(rest, " \t"))
		if !ok {
			r.fault("has a quote that is not closed")
			return
		}
		r.set(strings.Trim(name, "; \t\r\n"), value)
	}
}

// adoValue reads a value up to the next semicolon. A value in quotes or, for
// ODBC, in braces may contain semicolons; a quote in it is doubled.
func adoValue(text string) (value, rest string, ok bool) {
	if value, rest, _ = strings.Cut(text, ";"); isPlaceholder(strings.TrimSpace(value)) {
		return strings.TrimSpace(value), rest, true
	}
	end := map[byte]byte{'"': '"', '\'': '\'', '{': '}'}[firstByte(text)]
	if end == 0 {
		value, rest, _ = strings.Cut(text, ";")
		return strings.TrimSpace(value), rest, true
	}
	var out strings.Builder
	for i := 1; i < len(text); i++ {
		if text[i] != end {
			out.WriteByte(text[i])
			continue
		}
		if i+1 < len(text) && text[i+1] == end {
			out.WriteByte(end)
			i++
			continue
		}
		after := strings.TrimLeft(text[i+1:], " \t\r\n")
		if after != "" && after[0] != ';' {
			return "", "", false
		}
		return out.String(), after, true
	}
	return "", "", false
}

func firstByte(s string) byte {
	if s == "" {
		return 0
	}
	return s[0]
}
