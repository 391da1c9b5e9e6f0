package tenantdb_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// parse parses a string as the API does, with the certificates ca.
func parse(engine credential.EngineName, raw, ca string) (credential.Pasted, error) {
	return tenantdb.NewManager(nil, nil, tenantdb.Options{}).Parse(engine, keyring.NewSecret(raw), ca)
}

// pasted returns the pattern with U, P, D and H replaced by values for a test.
func pasted(pattern string) string {
	replace := map[byte]string{'U': "anna", 'P': marker, 'D': "shop", 'H': "db.example.com"}
	var out strings.Builder
	for i := range len(pattern) {
		letter := func(at int) bool {
			return at >= 0 && at < len(pattern) && (pattern[at] >= 'A' && pattern[at] <= 'Z' || pattern[at] >= 'a' && pattern[at] <= 'z' || pattern[at] == '_')
		}
		value, known := replace[pattern[i]]
		attached := i > 1 && pattern[i-2:i] == "-p" // mysql's -pPASSWORD
		switch {
		case known && (!letter(i-1) || attached) && !letter(i+1) && (i == 0 || pattern[i-1] != '-'):
			out.WriteString(value)
		case pattern[i] == 'H' && i+1 < len(pattern) && (pattern[i+1] == '1' || pattern[i+1] == '2'):
			out.WriteString("h")
		default:
			out.WriteByte(pattern[i])
		}
	}
	return out.String()
}

// want is the expected result for a string. Empty fields have the value of
// base.
type want struct {
	host, user, password, database, schema, endpoint string
	port                                             int
	tls                                              credential.TLSMode
	pooler                                           credential.Pooler
	ignored                                          string // separated by spaces
}

func (w want) Check(t *testing.T, engine credential.EngineName, raw string) {
	t.Helper()
	got, err := parse(engine, raw, "")
	if err != nil {
		t.Errorf("%s: %v", raw, err)
		return
	}
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&w.host, "db.example.com")
	set(&w.user, "anna")
	set(&w.password, marker)
	set(&w.database, "shop")
	set((*string)(&w.tls), string(credential.TLSVerify))
	if w.port == 0 {
		w.port = map[credential.EngineName]int{credential.MySQL: 3306}[engine]
	}
	if w.port == 0 {
		w.port = 5432
	}
	c := credential.Credentials{
		Kind: credential.Kind(engine), Engine: engine, Host: w.host, Port: w.port, Database: w.database, User: w.user,
		Password: keyring.NewSecret(w.password), TLS: w.tls, Schema: w.schema, Endpoint: w.endpoint, Pooler: w.pooler,
	}
	if c.Engine == credential.Supabase || got.Credentials.Kind == credential.KindSupabase {
		c.Kind, c.Engine = credential.KindSupabase, credential.PostgreSQL
	}
	if diff := cmp.Diff(c, got.Credentials, sameSecret); diff != "" {
		t.Errorf("%s: %s", raw, diff)
	}
	if ignored := strings.Join(got.Ignored, " "); ignored != w.ignored {
		t.Errorf("%s: ignores %q, want %q", raw, ignored, w.ignored)
	}
}

// TestPastedCases parses every form in the list of cases and compares the
// result with the documented one.
func TestPastedCases(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/connection-strings.tsv")
	testkit.Must(t, err)
	outcomes := map[string]struct {
		refusal string // part of the message; empty: the string is accepted
		want    want
	}{
		"options=endpoint":  {"", want{endpoint: "ep-cool-name-123456"}},
		"pgbouncer=true":    {"", want{pooler: credential.TransactionPooler, ignored: "connect_timeout"}},
		"pool_timeout":      {"", want{ignored: "connect_timeout connection_limit pool_timeout"}},
		"channel_binding":   {"", want{ignored: "channel_binding"}},
		"schema=public":     {"", want{schema: "public"}},
		"schema=shop":       {"", want{schema: "shop"}},
		"global-bundle.pem": {"tls.caCertificate", want{}},
		"application_name":  {"", want{ignored: "application_name target_session_attrs"}},
		"U@tenant":          {"", want{user: "anna@tenant"}},
		"[YOUR-PASSWORD]":   {"The password is still the placeholder [YOUR-PASSWORD]", want{}},
		"reconnect":         {"", want{ignored: "charset reconnect"}},
		"allowPublicKey":    {"", want{ignored: "allowPublicKeyRetrieval"}},
		"allowAllFiles":     {`parameter "allowAllFiles" is not allowed`, want{}},
		"H1,H2":             {"several hosts", want{}},
		"":                  {},
	}
	read := 0
	for line := range strings.Lines(string(text)) {
		columns := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(columns) != 3 {
			continue
		}
		read++
		engine, pattern, _ := credential.EngineName(columns[0]), columns[1], columns[2]
		pattern, _, _ = strings.Cut(pattern, " (an unescaped")
		key := ""
		for k := range outcomes {
			if k != "" && strings.Contains(pattern, k) {
				key = k
			}
		}
		outcome, raw := outcomes[key], pasted(pattern)
		if outcome.refusal == "" {
			outcome.want.Check(t, engine, raw)
			continue
		}
		got, err := parse(engine, raw, "")
		refused(t, raw, got, err, outcome.refusal)
	}
	if read < 29 {
		t.Errorf("%d cases", read)
	}
}

// refused fails the test unless err rejects the connection string with message
// and does not contain the password.
func refused(t *testing.T, raw string, got credential.Pasted, err error, message string) {
	t.Helper()
	var e *stoa.Error
	if !errors.As(err, &e) || e.Code != stoa.InvalidRequest {
		t.Errorf("%s: got %+v, %v, want invalid_request", raw, got, err)
		return
	}
	found := false
	for _, f := range e.Fields {
		found = found || strings.Contains(f.Message, message)
		if f.Field != "connectionString" && f.Field != "tls.caCertificate" {
			t.Errorf("%s: fault of field %q", raw, f.Field)
		}
	}
	if !found {
		t.Errorf("%s: no fault says %q: %v", raw, message, e.Fields)
	}
	if text := fmt.Sprintf("%v %+v %+v", err, *e, got); strings.Contains(text, marker) {
		t.Errorf("%s: password in %s", raw, text)
	}
}

// TestProvidersStrings parses the strings of providers' pages with test values.
func TestProvidersStrings(t *testing.T) {
	t.Parallel()
	const (
		pg, my, sb = credential.PostgreSQL, credential.MySQL, credential.Supabase
		pooler     = "aws-0-eu-central-1.pooler.supabase.com"
		u          = "anna:" + marker + "@"
		up         = "anna:" + marker
	)
	for _, tt := range []struct {
		name   string
		engine credential.EngineName
		raw    string
		want   want
	}{
		{"Neon", pg, "postgresql://" + u + "ep-cool-name-123456.eu-central-1.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
			want{host: "ep-cool-name-123456.eu-central-1.aws.neon.tech", database: "neondb", ignored: "channel_binding"}},
		{"Neon, psql", pg, "psql 'postgresql://" + u + "ep-cool-name-123456.eu-central-1.aws.neon.tech/neondb?sslmode=require&channel_binding=require'",
			want{host: "ep-cool-name-123456.eu-central-1.aws.neon.tech", database: "neondb", ignored: "channel_binding"}},
		{"Neon, pooler", pg, "postgresql://" + u + "ep-cool-name-123456-pooler.c-2.eu-central-1.aws.neon.tech/neondb?sslmode=require",
			want{host: "ep-cool-name-123456-pooler.c-2.eu-central-1.aws.neon.tech", database: "neondb", pooler: credential.TransactionPooler}},
		{"Neon, endpoint", pg, "postgresql://" + u + "ep-cool-name-123456.eu-central-1.aws.neon.tech/neondb?sslmode=require&options=endpoint%3Dep-cool-name-123456",
			want{host: "ep-cool-name-123456.eu-central-1.aws.neon.tech", database: "neondb", endpoint: "ep-cool-name-123456"}},
		{"Supabase, direct", sb, "postgresql://postgres:" + marker + "@db." + ref + ".supabase.co:5432/postgres",
			want{host: "db." + ref + ".supabase.co", user: "postgres", database: "postgres"}},
		{"Supabase, session pooler", sb, "postgresql://postgres." + ref + ":" + marker + "@" + pooler + ":5432/postgres",
			want{host: pooler, user: "postgres." + ref, database: "postgres", pooler: credential.SessionPooler}},
		{"Supabase, transaction pooler", sb, "postgresql://postgres." + ref + ":" + marker + "@" + pooler + ":6543/postgres?pgbouncer=true&connection_limit=1",
			want{host: pooler, port: 6543, user: "postgres." + ref, database: "postgres", pooler: credential.TransactionPooler, ignored: "connection_limit"}},
		{"Supabase, dedicated pooler", sb, "postgresql://postgres:" + marker + "@db." + ref + ".supabase.co:6543/postgres",
			want{host: "db." + ref + ".supabase.co", port: 6543, user: "postgres", database: "postgres", pooler: credential.TransactionPooler}},
		{"Supabase, pasted as PostgreSQL", pg, "postgresql://postgres." + ref + ":" + marker + "@" + pooler + ":6543/postgres?supa=base-pooler.x",
			want{host: pooler, port: 6543, user: "postgres." + ref, database: "postgres", pooler: credential.TransactionPooler, ignored: "supa"}},
		{"Supabase, .NET", sb, "User Id=postgres." + ref + ";Password=" + marker + ";Server=" + pooler + ";Port=5432;Database=postgres",
			want{host: pooler, user: "postgres." + ref, database: "postgres", pooler: credential.SessionPooler}},
		{"Supabase, JDBC", sb, "jdbc:postgresql://" + pooler + ":5432/postgres?user=postgres." + ref + "&password=" + marker,
			want{host: pooler, user: "postgres." + ref, database: "postgres", pooler: credential.SessionPooler}},
		{"RDS", pg, "postgres://" + u + "shop.c9akciq32.eu-central-1.rds.amazonaws.com:5432/shop?sslmode=verify-full&sslrootcert=system",
			want{host: "shop.c9akciq32.eu-central-1.rds.amazonaws.com"}},
		{"RDS, psql", pg, `psql "host=shop.c9akciq32.eu-central-1.rds.amazonaws.com port=5432 dbname=shop user=anna password=` + marker + ` sslmode=require"`,
			want{host: "shop.c9akciq32.eu-central-1.rds.amazonaws.com"}},
		{"RDS, mysql", my, "mysql -h shop.c9akciq32.eu-central-1.rds.amazonaws.com -P 3306 -u anna -p" + marker + " --ssl-mode=VERIFY_IDENTITY shop",
			want{host: "shop.c9akciq32.eu-central-1.rds.amazonaws.com"}},
		{"Aurora", my, "jdbc:aws-wrapper:mysql://shop.cluster-c9akciq32.eu-central-1.rds.amazonaws.com:3306/shop?user=anna&password=" + marker + "&wrapperPlugins=failover",
			want{host: "shop.cluster-c9akciq32.eu-central-1.rds.amazonaws.com", ignored: "wrapperPlugins"}},
		{"Azure, psql", pg, `psql "host=shop.postgres.database.azure.com port=5432 dbname=shop user=anna password=` + marker + ` sslmode=require"`,
			want{host: "shop.postgres.database.azure.com"}},
		{"Azure, ADO", pg, "Server=shop.postgres.database.azure.com;Database=shop;Port=5432;User Id=anna;Password=" + marker + ";Ssl Mode=Require;Trust Server Certificate=true",
			want{host: "shop.postgres.database.azure.com", ignored: "Trust Server Certificate"}},
		{"Azure, single server", pg, "postgres://anna@shop:" + marker + "@shop.postgres.database.azure.com/shop?sslmode=require",
			want{host: "shop.postgres.database.azure.com", user: "anna@shop"}},
		{"Azure, JDBC", pg, "jdbc:postgresql://shop.postgres.database.azure.com:5432/shop?user=anna@shop&password=" + marker + "&sslmode=require",
			want{host: "shop.postgres.database.azure.com", user: "anna@shop"}},
		{"Azure, PgBouncer", pg, "postgres://" + u + "shop.postgres.database.azure.com:6432/shop?sslmode=require",
			want{host: "shop.postgres.database.azure.com", port: 6432, pooler: credential.TransactionPooler}},
		{"Azure, MySQL", my, `Server="shop.mysql.database.azure.com";UserID="anna";Password="` + marker + `";Database="shop";SslMode=MySqlSslMode.Required;SslCa="{path_to_CA_cert}"`, want{}},
		{"Cloud SQL", pg, "postgresql+psycopg2://" + u + "203.0.113.7:5432/shop", want{host: "203.0.113.7"}},
		{"DigitalOcean", pg, "postgresql://doadmin:" + marker + "@shop-do-user-1-0.b.db.ondigitalocean.com:25060/defaultdb?sslmode=require",
			want{host: "shop-do-user-1-0.b.db.ondigitalocean.com", port: 25060, user: "doadmin", database: "defaultdb"}},
		{"DigitalOcean, parameters", my, "username = doadmin\npassword = " + marker + "\nhost = shop-do-user-1-0.b.db.ondigitalocean.com\nport = 25060\ndatabase = defaultdb\nsslmode = REQUIRED",
			want{host: "shop-do-user-1-0.b.db.ondigitalocean.com", port: 25060, user: "doadmin", database: "defaultdb"}},
		{"DigitalOcean, flags", my, "mysql -u doadmin -p" + marker + " -h shop-do-user-1-0.b.db.ondigitalocean.com -P 25060 -D defaultdb",
			want{host: "shop-do-user-1-0.b.db.ondigitalocean.com", port: 25060, user: "doadmin", database: "defaultdb"}},
		{"Aiven", pg, "postgres://avnadmin:AVNS_" + marker + "@pg-1234-shop.h.aivencloud.com:12691/defaultdb?sslmode=require",
			want{host: "pg-1234-shop.h.aivencloud.com", port: 12691, user: "avnadmin", password: "AVNS_" + marker, database: "defaultdb"}},
		{"Aiven, MySQL", my, "mysql://avnadmin:AVNS_" + marker + "@mysql-1234-shop.h.aivencloud.com:12691/defaultdb?ssl-mode=REQUIRED",
			want{host: "mysql-1234-shop.h.aivencloud.com", port: 12691, user: "avnadmin", password: "AVNS_" + marker, database: "defaultdb"}},
		{"Render", pg, "PGPASSWORD=" + marker + " psql -h dpg-abc123-a.frankfurt-postgres.render.com -U anna shop",
			want{host: "dpg-abc123-a.frankfurt-postgres.render.com"}},
		{"Railway", my, "mysql://root:" + marker + "@containers-us-west-1.railway.app:6543/railway",
			want{host: "containers-us-west-1.railway.app", port: 6543, user: "root", database: "railway"}},
		{"Railway, mysql", my, "mysql -hviaduct.proxy.rlwy.net -uroot -p" + marker + " --port 51234 --protocol=TCP railway",
			want{host: "viaduct.proxy.rlwy.net", port: 51234, user: "root", database: "railway", ignored: "protocol"}},
		{"Heroku", pg, "DATABASE_URL: postgres://" + u + "ec2-1-2-3-4.compute-1.amazonaws.com:5432/d8f7", want{host: "ec2-1-2-3-4.compute-1.amazonaws.com", database: "d8f7"}},
		{"PlanetScale", my, `DATABASE_URL='mysql://anna:` + marker + `@aws.connect.psdb.cloud/shop?ssl={"rejectUnauthorized":true}'`, want{host: "aws.connect.psdb.cloud"}},
		{"PlanetScale, Prisma", my, `DATABASE_URL='mysql://` + u + `aws.connect.psdb.cloud/shop?sslaccept=strict'`, want{host: "aws.connect.psdb.cloud"}},
		{"PlanetScale, Go", my, `DSN=` + up + `@tcp(aws.connect.psdb.cloud)/shop?tls=true&interpolateParams=true`, want{}},
		{"TiDB Cloud", my, "mysql://2abc.root:" + marker + "@gateway01.eu-central-1.prod.aws.tidbcloud.com:4000/test?sslaccept=strict",
			want{host: "gateway01.eu-central-1.prod.aws.tidbcloud.com", port: 4000, user: "2abc.root", database: "test"}},
		{"TiDB Cloud, JDBC", my, "jdbc:mysql://gateway01.eu-central-1.prod.aws.tidbcloud.com:4000/test?user=2abc.root&password=" + marker + "&sslMode=VERIFY_IDENTITY&enabledTLSProtocols=TLSv1.2,TLSv1.3",
			want{host: "gateway01.eu-central-1.prod.aws.tidbcloud.com", port: 4000, user: "2abc.root", database: "test", ignored: "enabledTLSProtocols"}},
		{"Crunchy", pg, "postgres://application:" + marker + "@p.abc123.db.postgresbridge.com:5432/postgres", want{host: "p.abc123.db.postgresbridge.com", user: "application", database: "postgres"}},
		{"Vercel", pg, `POSTGRES_PRISMA_URL="postgres://default:` + marker + `@ep-cool-name-123456-pooler.eu-central-1.postgres.vercel-storage.com:5432/verceldb?pgbouncer=true&connect_timeout=15"`,
			want{host: "ep-cool-name-123456-pooler.eu-central-1.postgres.vercel-storage.com", user: "default", database: "verceldb", pooler: credential.TransactionPooler, ignored: "connect_timeout"}},
		{"JawsDB", my, "mysql://" + u + "u0zbt18wwjva9e0v.cbetxkdyhwsb.us-east-1.rds.amazonaws.com:3306/w3a5k", want{host: "u0zbt18wwjva9e0v.cbetxkdyhwsb.us-east-1.rds.amazonaws.com", database: "w3a5k"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			switch tt.name {
			case "Azure, MySQL":
				got, err := parse(tt.engine, tt.raw, "")
				refused(t, tt.raw, got, err, "tls.caCertificate")
			case "PlanetScale, Go":
				got, err := parse(tt.engine, tt.raw, "")
				refused(t, tt.raw, got, err, `parameter "interpolateParams" is not allowed`)
			default:
				tt.want.Check(t, tt.engine, tt.raw)
			}
		})
	}
}

func TestWrappersAreStripped(t *testing.T) {
	t.Parallel()
	const url = "postgresql://anna:" + marker + "@db.example.com/shop"
	for _, raw := range []string{
		url, " \r\n" + url + "\r\n", "\ufeff" + url, "\u00a0" + url + "\u00a0", "\u200b" + url, url + ";", url + "; \n", url + ",", url + `\n`,
		`"` + url + `"`, "'" + url + "'", "`" + url + "`", "“" + url + "”", "‘" + url + "’", "<" + url + ">", `"` + url + `",`, `"'` + url + `'"`,
		"DATABASE_URL=" + url, `export DATABASE_URL="` + url + `"`, `DATABASE_URL = '` + url + `';`, "set DATABASE_URL=" + url, `$env:DATABASE_URL = "` + url + `"`,
		`"DATABASE_URL": "` + url + `",`, "url: " + url, "Connection string: " + url, "spring.datasource.url=" + url, "const url = '" + url + "';",
		"```\n" + url + "\n```", "```sh\nexport DATABASE_URL=" + url + "\n```", "# production\nDATABASE_URL=" + url + "\n\n",
		"psql " + url, "psql '" + url + "'", `psql "` + url + `"`, "$ psql '" + url + "'", "psql ‘" + url + "’", "psql -d '" + url + "'", "psql --dbname=" + url, "psql -X '" + url + "';",
		"POSTGRESQL://anna:" + marker + "@db.example.com/shop", "postgres://anna:" + marker + "@db.example.com:/shop", "postgresql+asyncpg://anna:" + marker + "@db.example.com/shop",
		"pgsql://anna:" + marker + "@db.example.com/shop/", "jdbc:" + url, "jdbc:postgresql://db.example.com/shop?user=anna&amp;password=" + marker, "JDBC:postgresql://db.example.com/shop?password=" + marker + "&user=anna",
		"postgresql://db.example.com/shop?user=anna&password=" + marker, "postgresql:///shop?host=db.example.com&user=anna&password=" + marker,
		"host=db.example.com user=anna password=" + marker + " dbname=shop", "host = db.example.com\nuser = anna\npassword = '" + marker + "'\ndbname = shop",
		"PGHOST='db.example.com'\nPGUSER='anna'\nPGPASSWORD='" + marker + "'\nPGDATABASE='shop'", "export PGHOST=db.example.com\nexport PGUSER=anna\nexport PGPASSWORD=" + marker + "\nexport PGDATABASE=shop",
		"psql \"host=db.example.com user=anna password=" + marker + " dbname=shop\"", "PGPASSWORD=" + marker + " psql -h db.example.com -U anna -d shop",
		"export PGPASSWORD='" + marker + "'; psql -h db.example.com -U anna shop", "PGPASSWORD='" + marker + "' psql -hdb.example.com -p 5432 shop anna", "PGPASSWORD=" + marker + " psql --host=db.example.com \\\n  --username=anna --dbname=shop",
		"Server=db.example.com;Port=5432;Database=shop;User Id=anna;Password=" + marker + ";SslMode=Require;", "Host=db.example.com;Username=anna;Password='" + marker + "';Database=shop",
		"Driver={PostgreSQL Unicode};Server=db.example.com;Uid=anna;Pwd={" + marker + "};Database=shop", "Data Source=tcp:db.example.com;Initial Catalog=shop;User ID=anna;Pwd=\"" + marker + "\"",
	} {
		want{}.Check(t, credential.PostgreSQL, raw)
	}
	for _, raw := range []string{
		"mysql2://anna:" + marker + "@db.example.com/shop", "mariadb://anna:" + marker + "@db.example.com/shop", "mysql+pymysql://anna:" + marker + "@db.example.com/shop",
		"anna:" + marker + "@tcp(db.example.com:3306)/shop?tls=true", "jdbc:mariadb://db.example.com/shop?user=anna&password=" + marker,
		"mysql -h db.example.com -u anna -p" + marker + " shop", "mysql --host=db.example.com --user=anna --password=" + marker + " --database=shop", "mysql --host db.example.com --user anna --password=" + marker + " shop",
		"mysql –h db.example.com –u anna –p" + marker + " shop", "MYSQL_PWD=" + marker + " mysql -h db.example.com -u anna shop", "/usr/bin/mariadb -hdb.example.com -uanna -p'" + marker + "' shop",
		"mysqlsh --sql anna:" + marker + "@db.example.com/shop", "mysqlsh mysql://anna:" + marker + "@db.example.com/shop", "mysqlsh -h db.example.com -u anna -p" + marker + " --schema=shop",
		"Server=db.example.com;Uid=anna;Pwd=" + marker + ";Database=shop;SslMode=VerifyFull",
	} {
		want{}.Check(t, credential.MySQL, raw)
	}
}

func TestTLSSettings(t *testing.T) {
	t.Parallel()
	for mode, words := range map[credential.TLSMode][]string{
		credential.TLSDisable: {"sslmode=disable", "sslmode=DISABLE", "ssl-mode=DISABLED", "tls=false", "SSLMODE=disable", "useSSL=false", "sslmode=disable&ssl=false"},
		credential.TLSVerify: {
			"", "sslmode=require", "sslmode=prefer", "sslmode=allow", "sslmode=verify-full", "ssl-mode=REQUIRED", "ssl-mode=PREFERRED", "sslMode=VERIFY_CA",
			"ssl-mode=VERIFY_IDENTITY", "tls=true", "ssl=true", "ssl=1", "useSSL=true&requireSSL=true", "sslaccept=strict", "ssl={\"rejectUnauthorized\":true}",
			"ssl=%7B%22rejectUnauthorized%22%3Atrue%7D", "sslmode=verify-full&sslrootcert=system", "ssl=true&sslmode=require", "sslmode=verify-ca", "verifyServerCertificate=true",
		},
	} {
		for _, word := range words {
			want{tls: mode}.Check(t, credential.PostgreSQL, "postgres://anna:"+marker+"@db.example.com/shop?"+word)
		}
	}
	ca := otherCA(t)
	for word, mode := range map[string]credential.TLSMode{
		"sslmode=verify-ca": credential.TLSVerifyCA, "ssl=true&sslMode=VERIFY_CA": credential.TLSVerifyCA, "sslmode=verify-ca&sslrootcert=/certs/ca.pem": credential.TLSVerifyCA,
		"sslmode=verify-full&sslrootcert=/certs/ca.pem": credential.TLSVerify, "sslmode=require": credential.TLSVerify, "sslmode=verify-ca&tls=verify-full": credential.TLSVerify,
	} {
		got, err := parse(credential.PostgreSQL, "postgres://anna:"+marker+"@db.example.com/shop?"+word, ca)
		testkit.Must(t, err)
		if got.Credentials.TLS != mode || got.Credentials.CACertificate != ca {
			t.Errorf("%s: %+v", word, got)
		}
	}
	got, err := parse(credential.PostgreSQL, "postgres://anna:"+marker+"@db.example.com/shop?sslmode=disable", ca)
	refused(t, "sslmode=disable", got, err, "has no use")
}

// TestBarePasswords checks passwords with characters that should be encoded in
// a URL and are not.
func TestBarePasswords(t *testing.T) {
	t.Parallel()
	for raw, password := range map[string]string{
		"%40%3A%2F%3F%23%25" + marker: "@:/?#%" + marker, "a@b:" + marker: "a@b:" + marker, "a+b" + marker: "a+b" + marker,
		marker + "/x": marker + "/x", "12/x?" + marker + "&b=": "12/x?" + marker + "&b=", "#" + marker: "#" + marker, "?" + marker: "?" + marker,
		"[" + marker: "[" + marker, "100%" + marker: "100%" + marker, marker + "%": marker + "%", "a:b/" + marker: "a:b/" + marker,
	} {
		want{password: password}.Check(t, credential.PostgreSQL, "postgres://anna:"+raw+"@db.example.com/shop")
	}
	for _, raw := range []string{"12/@" + marker, "p@h/db?" + marker, "p@h/" + marker, "a%40" + marker + "%", "@/" + marker, "p@h/db#" + marker} {
		got, err := parse(credential.PostgreSQL, "postgres://anna:"+raw+"@db.example.com/shop", "")
		refused(t, raw, got, err, "percent-encoded: %40 for @")
	}
	// These are other forms, in which a part of the password would look like a
	// setting.
	for raw, message := range map[string]string{
		"jdbc:postgresql://db.example.com/shop?user=anna&password=a&" + marker:         "without a value",
		"jdbc:postgresql://db.example.com/shop?user=anna&password=a&correct-horse-7=b": "is not known",
		"Server=db.example.com;User Id=anna;Database=shop;Password=a;" + marker:        "is no setting",
		"Server=db.example.com;Password=a;" + marker + ";User Id=anna;Database=shop":   "is no setting",
		"Server=db.example.com;User Id=anna;Database=shop;Password=a;" + marker + "=b": "is not known",
		"host=db.example.com user=anna dbname=shop password=a " + marker:               "is no setting",
		"host=db.example.com user=anna dbname=shop password=a " + marker + "=b":        "is not known",
		"host=db.example.com user=anna dbname=shop password='" + marker:                "quote that is not closed",
		"PGPASSWORD='" + marker + " psql -h db.example.com -U anna shop":               "quote that is not closed",
		"psql -h db.example.com -U anna shop anna " + marker:                           "more words",
		"PGPASSWORD=a;" + marker + " psql -h db.example.com -U anna shop":              "must begin with",
	} {
		got, err := parse(credential.PostgreSQL, raw, "")
		refused(t, raw, got, err, message)
	}
	for value, password := range map[string]string{`"a;b"`: "a;b", `{a;b}}c}`: "a;b}c", `'it''s'`: "it's", "a=b": "a=b"} {
		want{password: password}.Check(t, credential.PostgreSQL, "Server=db.example.com;User Id=anna;Password="+value+";Database=shop")
	}
	for value, password := range map[string]string{`'a b'`: "a b", `'it\'s'`: "it's", `a\ b`: "a b", `a=b`: "a=b", `a;`: "a;"} {
		want{password: password}.Check(t, credential.PostgreSQL, "host=db.example.com user=anna dbname=shop password="+value)
	}
	for value, password := range map[string]string{`'a b;c'`: "a b;c", `"a\"b"`: `a"b`, `a\ b`: "a b", `a=b@c`: "a=b@c"} {
		want{password: password}.Check(t, credential.MySQL, "mysql -h db.example.com -u anna -p"+value+" shop")
	}
}

func TestPlaceholders(t *testing.T) {
	t.Parallel()
	for _, password := range []string{
		"[YOUR-PASSWORD]", "[YOUR_PASSWORD]", "<password>", "<db_password>", "{your_password}", "YOUR_PASSWORD", "your-password", "yourpassword", "YOUR-DB-PASSWORD", "***", "****************",
		"$PASSWORD", "$PGPASSWORD", "${DB_PASS}", "{{password}}", "[password]", "$(DB_PASSWORD)", "xxxxx", "[REDACTED]", "…", "•••••", "%5BYOUR-PASSWORD%5D", "%PASSWORD%", "<YOUR PASSWORD>",
	} {
		for _, raw := range []string{
			"postgresql://anna:" + password + "@db.example.com/shop", "Server=db.example.com;User Id=anna;Password=" + password + ";Database=shop",
		} {
			if strings.HasPrefix(password, "%5B") && strings.HasPrefix(raw, "Server") {
				continue
			}
			got, err := parse(credential.PostgreSQL, raw, "")
			refused(t, raw, got, err, "The password is still the placeholder")
		}
	}
	for raw, message := range map[string]string{
		"postgresql://postgres:x@db.[YOUR-PROJECT-REF].supabase.co:5432/postgres":        "host is still a placeholder",
		"postgresql://postgres:x@<host>:5432/postgres":                                   "place of the host",
		"postgresql://<user>:x@db.example.com/shop":                                      "user is still a placeholder",
		"Server=db.example.com;Database={your_database};User Id=anna;Password=" + marker: "database is still a placeholder",
		"postgresql://anna:x@[YOUR-HOST]/shop":                                           "place of the host",
		"postgresql://postgres.[YOUR-PROJECT-REF]:x@db.example.com:6543/postgres":        "user has a placeholder",
	} {
		got, err := parse(credential.PostgreSQL, raw, "")
		refused(t, raw, got, err, message)
	}
	// A person's own password may look unusual.
	for _, password := range []string{"password", "[x9]", "$ecret", "<3", "{a}", "xxx", "**", "pass-word", "$Pass1", "%secret", "[mysecretpassx]", "<OurPassIsLong>", "$MYPASSX"} {
		want{password: password}.Check(t, credential.PostgreSQL, "host=db.example.com user=anna dbname=shop password="+password)
	}
}
