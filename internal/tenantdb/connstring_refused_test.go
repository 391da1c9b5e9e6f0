package tenantdb_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

func TestConnectionStringRefused(t *testing.T) {
	t.Parallel()
	const encoded, notAllowed, once = "percent-encoded", "is not allowed", "must be given once"
	base := "postgres://anna:" + marker + "@db.example.com/shop"
	tests := []struct{ name, raw, message string }{
		{"empty", "", "must begin with"},
		{"wrong scheme", "mysql://anna:" + marker + "@db.example.com/shop", `choose the type "mysql"`},
		{"mysql's command line", "mysql -h db.example.com -u anna -p" + marker + " shop", `choose the type "mysql"`},
		{"JDBC of MySQL", "jdbc:mysql://db.example.com/shop?user=anna&password=" + marker, `choose the type "mysql"`},
		{"ODBC of MySQL", "Driver={MySQL ODBC 8.0 Driver};Server=db.example.com;Uid=anna;Pwd=" + marker + ";Database=shop", `choose the type "mysql"`},
		{"driver's DSN", "anna:" + marker + "@tcp(db.example.com)/shop", `choose the type "mysql"`},
		{"address of an API", "https://anna:" + marker + "@db.example.com/shop", "web page or an API"},
		{"another database", "mongodb://anna:" + marker + "@db.example.com/shop", "must begin with"},
		{"Prisma's own service", "prisma+postgres://accelerate.prisma-data.net/?api_key=" + marker, "must begin with"},
		{"only a password", marker, "must begin with"},
		{"opaque", "postgres:anna:" + marker + "@db.example.com/shop", "must begin with"},
		{"no user", "postgres://db.example.com/shop", "user is required"},
		{"no password", "postgres://anna@db.example.com/shop", "password is required"},
		{"no password at the command line", "psql -h db.example.com -U anna -W shop", "password is required"},
		{"empty user", "postgres://:" + marker + "@db.example.com/shop", "user is required"},
		{"empty host", "postgres://anna:" + marker + "@/shop", "host is required"},
		{"empty host with port", "postgres://anna:" + marker + "@:5432/shop", "host is required"},
		{"two hosts", "postgres://anna:" + marker + "@a.example.com,b.example.com/shop", "several hosts: host must be one"},
		{"two hosts with ports", "postgres://anna:" + marker + "@a.example.com:1,b.example.com:2/shop", "host must be one"},
		{"two hosts as keyword", "host=a.example.com,b.example.com user=anna dbname=shop password=" + marker, "host must be one"},
		{"load balancing", "jdbc:mysql:loadbalance://a.example.com,b.example.com/shop?user=anna&password=" + marker, "host must be one"},
		{"unix socket", "postgres://anna:" + marker + "@%2Fvar%2Frun%2Fpostgresql/shop", "unix socket"},
		{"unix socket as parameter", "postgres://anna:" + marker + "@/shop?host=/var/run/postgresql", "unix socket"},
		{"Cloud SQL's socket", "host=/cloudsql/project:region:shop user=anna dbname=shop password=" + marker, "unix socket"},
		{"unix socket of MySQL", "postgres://anna:" + marker + "@unix(/tmp/mysql.sock)/shop", encoded},
		{"service", "service=shop password=" + marker, notAllowed},
		{"zone", "postgres://anna:" + marker + "@[fe80::1%25eth0]/shop", "host must be one"},
		{"IPv6 without brackets", "postgres://anna:" + marker + "@2001:db8::1/shop", "brackets"},
		{"no database", "postgres://anna:" + marker + "@db.example.com", "database is required"},
		{"empty database", "postgres://anna:" + marker + "@db.example.com/", "database is required"},
		{"two path segments", base + "/more", encoded},
		{"port 0", "postgres://anna:" + marker + "@db.example.com:0/shop", "port that is not between"},
		{"port 99999", "postgres://anna:" + marker + "@db.example.com:99999/shop", "port that is not between"},
		{"enormous port", "postgres://anna:" + marker + "@db.example.com:99999999999999999999/shop", "port that is not between"},
		{"port in letters", "postgres://anna:" + marker + "@db.example.com:five/shop", "port that is not between"},
		{"NUL in the database", base + "%00", "database is not usable"},
		{"NUL in the password", "postgres://anna:" + marker + "%00@db.example.com/shop", "password is not usable"},
		{"not UTF-8", "postgres://anna:" + marker + "\xff@db.example.com/shop", "UTF-8"},
		{"not UTF-8 when decoded", "postgres://anna:" + marker + "%ff@db.example.com/shop", "password is not usable"},
		{"fragment", base + "#top", encoded},
		{"semicolon", base + "?sslmode=disable;options=x", once},
		{"two TLS modes", base + "?sslmode=disable&sslmode=verify-full", once},
		{"two names for sslmode", base + "?sslmode=disable&tls=true", once},
		{"sslmode empty", base + "?sslmode=", once},
		{"tls skip-verify", base + "?tls=skip-verify", "is not verified"},
		{"tls preferred", base + "?tls=preferred", "is not verified"},
		{"sslmode no-verify", base + "?sslmode=no-verify", "is not verified"},
		{"rejectUnauthorized false", base + `?ssl={"rejectUnauthorized":false}`, "is not verified"},
		{"certificate in the string", base + `?ssl={"ca":"x"}`, "tls.caCertificate"},
		{"accept_invalid_certs", base + "?sslaccept=accept_invalid_certs", "is not verified"},
		{"verifyServerCertificate", base + "?useSSL=true&verifyServerCertificate=false", "is not verified"},
		{"read-only target", base + "?target_session_attrs=read-only", "accepts writes"},
		{"other options", base + "?options=-c%20search_path%3Dx", notAllowed},
		{"endpoint and more", base + "?options=endpoint%3Dep-x%20-c%20search_path%3Dx", notAllowed},
		{"project option", base + "?options=project%3Dx", notAllowed},
		{"two schemas", base + "?schema=a,b", "one schema"},
		{"two different schemas", base + "?schema=a&search_path=b", "another schema"},
		{"schema with a quote", base + "?schema=a%22b", "schema must be"},
		{"schema of the server", base + "?schema=pg_catalog", "schema must be"},
		{"long schema", base + "?schema=" + strings.Repeat("s", 64), "schema must be"},
		{"two users", base + "?user=other", "beside the user"},
		{"two hosts in two places", base + "?host=other.example.com", "beside the host"},
		{"two passwords", base + "?password=other", "beside the password"},
		{"two strings", base + "\n" + base, "one connection string alone"},
		{".env of two", "DATABASE_URL=" + base + "\nDIRECT_URL=" + base, "one connection string alone"},
		{"too long", base + "?application_name=" + strings.Repeat("x", 8<<10), "longer than"},
		{"local files", "mysql --local-infile=1 -h db.example.com -u anna -p" + marker + " shop", `choose the type "mysql"`},
		{"two commands", "psql '" + base + "' && rm -rf x", "several commands"},
		{"a script", "psql '" + base + "' -f x.sql", "is not read here"},
		{"unclosed quote", "psql '" + base, "quote that is not closed"},
	}
	for _, key := range []string{
		"service", "servicefile", "passfile", "sslrootcert", "sslcert", "sslkey", "sslpassword", "hostaddr", "krbsrvname", "krbspn", "options", "target_session_attrs",
		"allowAllFiles", "allowLoadLocalInfile", "allowUrlInLocalInfile", "allowCleartextPasswords", "allowOldPasswords", "allowFallbackToPlaintext", "allowNativePasswords", "allowMultiQueries",
		"multiStatements", "interpolateParams", "serverPubKey", "maxAllowedPacket", "net", "socketFactory", "sslfactory", "sessionVariables", "init_command", "connectionInitSql",
		"sql_mode", "no_such_thing", "unix_socket", "queryInterceptors", "autoDeserialize", "loadBalanceHosts",
	} {
		tests = append(tests, struct{ name, raw, message string }{key, base + "?sslmode=disable&" + key + "=x", fmt.Sprintf("parameter %q %s", key, notAllowed)})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := parse(credential.PostgreSQL, tt.raw, "")
			refused(t, tt.raw, got, err, tt.message)
		})
	}
	for raw, message := range map[string]string{
		base: `choose the type "postgresql"`, "mysql+srv://anna:" + marker + "@db.example.com/shop": "must begin with", "mysqlx://anna:" + marker + "@db.example.com/shop": "must begin with",
		"mysql --local-infile=1 -h db.example.com -u anna -p" + marker + " shop": `"local-infile" is not allowed`, "mysql -S /tmp/mysql.sock -u anna -p" + marker + " shop": "unix socket",
		"mysql --enable-cleartext-plugin=1 -h db.example.com -u anna -p" + marker + " shop": `"enable-cleartext-plugin" is not allowed`, "mysql -h db.example.com -u anna -p shop": "password is required",
		"mysql --ssl-ca=/certs/ca.pem -h db.example.com -u anna -p" + marker + " shop": "tls.caCertificate", "mysql --defaults-file=/etc/my.cnf shop": "is not allowed",
		"mysql://anna:" + marker + "@db.example.com/shop?schema=x": "a schema is PostgreSQL's", "mysql://anna:" + marker + "@db.example.com/shop?allowAllFiles=true": "is not allowed",
	} {
		got, err := parse(credential.MySQL, raw, "")
		refused(t, raw, got, err, message)
	}
	got, err := parse(credential.SQLite, base, "")
	if err == nil || !strings.Contains(err.Error(), "takes no connection string") {
		t.Errorf("got %+v, %v", got, err)
	}
}
