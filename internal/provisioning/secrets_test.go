package provisioning

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestPasswordsStaySecret checks that a password given to Connect cannot be read anywhere
// afterwards, whether or not the run succeeded.
func TestPasswordsStaySecret(t *testing.T) {
	t.Parallel()
	each(t, servers(t), func(t *testing.T, b fixture, engine credential.EngineName) {
		p, s := b.store(t)
		right := credentials(t, engine)
		wrong := right
		wrong.Password = keyring.NewSecret("W" + right.Password.Reveal())
		failed := b.connect(t, p, s.ID, wrong)
		b.failed(t, p, failed, "connect", "database_auth_failed")
		run := b.connect(t, p, s.ID, right)
		store := b.succeeded(t, p, run)

		places := map[string]string{
			"master": dump(t, b.db), "log": b.logged.String(),
			"runs": fmt.Sprintf("%+v %+v %v %v", failed, run, failed.Fault.Err(), failed.Steps), "store": fmt.Sprintf("%+v %+v", store, *store.Database),
		}
		// The search works: it finds values that are not secret.
		for place, open := range map[string]string{"master": right.Database, "log": run.StoreID.String(), "runs": failed.Fault.Message, "store": right.Host} {
			if !strings.Contains(places[place], open) {
				t.Errorf("%s does not hold %q: the search would find nothing", place, open)
			}
		}
		password := right.Password.Reveal() // also a part of the wrong password
		for place, text := range places {
			for _, form := range []string{password, url.QueryEscape(password), base64.StdEncoding.EncodeToString([]byte(password)), fmt.Sprintf("%x", password)} {
				if strings.Contains(text, form) {
					t.Errorf("the password is in the %s", place)
				}
			}
		}
	})
}

// dump returns everything in the master database.
func dump(t *testing.T, db *masterdb.DB) string {
	t.Helper()
	var all strings.Builder
	if db.Engine == masterdb.SQLite {
		var path string
		testkit.Must(t, db.Get(t.Context(), &path, `SELECT file FROM pragma_database_list WHERE name = 'main'`))
		for _, file := range []string{path, path + "-wal"} {
			content, err := os.ReadFile(file)
			testkit.Must(t, err)
			all.Write(content)
		}
		return all.String()
	}
	var tables []string
	testkit.Must(t, db.Select(t.Context(), &tables, `SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()`))
	for _, table := range tables {
		var rows []string
		testkit.Must(t, db.Select(t.Context(), &rows, fmt.Sprintf(`SELECT CAST(t AS text) FROM %q t`, table)))
		all.WriteString(strings.Join(rows, "\n"))
	}
	return all.String()
}
