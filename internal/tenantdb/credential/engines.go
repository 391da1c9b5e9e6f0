package credential

import (
	"regexp"
	"slices"
	"strings"
)

// EngineName is the kind of server behind a tenant database.
type EngineName string

// Supabase follows from the kind of the credentials; DB.Engine of such a database is
// PostgreSQL.
const Supabase EngineName = "supabase"

// engines has one line for each engine, in the order in which people read them.
var engines = []*engineFacts{&sqliteFacts, &postgresFacts, &mysqlFacts}

// engineFacts is what is known of an engine without a connection.
type engineFacts struct {
	name     EngineName
	title    string // its name for people
	products string // the names of its servers
	port     int    // if a connection string contains none; 0: it is embedded and has no server

	// An embedded engine has none of these.
	schemes  []string           // of the URLs that are read; the first is written
	srv      string             // driver in a scheme by which the host is a DNS record of servers
	prefixes string             // of URLs, for people
	tls      map[TLSMode]string // parameters of URLs, as the server's own clients read them
	admin    string             // database to which every administrator may connect
	words    *regexp.Regexp     // words that only settings of this engine have
	command  commandFacts
	snippets func(c Credentials, url string) []Snippet
}

// commandFacts says how the command lines of an engine's own clients are read.
type commandFacts struct {
	programs   []string
	positional []string          // settings that the arguments without an option are
	short      map[byte]string   // short options that take a value
	flags      string            // short options without a value, which have no effect here
	long       map[string]string // long options whose names differ from the names of settings
}

// Engines lists the engines of databases, in the order in which people read them, and
// Servers those that have servers.
var (
	Engines = engineNames()
	Servers = slices.DeleteFunc(engineNames(), EngineName.Embedded)
)

func engineNames() (names []EngineName) {
	for _, f := range engines {
		names = append(names, f.name)
	}
	return names
}

// facts returns what is known of an engine. Nothing is known of Supabase, whose databases
// are PostgreSQL's.
func (e EngineName) facts() *engineFacts {
	for _, f := range engines {
		if f.name == e {
			return f
		}
	}
	return &engineFacts{title: string(e), products: string(e)}
}

// Title returns the engine's name for people.
func (e EngineName) Title() string { return e.facts().title }

// Products returns the names of the engine's servers for people, such as "MySQL or MariaDB".
func (e EngineName) Products() string { return e.facts().products }

// Embedded reports whether the engine's databases are files of the platform.
func (e EngineName) Embedded() bool {
	f := e.facts()
	return f.name != "" && f.port == 0
}

// scheme returns the scheme of the URLs that are written.
func (f *engineFacts) scheme() string {
	if f.schemes == nil {
		return ""
	}
	return f.schemes[0]
}

// EngineOfScheme returns the engine that a URL's scheme names, or "". A driver
// may be named after a plus sign, as in "postgresql+asyncpg".
func EngineOfScheme(scheme string) EngineName {
	base, driver, _ := strings.Cut(strings.ToLower(scheme), "+")
	for _, f := range engines {
		if slices.Contains(f.schemes, base) && (driver == "" || driver != f.srv) {
			return f.name
		}
	}
	return ""
}

// engineOfProgram returns the engine that a client connects to, or "".
func engineOfProgram(program string) EngineName {
	for _, f := range engines {
		if slices.Contains(f.command.programs, program) {
			return f.name
		}
	}
	return ""
}

// programPattern matches the names of all engines' clients.
func programPattern() string {
	var names []string
	for _, f := range engines {
		names = append(names, f.command.programs...)
	}
	return `(?:` + strings.Join(names, `|`) + `)`
}

// Rules returns the engine whose rules apply to c's database.
func (c Credentials) Rules() EngineName {
	if c.Kind == KindSupabase {
		return Supabase
	}
	return c.Engine
}
