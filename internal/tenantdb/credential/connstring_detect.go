package credential

import (
	"strings"
	"unicode/utf8"

	"github.com/stoahq/stoa/internal/keyring"
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
	if command := commandPattern.FindStringSubmatch(text); command != nil {
		return engineOfProgram(command[1])
	}
	if goDSNPattern.MatchString(text) {
		return MySQL
	}
	return onlyOne(func(engine EngineName) bool { return engine.facts().words.MatchString(whole) })
}

// onlyReader returns the only engine whose rules accept the text, or "".
func onlyReader(raw keyring.Secret) EngineName {
	return onlyOne(func(engine EngineName) bool {
		_, err := ParseConnectionString(engine, raw)
		return err == nil
	})
}

// onlyOne returns the only engine with servers that accepts something, or "".
func onlyOne(accepts func(EngineName) bool) (found EngineName) {
	for _, engine := range Servers {
		if !accepts(engine) {
			continue
		}
		if found != "" {
			return ""
		}
		found = engine
	}
	return found
}
