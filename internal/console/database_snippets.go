package console

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// snippet shows how one kind of software connects.
type snippet struct{ Title, Code string }

// caFile is the file name under which the page asks to save the server's certificate.
const caFile = "ca.pem"

// snippets has one line for each engine with a server.
var snippets = map[credential.EngineName]func(credential.Credentials) []snippet{
	credential.PostgreSQL: postgresSnippets, credential.MySQL: mysqlSnippets,
}

// postgresSnippets are for libpq (psql, PHP), pg (Node.js) and pgx. libpq needs the name of
// a file with authorities, or "system" for those of the operating system, which the other
// two use without being told.
func postgresSnippets(d credential.Credentials) []snippet {
	url, roots := d.ConnectionString().Reveal(), ""
	if d.TLS != credential.TLSDisable {
		roots = "system"
	}
	if d.CACertificate != "" {
		roots = caFile
		url += "&sslrootcert=" + caFile
	}
	words := fmt.Sprintf("host=%s port=%d dbname=%s user=%s sslmode=%s", d.Host, d.Port, d.Database, d.User, d.TLS)
	if roots != "" {
		words += " sslrootcert=" + roots
	}
	pdo := fmt.Sprintf("host=%s;port=%d;dbname=%s;sslmode=%s", d.Host, d.Port, d.Database, d.TLS)
	if roots != "" {
		pdo += ";sslrootcert=" + roots
	}
	return []snippet{
		{"Environment file (.env)", environment(url, d)},
		{"psql, which asks for the password", `psql "` + words + `"`},
		{"Next.js (pg)", "import { Pool } from \"pg\";\n\nexport const db = new Pool({ connectionString: process.env.DATABASE_URL, max: 5 });"},
		{"PHP (PDO)", fmt.Sprintf("$db = new PDO(\"pgsql:%s\", \"%s\", getenv(\"DATABASE_PASSWORD\"));", pdo, d.User)},
		{"Go (pgx)", "db, err := sql.Open(\"pgx\", os.Getenv(\"DATABASE_URL\")) // import _ \"github.com/jackc/pgx/v5/stdlib\""},
	}
}

// mysqlSnippets name the fields, because the clients disagree about the settings of a URL.
func mysqlSnippets(d credential.Credentials) []snippet {
	address := net.JoinHostPort(d.Host, strconv.Itoa(d.Port))
	command := fmt.Sprintf("mysql --host=%s --port=%d --user=%s --password", d.Host, d.Port, d.User)
	node := fmt.Sprintf("host: %q, port: %d, user: %q, database: %q,", d.Host, d.Port, d.User, d.Database)
	php, dsn, golang := "", "?parseTime=true", ""
	if d.TLS != credential.TLSDisable {
		ca := "/etc/ssl/certs/ca-certificates.crt"
		switch {
		case d.CACertificate != "":
			ca = caFile
			command += " --ssl-ca=" + caFile
			node += "\n  ssl: { ca: fs.readFileSync(\"" + caFile + "\"), verifyIdentity: " + strconv.FormatBool(d.TLS == credential.TLSVerify) + " },"
			dsn += "&tls=stoa"
			golang = "// first: mysql.RegisterTLSConfig(\"stoa\", &tls.Config{RootCAs: …}) with " + caFile + "\n"
		default:
			node += "\n  ssl: { verifyIdentity: true },"
			dsn += "&tls=true"
		}
		command += " --ssl-mode=" + strings.ReplaceAll(strings.ToUpper(strings.ReplaceAll(string(d.TLS), "-", "_")), "VERIFY_FULL", "VERIFY_IDENTITY")
		php = fmt.Sprintf(", [PDO::MYSQL_ATTR_SSL_CA => \"%s\"]", ca)
	}
	return []snippet{
		{"Environment file (.env)", environment(d.ConnectionString().Reveal(), d)},
		{"mysql, which asks for the password", command + " " + d.Database},
		{"Next.js (mysql2)", "import mysql from \"mysql2/promise\";\n\nexport const db = mysql.createPool({\n  " + node +
			"\n  password: process.env.DATABASE_PASSWORD, connectionLimit: 5,\n});"},
		{"PHP (PDO)", fmt.Sprintf("$db = new PDO(\"mysql:host=%s;port=%d;dbname=%s;charset=utf8mb4\", \"%s\", getenv(\"DATABASE_PASSWORD\")%s);",
			d.Host, d.Port, d.Database, d.User, php)},
		{"Go (go-sql-driver/mysql)", golang + fmt.Sprintf("db, err := sql.Open(\"mysql\", %q+os.Getenv(\"DATABASE_PASSWORD\")+%q)",
			d.User+":", "@tcp("+address+")/"+d.Database+dsn)},
	}
}

func environment(url string, d credential.Credentials) string {
	return "DATABASE_URL=\"" + url + "\"\nDATABASE_PASSWORD=\"" + d.Password.Reveal() + "\""
}
