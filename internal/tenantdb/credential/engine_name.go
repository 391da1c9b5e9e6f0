package credential

// EngineName is the kind of server behind a tenant database.
type EngineName string

// These constants are the engines. MariaDB is MySQL. Supabase follows from the
// kind of the credentials; DB.Engine of such a database is PostgreSQL.
const (
	SQLite     EngineName = "sqlite"
	PostgreSQL EngineName = "postgresql"
	MySQL      EngineName = "mysql"
	Supabase   EngineName = "supabase"
)

// Engines lists the engines of databases, in the order in which people read them.
var Engines = []EngineName{SQLite, PostgreSQL, MySQL}

// engineFacts is what is known of an engine without a connection.
type engineFacts struct {
	title    string             // its name
	products string             // the names of its servers
	port     int                // if a connection string contains none; 0: it is embedded and has no server
	scheme   string             // of a URL
	prefixes string             // of URLs, for people
	tls      map[TLSMode]string // parameters of URLs, as the server's own clients read them
}

// factsOf has one line for each of Engines.
var factsOf = map[EngineName]engineFacts{
	SQLite: {title: "SQLite", products: "SQLite"},
	PostgreSQL: {
		title: "PostgreSQL", products: "PostgreSQL", port: 5432, scheme: "postgresql", prefixes: "postgresql:// or postgres://",
		tls: map[TLSMode]string{TLSVerify: "sslmode=verify-full", TLSVerifyCA: "sslmode=verify-ca", TLSDisable: "sslmode=disable"},
	},
	MySQL: {
		title: "MySQL", products: "MySQL or MariaDB", port: 3306, scheme: "mysql", prefixes: "mysql:// or mariadb://",
		tls: map[TLSMode]string{TLSVerify: "ssl-mode=VERIFY_IDENTITY", TLSVerifyCA: "ssl-mode=VERIFY_CA", TLSDisable: "ssl-mode=DISABLED"},
	},
}

// Title returns the engine's name for people.
func (e EngineName) Title() string {
	if f, ok := factsOf[e]; ok {
		return f.title
	}
	return string(e)
}

// Products returns the names of the engine's servers for people, such as "MySQL or MariaDB".
func (e EngineName) Products() string {
	if f, ok := factsOf[e]; ok {
		return f.products
	}
	return string(e)
}

// Embedded reports whether the engine's databases are files of the platform.
func (e EngineName) Embedded() bool {
	f, ok := factsOf[e]
	return ok && f.port == 0
}

// Rules returns the engine whose rules apply to c's database.
func (c Credentials) Rules() EngineName {
	if c.Kind == KindSupabase {
		return Supabase
	}
	return c.Engine
}
