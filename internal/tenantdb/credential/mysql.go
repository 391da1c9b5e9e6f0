package credential

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
)

// MySQL is the engine of MySQL's databases, and of MariaDB's.
const MySQL EngineName = "mysql"

var mysqlFacts = engineFacts{
	name: MySQL, title: "MySQL", products: "MySQL or MariaDB", port: 3306,
	schemes:  []string{"mysql", "mysql2", "mariadb", "mysqli", "trilogy"},
	srv:      "srv",
	prefixes: "mysql:// or mariadb://",
	tls:      map[TLSMode]string{TLSVerify: "ssl-mode=VERIFY_IDENTITY", TLSVerifyCA: "ssl-mode=VERIFY_CA", TLSDisable: "ssl-mode=DISABLED"},
	admin:    "information_schema",
	words:    regexp.MustCompile(`(?i)\b(?:MYSQL_\w+|MARIADB_\w+|uid|3306|DB_CONNECTION\s*[=:]\s*["']?(?:mysql|mariadb))\b`),
	command: commandFacts{
		programs:   []string{"mysql", "mysqlsh", "mariadb", "mycli"},
		positional: []string{"dbname"},
		short:      map[byte]string{'h': "host", 'P': "port", 'u': "user", 'D': "database", 'p': "password"}, // the value of -p follows it without a space
		flags:      "ACbBEGfqstvw",
		long:       map[string]string{"schema": "database", "uri": "dbname"},
	},
	snippets: mysqlSnippets,
}

// mysqlSnippets name the fields, because the clients disagree about the settings of a URL.
func mysqlSnippets(c Credentials, url string) []Snippet {
	address := net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
	command := fmt.Sprintf("mysql --host=%s --port=%d --user=%s --password", c.Host, c.Port, c.User)
	node := fmt.Sprintf("host: %q, port: %d, user: %q, database: %q,", c.Host, c.Port, c.User, c.Database)
	php, dsn, golang := "", "?parseTime=true", ""
	if c.TLS != TLSDisable {
		ca := "/etc/ssl/certs/ca-certificates.crt"
		switch {
		case c.CACertificate != "":
			ca = caFile
			command += " --ssl-ca=" + caFile
			node += "\n  ssl: { ca: fs.readFileSync(\"" + caFile + "\"), verifyIdentity: " + strconv.FormatBool(c.TLS == TLSVerify) + " },"
			dsn += "&tls=stoa"
			golang = "// first: mysql.RegisterTLSConfig(\"stoa\", &tls.Config{RootCAs: …}) with " + caFile + "\n"
		default:
			node += "\n  ssl: { verifyIdentity: true },"
			dsn += "&tls=true"
		}
		command += " --ssl-mode=" + strings.ReplaceAll(strings.ToUpper(strings.ReplaceAll(string(c.TLS), "-", "_")), "VERIFY_FULL", "VERIFY_IDENTITY")
		php = fmt.Sprintf(", [PDO::MYSQL_ATTR_SSL_CA => \"%s\"]", ca)
	}
	return []Snippet{
		environment(url, c),
		{"mysql, which asks for the password", command + " " + c.Database},
		{"Next.js (mysql2)", "import mysql from \"mysql2/promise\";\n\nexport const db = mysql.createPool({\n  " + node +
			"\n  password: process.env.DATABASE_PASSWORD, connectionLimit: 5,\n});"},
		{"PHP (PDO)", fmt.Sprintf("$db = new PDO(\"mysql:host=%s;port=%d;dbname=%s;charset=utf8mb4\", \"%s\", getenv(\"DATABASE_PASSWORD\")%s);",
			c.Host, c.Port, c.Database, c.User, php)},
		{"Go (go-sql-driver/mysql)", golang + fmt.Sprintf("db, err := sql.Open(\"mysql\", %q+os.Getenv(\"DATABASE_PASSWORD\")+%q)",
			c.User+":", "@tcp("+address+")/"+c.Database+dsn)},
	}
}
