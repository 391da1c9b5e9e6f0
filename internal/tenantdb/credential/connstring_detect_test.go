package credential

import (
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/keyring"
)

// TestDetectEngine checks strings as providers' pages and configuration files have
// them: the engine is found and the string can be read with it.
func TestDetectEngine(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-Pa55"
	for text, want := range map[string]EngineName{
		"postgresql://u:" + secret + "@ep-cool-name-123456.eu-central-1.aws.neon.tech/neondb?sslmode=require&channel_binding=require": PostgreSQL,
		"psql 'postgresql://u:" + secret + "@ep-cool-name-123456-pooler.eu-central-1.aws.neon.tech/neondb?sslmode=require'":           PostgreSQL,
		"postgresql://postgres.abcdefghijklmnopqrst:" + secret + "@aws-0-eu-central-1.pooler.supabase.com:6543/postgres":              Supabase,
		"postgresql://postgres.abcdefghijklmnopqrst:" + secret + "@aws-0-eu-central-1.pooler.supabase.com:5432/postgres":              Supabase,
		"postgresql://postgres:" + secret + "@db.abcdefghijklmnopqrst.supabase.co:5432/postgres":                                      Supabase,
		"postgres://u:" + secret + "@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d1":                                                     PostgreSQL,
		"DATABASE_URL=postgres://u:" + secret + "@dpg-abc-a.frankfurt-postgres.render.com/shop":                                       PostgreSQL,
		"export DATABASE_URL=\"postgresql://u:" + secret + "@shop.db.ondigitalocean.com:25060/defaultdb?sslmode=require\"":            PostgreSQL,
		"host=shop.postgres.database.azure.com port=5432 dbname=shop user=admin1 password=" + secret + " sslmode=require":             PostgreSQL,
		"jdbc:postgresql://shop.cluster-abc.eu-central-1.rds.amazonaws.com:5432/shop?user=u&password=" + secret:                       PostgreSQL,
		"psql -h shop.example.com -U u -p 5432 -d shop":                                                                               "", // no password
		"PGPASSWORD=" + secret + " psql -h shop.example.com -U u -p 5432 -d shop":                                                     PostgreSQL,
		"PGHOST=shop.example.com\nPGUSER=u\nPGPASSWORD=" + secret + "\nPGDATABASE=shop":                                               PostgreSQL,
		"POSTGRES_HOST=shop.example.com\nPOSTGRES_USER=u\nPOSTGRES_PASSWORD=" + secret + "\nPOSTGRES_DB=shop":                         PostgreSQL,
		"DB_CONNECTION=pgsql\nDB_HOST=shop.example.com\nDB_PORT=5432\nDB_DATABASE=shop\nDB_USERNAME=u\nDB_PASSWORD=" + secret:         PostgreSQL,
		"Host=shop.example.com;Port=5432;Database=shop;Username=u;Password=" + secret:                                                 PostgreSQL,
		"postgresql+asyncpg://u:" + secret + "@shop.example.com/shop":                                                                 PostgreSQL,
		"mysql://u:" + secret + "@aws.connect.psdb.cloud/shop?ssl={\"rejectUnauthorized\":true}":                                      MySQL,
		"mysql://avnadmin:" + secret + "@shop-project.a.aivencloud.com:12345/defaultdb?ssl-mode=REQUIRED":                             MySQL,
		"mysql --host=shop.example.com --user=u --password=" + secret + " shop":                                                       MySQL,
		"mysql -u u -p" + secret + " -h shop.example.com -P 3306 -D shop":                                                             MySQL,
		"mysql -u psql -p" + secret + " -h shop.example.com shop":                                                                     MySQL, // the name of the user
		"mariadb -u u -p" + secret + " -h shop.example.com shop":                                                                      MySQL,
		"jdbc:mysql://shop.example.com:3306/shop?user=u&password=" + secret:                                                           MySQL,
		"jdbc:mariadb://shop.example.com/shop?user=u&password=" + secret:                                                              MySQL,
		"u:" + secret + "@tcp(shop.example.com:3306)/shop?parseTime=true":                                                             MySQL,
		"Server=shop.example.com;Port=3306;Database=shop;Uid=u;Pwd=" + secret + ";":                                                   MySQL,
		"DB_CONNECTION=mysql\nDB_HOST=shop.example.com\nDB_PORT=3306\nDB_DATABASE=shop\nDB_USERNAME=u\nDB_PASSWORD=" + secret:         MySQL,
		"MYSQL_HOST=shop.example.com\nMYSQL_USER=u\nMYSQL_PASSWORD=" + secret + "\nMYSQL_DATABASE=shop":                               MySQL,
		"spring.datasource.url=jdbc:mysql://shop.example.com/shop?user=u&password=" + secret:                                          MySQL,
		"mysql2://u:" + secret + "@containers-us-west-1.railway.app:6543/railway":                                                     MySQL,
		"https://shop.example.com":  "",
		"":                          "",
		"shop.example.com":          "",
		"hello world":               "",
		strings.Repeat("x", 10_000): "",
		"mongodb://u:p@h/d":         "",
	} {
		raw := keyring.NewSecret(text)
		got := DetectEngine(raw, SupabaseRules{}.WithDefaults())
		if _, err := ParsePasted(got, raw, "", SupabaseRules{}.WithDefaults()); want != "" && err != nil {
			t.Errorf("%s: %v", strings.ReplaceAll(text, secret, "…"), err)
		}
		if got != want && want != "" || want == "" && got != "" && !strings.HasPrefix(text, "psql") {
			t.Errorf("%s: %q, want %q", strings.ReplaceAll(text, secret, "…"), got, want)
		}
	}
}
