package credential

import (
	"path"
	"strings"
)

// readCommand parses the command line of psql or mysql, with environment
// variables before it. The command line takes precedence.
func (r *pasteReader) readCommand(text string) {
	words, ok := shellWords(text)
	if !ok {
		r.fault("has a quote that is not closed")
		return
	}
	var environment []string
	for len(words) > 0 && (words[0] == "export" || words[0] == ";" || words[0] == "&&" || isVariable(words[0])) {
		if isVariable(words[0]) {
			environment = append(environment, words[0])
		}
		words = words[1:]
	}
	if len(words) == 0 {
		r.notRecognised()
		return
	}
	program := strings.TrimSuffix(path.Base(words[0]), ".exe")
	engine := engineOfProgram(program)
	if engine == "" {
		r.notRecognised()
		return
	}
	if !r.checkScheme(engine.facts().scheme()) {
		return
	}
	r.readOptions(engine, words[1:])
	for _, variable := range environment {
		name, value, _ := strings.Cut(variable, "=")
		if field := r.field(fieldNames[normalName(name)]); field == nil || *field == "" {
			r.set(name, value)
		}
	}
}

func isVariable(word string) bool {
	name, _, ok := strings.Cut(word, "=")
	return ok && name != "" && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}

// withoutValue lists the long options that take no value and have no effect
// here.
var withoutValue = map[string]bool{
	"no-password": true, "no-psqlrc": true, "quiet": true, "sql": true, "js": true, "py": true, "mysql": true, "classic": true, "mc": true,
	"get-server-public-key": true, "no-auto-rehash": true, "compress": true, "skip-column-names": true, "batch": true, "silent": true, "ssl": true,
}

func (r *pasteReader) readOptions(engine EngineName, words []string) {
	var positional []string
	for i := 0; i < len(words); i++ {
		word := strings.Replace(strings.Replace(words[i], "\u2014", "--", 1), "\u2013", "-", 1) // dashes that a word processor inserted
		if len(words[i]) > 0 && words[i][0] == word[0] {
			word = words[i]
		}
		next := ""
		if i+1 < len(words) {
			next = words[i+1]
		}
		var used bool
		switch {
		case word == ";" || word == "&&":
			r.fault("holds several commands; give the one that connects")
			return
		case strings.HasPrefix(word, "--") && len(word) > 2:
			used = r.readLong(engine, word[2:], next)
		case strings.HasPrefix(word, "-") && len(word) > 1:
			used = r.readShort(engine, word[1], word[2:], next)
		default:
			positional = append(positional, word)
		}
		if used {
			i++
		}
	}
	r.readPositional(engine, positional)
}

// readLong parses --name=value, or --name followed by next. It reports whether
// it used next.
func (r *pasteReader) readLong(engine EngineName, option, next string) (used bool) {
	name, value, has := strings.Cut(option, "=")
	if withoutValue[name] && !has {
		return false
	}
	if name == "password" && !has {
		return false // the client prompts for it
	}
	if !has {
		value, used = next, true
	}
	if other := engine.facts().command.long[name]; other != "" {
		name = other
	}
	r.readOption(name, value)
	return used
}

func (r *pasteReader) readShort(engine EngineName, letter byte, attached, next string) (used bool) {
	command := engine.facts().command
	name := command.short[letter]
	switch {
	case name == "" && strings.Trim(string(letter)+attached, command.flags) == "":
		return false
	case name == "" && letter == 'S' && engine == MySQL:
		r.set("socket", "")
	case name == "":
		r.fault("has an option that is not read here; give host, port, user, password and database only")
	case attached != "":
		r.readOption(name, strings.TrimPrefix(attached, "="))
	case name == passwordName:
		return false // the client prompts for it
	default:
		r.readOption(name, next)
		return true
	}
	return false
}

// readOption processes a setting. psql accepts a whole connection string as
// dbname.
func (r *pasteReader) readOption(name, value string) {
	if name == "dbname" && isConnectionString(value) {
		r.readForm(value)
		return
	}
	r.set(name, value)
}

func isConnectionString(s string) bool {
	return schemePattern.MatchString(s) || strings.Contains(s, "=") && !commandPattern.MatchString(s)
}

// readPositional processes the arguments that are not options. psql's are a
// database and a user, mysql's is a database, and mysqlsh's may be user@host.
func (r *pasteReader) readPositional(engine EngineName, words []string) {
	names := engine.facts().command.positional
	for i, word := range words {
		switch {
		case i >= len(names):
			r.fault("has more words than the command takes; put a password with special characters in quotes")
			return
		case i == 0 && engine == MySQL && strings.Contains(word, "@") && !schemePattern.MatchString(word):
			r.readURL("mysql", word)
		default:
			r.readOption(names[i], word)
		}
	}
}

// shellWords splits a command line as a shell does. It performs no expansion.
func shellWords(text string) (words []string, ok bool) {
	var word strings.Builder
	inWord, quote := false, rune(0)
	end := func() {
		if inWord {
			words = append(words, word.String())
		}
		word.Reset()
		inWord = false
	}
	runes := []rune(text)
	for i := 0; i < len(runes); i++ {
		switch c := runes[i]; {
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\' && quote != '\'' && i+1 < len(runes) && (quote == 0 || strings.ContainsRune("\"\\$`", runes[i+1])):
			i++
			word.WriteRune(runes[i])
			inWord = true
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case c == '“' || c == '‘' || c == '”' || c == '’':
			quote, inWord = map[rune]rune{'“': '”', '‘': '’', '”': '”', '’': '’'}[c], true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			end()
		case c == ';' || c == '&' && i+1 < len(runes) && runes[i+1] == '&':
			end()
			words = append(words, map[rune]string{';': ";", '&': "&&"}[c])
			if c == '&' {
				i++
			}
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	end()
	if n := len(words); n > 0 && words[n-1] == ";" {
		words = words[:n-1]
	}
	return words, quote == 0
}
