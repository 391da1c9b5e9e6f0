package credential

import (
	"fmt"
	"regexp"
)

// PostgreSQL is the engine of PostgreSQL's databases, and of Supabase's.
const PostgreSQL EngineName = "postgresql"

var postgresFacts = engineFacts{
	name: PostgreSQL, title: "PostgreSQL", products: "PostgreSQL", port: 5432,
	schemes:  []string{"postgresql", "postgres", "pgsql", "pg", "postgis"},
	prefixes: "postgresql:// or postgres://",
	tls:      map[TLSMode]string{TLSVerify: "sslmode=verify-full", TLSVerifyCA: "sslmode=verify-ca", TLSDisable: "sslmode=disable"},
	admin:    "postgres",
	words: regexp.MustCompile(
		`(?i)\b(?:PG(?:HOST|USER|PASSWORD|DATABASE|PORT)|POSTGRES(?:QL)?_\w+|sslmode|dbname|5432|6432|6543|DB_CONNECTION\s*[=:]\s*["']?(?:pgsql|postgres\w*))\b`),
	command: commandFacts{
		programs:   []string{"psql", "pgcli"},
		positional: []string{"dbname", "user"},
		short:      map[byte]string{'h': "host", 'p': "port", 'U': "user", 'd': "dbname"},
		flags:      "WwXqAtn1aeEbx",
		long:       map[string]string{"username": "user"},
	},
	snippets: postgresSnippets,
}

// postgresSnippets are for libpq (psql, PHP), pg (Node.js) and pgx. libpq needs the name of
// a file with authorities, or "system" for those of the operating system, which the other
// two use without being told.
func postgresSnippets(c Credentials, url string) []Snippet {
	roots := ""
	if c.TLS != TLSDisable {
		roots = "system"
	}
	if c.CACertificate != "" {
		roots = caFile
		url += "&sslrootcert=" + caFile
	}
	words := fmt.Sprintf("host=%s port=%d dbname=%s user=%s sslmode=%s", c.Host, c.Port, c.Database, c.User, c.TLS)
	if roots != "" {
		words += " sslrootcert=" + roots
	}
	pdo := fmt.Sprintf("host=%s;port=%d;dbname=%s;sslmode=%s", c.Host, c.Port, c.Database, c.TLS)
	if roots != "" {
		pdo += ";sslrootcert=" + roots
	}
	return []Snippet{
		environment(url, c),
		{"psql, which asks for the password", `psql "` + words + `"`},
		{"Next.js (pg)", "import { Pool } from \"pg\";\n\nexport const db = new Pool({ connectionString: process.env.DATABASE_URL, max: 5 });"},
		{"PHP (PDO)", fmt.Sprintf("$db = new PDO(\"pgsql:%s\", \"%s\", getenv(\"DATABASE_PASSWORD\"));", pdo, c.User)},
		{"Go (pgx)", "db, err := sql.Open(\"pgx\", os.Getenv(\"DATABASE_URL\")) // import _ \"github.com/jackc/pgx/v5/stdlib\""},
	}
}
