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

// Rules returns the engine whose rules apply to c's database.
func (c Credentials) Rules() EngineName {
	if c.Kind == KindSupabase {
		return Supabase
	}
	return c.Engine
}
