package app_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// importing is a platform into which a test imports.
type importing struct {
	t   *testing.T
	cfg *config.Config
	db  *masterdb.DB
}

// eachImporting runs the test on both masters, with the platform's tables made.
func eachImporting(t *testing.T, test func(i importing)) {
	t.Helper()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			i := importing{t: t, cfg: testConfig(t, engine)}
			if status, _, errOut := command(t, "migrate", i.flags()[0], i.flags()[1]); status != 0 {
				t.Fatal(errOut)
			}
			i.db = masterdbtest.Open(t, i.cfg.MasterDBURL.Reveal())
			test(i)
		})
	}
}

func (i importing) flags() []string {
	return []string{"--data-dir=" + i.cfg.DataDir, "--master-db-url=" + i.cfg.MasterDBURL.Reveal()}
}

// file writes a file of CSV.
func (i importing) file(lines ...string) string {
	i.t.Helper()
	name := filepath.Join(i.t.TempDir(), "stores.csv")
	testkit.Must(i.t, os.WriteFile(name, []byte(strings.Join(lines, "\n")), 0o600))
	return name
}

// run imports a file and returns the exit status, the results of the lines and the
// summary. It checks that the output has none of the secrets.
func (i importing) run(name string, flags ...string) (status int, results []object, summary object) {
	i.t.Helper()
	status, out, errOut := command(i.t, slices.Concat([]string{"stores", "import", name, "--json"}, i.flags(), flags)...)
	for line := range strings.Lines(out) {
		var o object
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			i.t.Fatalf("%v: %s", err, line)
		}
		if last, ok := o["summary"].(object); ok {
			summary = last
			continue
		}
		results = append(results, o)
	}
	if summary == nil {
		i.t.Fatalf("no summary, status %d: %s", status, errOut)
	}
	slices.SortStableFunc(results, func(a, b object) int { return int(a["line"].(float64) - b["line"].(float64)) })
	return status, results, summary
}

func (i importing) count(what string) (n int) {
	i.t.Helper()
	testkit.Must(i.t, i.db.Get(i.t.Context(), &n, `SELECT count(*) FROM `+what))
	return n
}

// want fails unless the summary has these counts.
func (i importing) want(summary object, counts object) {
	i.t.Helper()
	for name, n := range counts {
		if summary[name] != float64(n.(int)) {
			i.t.Errorf("%s is %v, want %v in %v", name, summary[name], n, summary)
		}
	}
}

const importColumns = "owner_email,owner_name,owner_password_hash,store_slug,store_name,store_description,store_currency,database,engine,adopt"

// These are hashes of other systems, and what their users type.
var importedHashes = map[string][2]string{
	"laravel":  {"$2y$06$abcdefghijklmnopqrstuuUYThwYmIWln5x39D.gxp.bQbpZrfEYG", "letmein"},
	"supabase": {"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
	"argon2id": {"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "password"},
	"django":   {"pbkdf2_sha256$1000$seasalt$jbu7IkbRD5VtvV9ziNvcqNHxXuBd4+gsmw9KgWiw4GI=", "letméin"},
	"scrypt": {"scrypt$16384$seasalt$8$1$aw3bUxWFC3Xfheg2aovvLtnT0Y/ygxtIQOGecmEip41obMVVDU79jbPvHz9Arhl5DJSOPtnhOicOs9M/j7Q8oQ==",
		"letmein"},
	"firebase": {"$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==" +
		"$42xEC+ixf3L2lw==$lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ==", "user1password"},
}

// TestImportedOwnersSignIn imports owners with the hashes of other systems beside a running
// server. They sign in with the passwords that they have, and their hashes are replaced.
// One without a hash sets a password by mail.
func TestImportedOwnersSignIn(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		i := importing{t: t, cfg: s.Cfg, db: s.Master}
		lines := []string{importColumns, `none@example.com,Nobody,,none,None,,,,,`}
		for name, h := range importedHashes {
			lines = append(lines, fmt.Sprintf(`%s@Example.com,Ada King Lovelace,"%s",%[1]s,Shop of %[1]s,,,,,`, name, h[0]))
		}
		file := i.file(lines...)
		status, _, summary := i.run(file, "--verified-emails")
		i.want(summary, object{"made": 7, "ownersCreated": 7, "failed": 0})
		if status != 0 {
			t.Fatal("status", status)
		}
		visitor := client{t: t, url: s.URL, s: s}
		for name, h := range importedHashes {
			login := func(password string) answer {
				return visitor.call("POST", "/api/auth/login", object{"email": name + "@example.com", "password": password})
			}
			login(h[1] + "x").want(http.StatusUnauthorized)
			for range 2 { // the second time with the new hash
				login(h[1]).want(http.StatusOK).is(true, "user", "emailVerified").is("Ada", "user", "firstName").is("King Lovelace", "user", "lastName")
			}
			owner := client{t: t, url: s.URL, token: login(h[1]).text("accessToken")}
			store := owner.call("GET", "/api/stores", nil).want(http.StatusOK).list("data")
			if len(store) != 1 || store[0].(object)["slug"] != name || store[0].(object)["status"] != "active" {
				t.Errorf("stores of %s: %v", name, store)
			}
		}
		if n := i.count(`users WHERE password_hash LIKE '$argon2id$v=19$m=19456,%'`); n != 7 {
			t.Errorf("%d hashes are those of this platform, want 7", n)
		}
		visitor.call("POST", "/api/auth/login", object{"email": "none@example.com", "password": ""}).want(http.StatusUnauthorized)
		visitor.call("POST", "/api/auth/login", object{"email": "none@example.com", "password": testPassword}).want(http.StatusUnauthorized)
		visitor.call("POST", "/api/auth/forgot-password", object{"email": "none@example.com"}).want(http.StatusNoContent)
		visitor.submit(visitor.mailed("reset"), map[string][]string{"password": {testPassword}}).want(http.StatusSeeOther)
		visitor.call("POST", "/api/auth/login", object{"email": "none@example.com", "password": testPassword}).want(http.StatusOK)
	})
}

// TestImportFaults checks that all faults of a file are reported with their lines, that
// nothing is changed then, and that no secret is in the output.
func TestImportFaults(t *testing.T) {
	t.Parallel()
	eachImporting(t, func(i importing) {
		status, _, _ := i.run(i.file(importColumns, `owner@example.com,Owner,,taken,Taken,,,,,`))
		if status != 0 {
			i.t.Fatal("status", status)
		}
		before := i.dump()
		const secret = "S3cretS3cret"
		file := i.file(importColumns,
			`new@example.com,New,,fine,Fine,,,,,`,                                                           // 2
			`not an address,New,,a,A,,,,,`,                                                                  // 3
			`b@example.com,New,`+secret+`,b,B,,,,,`,                                                         // 4
			`c@example.com,New,$2y$31$abcdefghijklmnopqrstuuUYThwYmIWln5x39D.gxp.bQbpZrfEYG,c,C,,,,,`,       // 5
			`d@example.com,New,,www,D,,,,,`,                                                                 // 6
			`e@example.com,New,,E E,E,,,,,`,                                                                 // 7
			`f@example.com,New,,fine,F,,,,,`,                                                                // 8
			`NEW@example.com,Other,,g,G,,,,,`,                                                               // 9
			`h@example.com,New,,taken,H,,,,,`,                                                               // 10
			`i@example.com,New,,i,,,EURO,,,`,                                                                // 11
			`j@example.com,New,,j,J,,,postgres://user:`+secret+`@db.example.com,,`,                          // 12
			`k@example.com,New,,k,K,,,`+secret+`,,`,                                                         // 13
			`l@example.com,New,,l,L,,,,postgresql,maybe`,                                                    // 14
			`m@example.com,New,,m,M,,,managed,mysql,true`,                                                   // 15
			`n@example.com,New,,n,N,,,postgres://user:`+secret+`@db.example.com/n,,`,                        // 16
			`o@example.com,New,,o,O,,,postgresql://user:`+secret+`@DB.example.com:5432/n?sslmode=require,,`, // 17
			`p@example.com,New,,p,P,,,postgres://user:`+secret+`@db.example.com/p,oracle,`,                  // 18
			`q@example.com,New`,                                                                             // 19
			`r@example.com,www.example.com,,r,https://example.com,,,,,`,                                     // 20
		)
		status, faults, summary := i.run(file)
		if status != 1 {
			i.t.Error("status", status)
		}
		want := []string{
			"3 owner_email must be an e-mail", "4 owner_password_hash is no password hash", "5 owner_password_hash is a password hash that costs",
			"6 store_slug is reserved", "7 store_slug must be 1 to 63", "8 store_slug is the one of line 2", "9 owner_name is not that of line 2",
			"10 store_slug is the one of another owner's store", "11 store_name is required", "11 store_currency must be",
			"12 database database is required", "13 database does not say which database", "14 adopt must be true or false", "15 adopt is for a database of the owner's own",
			"15 engine must be sqlite", "17 database is the one of line 16", "18 engine must be postgresql, mysql, supabase", "19 has 2 values", "20 owner_name must not hold a web", "20 store_name must not contain a web",
		}
		for n, w := range want {
			if n >= len(faults) {
				i.t.Fatalf("%d faults, want %d: %v", len(faults), len(want), faults)
			}
			column := ""
			if c, ok := faults[n]["column"]; ok {
				column = c.(string) + " "
			}
			if got := fmt.Sprintf("%v %s%v", faults[n]["line"], column, faults[n]["message"]); !strings.HasPrefix(got, w) {
				i.t.Errorf("fault %q, want %q", got, w)
			}
		}
		i.want(summary, object{"faults": len(want), "lines": 19, "made": 0})
		status, out, errOut := command(i.t, slices.Concat([]string{"stores", "import", file}, i.flags())...)
		if status != 1 || !strings.Contains(errOut, fmt.Sprintf("the file has %d faults. Nothing was changed", len(want))) {
			i.t.Errorf("status %d: %s", status, errOut)
		}
		if strings.Contains(out+errOut+fmt.Sprint(faults), secret) {
			i.t.Errorf("a secret is shown: %s %s %v", out, errOut, faults)
		}
		if after := i.dump(); after != before {
			i.t.Errorf("the master has changed:\n%s\n%s", before, after)
		}

		// More faults than are shown are counted.
		lines := []string{importColumns}
		for range 1200 {
			lines = append(lines, "x")
		}
		if _, faults, summary := i.run(i.file(lines...)); len(faults) != 1000 || summary["faults"] != float64(1200) {
			i.t.Errorf("%d faults shown, summary %v", len(faults), summary)
		}
	})
}

// dump returns how many rows the tables have that an import changes.
func (i importing) dump() (counts string) {
	for _, table := range []string{"users", "stores", "store_members", "provisioning_runs", "store_databases", "credit_balances", "audit_events"} {
		counts += fmt.Sprintf("%s %d ", table, i.count(table))
	}
	return counts
}

// TestImportAgain checks that a second import makes nothing twice and keeps what people
// have changed since, goes on with a store that has no database, and gives nobody another
// owner's account or store.
func TestImportAgain(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		i := importing{t: t, cfg: s.Cfg, db: s.Master}
		owner, pending := register(t, s, "owner@example.com")
		slug := owner.call("GET", "/api/stores/"+pending, nil).want(http.StatusOK).text("slug")
		hash := importedHashes["laravel"]
		file := i.file(importColumns,
			`owner@example.com,Another Name,`+hash[0]+`,`+slug+`,Another Name,Imported,EUR,,,`,
			`owner@example.com,,,second,Second,Imported,EUR,,,`,
			`ada@example.com,Ada Lovelace,`+hash[0]+`,third,Third,Imported,EUR,,,`)
		status, results, summary := i.run(file)
		i.want(summary, object{"made": 2, "completed": 1, "ownersCreated": 1, "failed": 0})
		if status != 0 || results[0]["state"] != "completed" || results[0]["store"] != pending {
			t.Fatalf("status %d: %v", status, results)
		}
		owner.call("POST", "/api/auth/login", object{"email": "owner@example.com", "password": testPassword}).want(http.StatusOK).is("John", "user", "firstName")
		owner.call("GET", "/api/stores/"+pending, nil).want(http.StatusOK).is("active", "status").is("", "profile", "description")
		second := results[1]["store"].(string)
		owner.call("GET", "/api/stores/"+second, nil).want(http.StatusOK).is("Second", "name").is("Imported", "profile", "description").is("EUR", "profile", "currency")
		owner.call("PATCH", "/api/stores/"+second, object{"name": "Mine", "description": ""}).want(http.StatusOK)

		before := i.dump()
		status, results, summary = i.run(file)
		i.want(summary, object{"made": 0, "completed": 0, "kept": 3, "ownersCreated": 0, "failed": 0})
		if after := i.dump(); status != 0 || after != before {
			t.Errorf("status %d, %v:\n%s\n%s", status, results, before, after)
		}
		owner.call("GET", "/api/stores/"+second, nil).want(http.StatusOK).is("Mine", "name").is("", "profile", "description")

		// An import that died between the store and its profile is completed.
		lease, err := s.Tenants.Acquire(t.Context(), parseStore(t, second))
		testkit.Must(t, err)
		_, err = lease.Exec(t.Context(), `UPDATE stores SET updated_at = created_at`)
		lease.Release()
		testkit.Must(t, err)
		_, _, summary = i.run(file)
		i.want(summary, object{"completed": 1, "kept": 2})
		owner.call("GET", "/api/stores/"+second, nil).want(http.StatusOK).is("Mine", "name").is("Imported", "profile", "description")

		// A renamed store is found by the key of its import.
		owner.call("PATCH", "/api/stores/"+second, object{"slug": "renamed"}).want(http.StatusOK)
		_, results, summary = i.run(file)
		i.want(summary, object{"made": 0, "kept": 3, "failed": 0})
		if n := i.count(`stores WHERE created_by = (SELECT id FROM users WHERE email = 'owner@example.com')`); n != 2 {
			t.Errorf("the owner has %d stores: %v", n, results)
		}
		_, results, _ = i.run(i.file(importColumns, `eve@example.com,Eve,,third,Third,,,,,`, `eve@example.com,,,second,Second,,,,,`))
		if len(results) != 2 || results[0]["column"] != "store_slug" || results[1]["column"] != "store_slug" || i.count(`users WHERE email = 'eve@example.com'`) != 0 {
			t.Errorf("another's slugs, of now and of before: %v", results)
		}
	})
}

// TestImportOwnDatabases imports stores into databases of their owners: the dry run looks
// into them and changes nothing, a fault of one stops no other, and the next run goes on.
func TestImportOwnDatabases(t *testing.T) {
	t.Parallel()
	engines := slices.DeleteFunc(tenantdbtest.Engines(), func(e credential.EngineName) bool { return e == credential.SQLite })
	if len(engines) == 0 {
		t.Skip("no database server is set")
	}
	eachImporting(t, func(i importing) {
		lines, creds := []string{}, []credential.Credentials{}
		add := func(slug, database, adopt string) {
			line, err := json.Marshal(object{"owner_email": slug + "@example.com", "store_slug": slug, "store_name": slug, "database": database, "adopt": adopt == "true"})
			testkit.Must(i.t, err)
			lines = append(lines, string(line))
		}
		for _, engine := range engines {
			empty, adopted := tenantdbtest.Create(i.t, engine), tenantdbtest.Create(i.t, engine)
			for _, c := range []credential.Credentials{adopted} {
				tenantdbtest.Exec(i.t, c, `CREATE TABLE guests (name varchar(20) NOT NULL PRIMARY KEY)`, `CREATE TABLE orders (n integer)`)
			}
			add(string(engine)+"-empty", empty.ConnectionString().Reveal(), "false")
			add(string(engine)+"-full", adopted.ConnectionString().Reveal(), "true")
			creds = append(creds, empty, adopted)
		}
		lost := creds[0]
		lost.Port, lost.Database = 1, "gone"
		add("gone", lost.ConnectionString().Reveal(), "false")
		add("managed", "", "false")
		name := filepath.Join(i.t.TempDir(), "stores.jsonl")
		testkit.Must(i.t, os.WriteFile(name, []byte(strings.Join(lines, "\n")), 0o600))
		tables := func() (all []string) {
			for _, c := range creds {
				in, err := tenantdbtest.Open(i.t, c).Inspect(i.t.Context())
				testkit.Must(i.t, err)
				all = append(all, strings.Join(in.Tables, ","))
			}
			return all
		}
		before, rows := tables(), i.count("stores")+i.count("users")
		status, results, summary := i.run(name, "--dry-run")
		i.want(summary, object{"made": len(engines) + 1, "failed": len(engines) + 1, "ownersCreated": len(lines)})
		for n, r := range results[:2*len(engines)] {
			if n%2 == 0 && r["state"] != "to_make" || n%2 == 1 && (r["code"] != "database_not_empty" || !strings.Contains(r["message"].(string), `"orders"`)) {
				i.t.Errorf("dry run: %v", r)
			}
		}
		if status != 1 || !slices.Equal(before, tables()) || rows != i.count("stores")+i.count("users") {
			i.t.Errorf("status %d; the dry run has changed something: %v, %v", status, before, tables())
		}
		if n := i.count(`audit_events WHERE action = 'database.tested' AND store_id IS NULL`); n != 2*len(engines)+1 {
			i.t.Errorf("%d tests are in the audit log", n)
		}

		for n := 1; n < len(creds); n += 2 {
			tenantdbtest.Exec(i.t, creds[n], `DROP TABLE orders`)
		}
		_, results, summary = i.run(name, "--dry-run")
		i.want(summary, object{"made": len(lines) - 1, "failed": 1})
		if a, _ := results[1]["adoption"].(object); a == nil || a["keeps"] != float64(1) || len(a["makes"].([]any)) < 5 {
			i.t.Errorf("adoption: %v", results[1])
		}
		status, results, summary = i.run(name, "--stop-on-error", "--parallel=1")
		i.want(summary, object{"made": len(lines) - 2, "failed": 1, "notReached": 1})
		if r := results[len(results)-1]; status != 1 || r["code"] != "database_unreachable" {
			i.t.Errorf("status %d: %v", status, r)
		}
		status, results, summary = i.run(name)
		i.want(summary, object{"made": 1, "failed": 1, "kept": len(lines) - 2})
		for n := 1; n < len(creds); n += 2 {
			if got := strings.Split(tables()[n], ","); status != 1 || !slices.Contains(got, "guests") || !slices.Contains(got, "products") {
				i.t.Errorf("status %d, tables %v, %v", status, got, results)
			}
		}
		// With another database in the file the failed store goes on.
		lines = nil
		add("gone", tenantdbtest.Create(i.t, engines[0]).ConnectionString().Reveal(), "false")
		testkit.Must(i.t, os.WriteFile(name, []byte(lines[0]), 0o600))
		if status, results, _ = i.run(name); status != 0 || results[0]["state"] != "completed" {
			i.t.Errorf("status %d: %v", status, results)
		}
	})
}

// TestImportFiveHundred imports many stores in one go, and logs how long it takes.
func TestImportFiveHundred(t *testing.T) {
	t.Parallel()
	n := 500
	if testing.Short() {
		n = 25
	}
	i := importing{t: t, cfg: testConfig(t, masterdb.SQLite)}
	if status, _, errOut := command(t, "migrate", i.flags()[0], i.flags()[1]); status != 0 {
		t.Fatal(errOut)
	}
	i.db = masterdbtest.Open(t, i.cfg.MasterDBURL.Reveal())
	lines := importLines(n)
	for k := range lines {
		if k > n-15 { // more than the quota of an owner whose address is not verified
			lines[k] = strings.Replace(lines[k], fmt.Sprintf("owner%d@example.com,Ada %[1]d", k-1), "many@example.com,Ada", 1)
		}
	}
	begun := time.Now()
	status, _, summary := i.run(i.file(lines...))
	t.Logf("%d stores in %s", n, time.Since(begun).Round(time.Millisecond))
	i.want(summary, object{"made": n, "ownersCreated": n - 14, "failed": 0, "notReached": 0})
	if active := i.count(`stores WHERE status = 'active'`); status != 0 || active != n {
		t.Errorf("status %d, %d stores are active", status, active)
	}
}

func parseStore(t *testing.T, id string) stoa.StoreID {
	t.Helper()
	store, err := stoa.ParseID[stoa.StoreID](id)
	testkit.Must(t, err)
	return store
}

// importLines returns a file with n stores, each with its own owner.
func importLines(n int) []string {
	lines := []string{importColumns}
	for i := range n {
		lines = append(lines, fmt.Sprintf(`owner%d@example.com,Ada %[1]d,%s,shop-%[1]d,Shop %[1]d,Imported,EUR,,,`, i, importedHashes["laravel"][0]))
	}
	return lines
}

// TestImportKilled kills an import at several points and runs it again, at last to its
// end: every owner and every store is there once, active and with its profile.
func TestImportKilled(t *testing.T) {
	t.Parallel()
	eachImporting(t, func(i importing) {
		n, kills := 40, 10
		if testing.Short() {
			n, kills = 16, 4
		}
		lines := importLines(n)
		for k, engine := range tenantdbtest.Engines() {
			if engine != credential.SQLite {
				lines = append(lines, fmt.Sprintf(`own%d@example.com,Own,,own-%[1]d,Own,Imported,EUR,%s,,`, k, tenantdbtest.ConnectionString(i.t, engine)))
			}
		}
		n = len(lines) - 1
		file := i.file(lines...)
		interrupted, crashed := 0, 0
		for k := range kills {
			conditions := []string{`users`, `stores`, `provisioning_events WHERE step = 'migrate'`, `provisioning_events WHERE step = 'store_record'`, `stores WHERE status = 'active'`}
			i.kill(file, conditions[k%len(conditions)], 1+k%3)
			open := i.count(`stores WHERE status <> 'active'`)
			interrupted += open
			if open > 0 || i.count(`users`) > i.count(`stores`) {
				crashed++
			}
		}
		t.Logf("%d imports were killed, %d of them with a store in progress, %d stores in all", kills, crashed, interrupted)
		if crashed < kills/3 {
			i.t.Error("too few of them to say anything")
		}
		status, results, summary := i.run(file)
		if i.want(summary, object{"failed": 0, "notReached": 0}); status != 0 {
			i.t.Errorf("status %d: %v", status, results)
		}
		for what, want := range map[string]int{
			`users`: n, `stores`: n, `stores WHERE status = 'active'`: n, `store_members WHERE role = 'owner'`: n, `store_databases`: n, `credit_balances`: n,
			`store_hostnames`: n, `provisioning_runs WHERE state IN ('queued', 'running')`: 0,
		} {
			if got := i.count(what); got != want {
				i.t.Errorf("%d %s, want %d", got, what, want)
			}
		}
		s := startServer(i.t, i.cfg)
		for _, r := range results {
			lease, err := s.Tenants.Acquire(i.t.Context(), parseStore(i.t, r["store"].(string)))
			testkit.Must(i.t, err)
			var n int
			err = lease.Get(i.t.Context(), &n, `SELECT count(*) FROM stores WHERE description = 'Imported' AND currency = 'EUR' AND slug = ?`, r["slug"])
			lease.Release()
			if err != nil || n != 1 {
				i.t.Errorf("%d profiles of %s: %v", n, r["slug"], err)
			}
		}
		if status, _, summary := i.run(file); status != 0 || summary["kept"] != float64(n) {
			i.t.Errorf("status %d: %v", status, summary)
		}
	})
}

// kill starts an import in a process of its own and ends it as 'kill -9' does, once the
// master has that many more of the rows.
func (i importing) kill(file, rows string, more int) {
	i.t.Helper()
	self, err := os.Executable()
	testkit.Must(i.t, err)
	enough := i.count(rows) + more
	cmd := exec.CommandContext(i.t.Context(), self, "-test.run="+onlyCommandProcess)
	cmd.Env = append(os.Environ(), commandProcess+"=stores import "+file, "STOA_DATA_DIR="+i.cfg.DataDir, "MASTER_DB_URL="+i.cfg.MasterDBURL.Reveal(),
		"STOA_PROVISIONING_CLAIM=5s")
	stdin, err := cmd.StdinPipe()
	testkit.Must(i.t, err)
	defer stdin.Close() //nolint:errcheck // the command ends with it, or has ended
	testkit.Must(i.t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); i.count(rows) < enough && time.Now().Before(deadline); {
		select {
		case <-tick.C:
			continue
		case <-ended:
		}
		break
	}
	_ = cmd.Process.Kill()
	<-ended
}
