package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
	"github.com/jackc/pgx/v5"
)

// timing is how long a list or a command took.
type timing struct {
	Name   string  `json:"name"`
	MS     float64 `json:"ms"`               // median
	MemMiB float64 `json:"memMib,omitempty"` // of a command: resident at its peak
}

// scaleLists are the lists that are measured: the operator's pages and calls, and those of
// an owner who has as many stores as the quota allows. STORE is such a store.
var scaleLists = []struct{ name, path string }{
	{"owner: stores", "/api/stores"},
	{"owner: console", "/stores"},
	{"owner: audit log", "/api/stores/STORE/audit"},
	{"owner: transactions", "/api/credits/transactions?storeId=STORE"},
	{"owner: events", "/api/stores/STORE/events"},
	{"owner: archives", "/api/stores/STORE/backups"},
	{"owner: members", "/api/stores/STORE/members"},
	{"operator: glance", "/operator"},
	{"operator: stores", "/operator/stores"},
	{"operator: stores by slug", "/operator/stores?sort=slug"},
	{"operator: stores, search", "/operator/stores?q=shop-00"},
	{"operator: stores, suspended", "/operator/stores?status=suspended"},
	{"operator: stores, unreachable", "/operator/stores?health=unreachable"},
	{"operator: stores, failing", "/operator/stores?health=failing"},
	{"operator: stores, slow", "/operator/stores?health=slow"},
	{"operator: stores, behind", "/operator/stores?behind=1"},
	{"operator: stores of a server", "/operator/stores?server=db6.shops.example:5432"},
	{"operator: stores, suspended and unreachable", "/operator/stores?status=suspended&health=unreachable"},
	{"operator: stores, API", "/api/operator/stores"},
	{"operator: users", "/operator/users"},
	{"operator: users, search", "/operator/users?q=owner-1"},
	{"operator: users, suspended", "/operator/users?only=suspended"},
	{"operator: servers", "/operator/servers"},
	{"operator: runs", "/operator/runs"},
	{"operator: migrations", "/operator/migrations"},
	{"operator: jobs", "/operator/jobs"},
	{"operator: completed jobs", "/operator/jobs?state=completed"},
	{"operator: mail", "/operator/mail"},
	{"operator: audit log", "/operator/audit"},
	{"operator: audit log of an action", "/operator/audit?action=auth.signed_in"},
	{"operator: credits", "/operator/credits"},
	{"operator: payments", "/operator/payments"},
	{"operator: system", "/operator/system"},
}

// measureLists measures each list once for all requests before the next one.
func (s *scaler) measureLists(ctx context.Context, size *scaleSize) error {
	var store string
	if err := s.watched.QueryRow(ctx, `SELECT id::text FROM stores WHERE slug = 'shop-0000001'`).Scan(&store); err != nil {
		return err
	}
	for _, list := range scaleLists {
		address := "http://" + s.address + strings.ReplaceAll(list.path, "STORE", store)
		var took []float64
		for range s.Requests {
			begin := time.Now()
			if err := s.get(ctx, address); err != nil {
				return err
			}
			took = append(took, inMS(time.Since(begin)))
		}
		size.Lists = append(size.Lists, timing{Name: list.name, MS: median(took)})
	}
	return nil
}

// get reads a page with the operator's session or, for the API, with their token.
func (s *scaler) get(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	client := s.browser
	if strings.HasPrefix(req.URL.Path, "/api/") {
		client = keepAlive
		req.Header.Set("Authorization", "Bearer "+s.owner.token)
	}
	return readPage(client, req)
}

// scaleCommands are the commands that list, listingCommands of them, and doctor, which
// checks. The first lists nothing: it shows what the start of a command takes.
var scaleCommands = [][]string{
	{"stores", "show", "shop-0000001"},
	{"stores", "list"},
	{"stores", "list", "--status", "suspended"},
	{"users", "list"},
	{"users", "list", "--operators"},
	{"keys", "list"},
	{"payments", "list"},
	{"tenants", "status"},
	{"doctor"},
	{"doctor", "--fleet"},
}

const listingCommands = 8

// measureCommands measures whole processes, with the memory that they took.
func (s *scaler) measureCommands(ctx context.Context, size *scaleSize) error {
	for _, args := range scaleCommands {
		name := "stoa " + strings.Join(args, " ")
		var took, memory []float64
		for range s.Starts {
			begin := time.Now()
			cmd := exec.CommandContext(ctx, s.binary, args...) //nolint:gosec // built by this program
			cmd.Dir, cmd.Env = s.folder, s.environment(s.data())
			err := cmd.Run()
			if ended := (*exec.ExitError)(nil); errors.As(err, &ended) && args[0] == "doctor" {
				err = nil // it finds that no mail is sent
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			took = append(took, inMS(time.Since(begin)))
			if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
				memory = append(memory, float64(usage.Maxrss)/1024)
			}
		}
		size.Commands = append(size.Commands, timing{Name: name, MS: median(took), MemMiB: median(memory)})
	}
	return nil
}

// measureBackup measures one backup of the whole master, which ends in a file.
func (s *scaler) measureBackup(ctx context.Context, size *scaleSize) error {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	file := filepath.Join(s.folder, "master.stoa")
	defer os.Remove(file)                                                                       //nolint:errcheck // the folder is removed at the end
	cmd := exec.CommandContext(ctx, s.binary, "backup", "--master", "--json", "--output", file) //nolint:gosec // built by this program
	cmd.Dir, cmd.Env = s.folder, append(s.environment(s.data()), "STOA_BACKUP_RECIPIENTS="+identity.Recipient().String())
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("stoa backup --master: %w", err)
	}
	var result struct{ Bytes, Seconds float64 }
	if err := json.Unmarshal(out, &result); err != nil {
		return err
	}
	size.BackupSeconds, size.BackupBytes = result.Seconds, result.Bytes
	return nil
}

// measureIdle counts what one idle server asks of the master.
func (s *scaler) measureIdle(ctx context.Context, size *scaleSize) error {
	if err := wait(ctx, s.settle); err != nil { // what came before is counted
		return err
	}
	begin, from, err := s.counted(ctx)
	if err != nil {
		return err
	}
	if err := wait(ctx, s.Idle); err != nil {
		return err
	}
	end, to, err := s.counted(ctx)
	if err != nil {
		return err
	}
	minutes := end.Sub(begin).Minutes()
	size.Transactions, size.RowsRead = float64(to[0]-from[0])/minutes, float64(to[1]-from[1])/minutes
	if size.Connections, err = s.databases.masterConnections(ctx); err != nil {
		return err
	}
	scrape := time.Now()
	if err := s.get(ctx, "http://"+s.private+"/metrics"); err != nil {
		return err
	}
	size.ScrapeMS = inMS(time.Since(scrape))
	return nil
}

// counted returns the transactions and the rows that were read in the master database.
func (s *scaler) counted(ctx context.Context) (at time.Time, n [2]int64, err error) {
	err = s.databases.admin.QueryRow(ctx, `SELECT xact_commit + xact_rollback, tup_returned + tup_fetched FROM pg_stat_database WHERE datname = $1`,
		s.databases.run+"_"+master).Scan(&n[0], &n[1])
	return time.Now(), n, err
}

func (s *scaler) masterTime(ctx context.Context) (now time.Time, err error) {
	err = s.watched.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now)
	return now, err
}

// measureSweeps reads how long the periodic jobs took since a time.
func (s *scaler) measureSweeps(ctx context.Context, size *scaleSize, since time.Time) error {
	rows, err := s.watched.Query(ctx, `SELECT kind, (percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM finalized_at - attempted_at)) * 1000)::float8
		FROM river_job WHERE state = 'completed' AND attempted_at > $1 AND metadata @> '{"periodic": true}' GROUP BY kind`, since)
	if err != nil {
		return err
	}
	var kind string
	var ms float64
	_, err = pgx.ForEachRow(rows, []any{&kind, &ms}, func() error {
		size.Sweeps[kind] = ms
		return nil
	})
	return err
}

// table is one table of the master with its indexes.
type table struct {
	Name  string  `json:"name"`
	Bytes float64 `json:"bytes"`
	Rows  float64 `json:"rows"`
}

func (s *scaler) measureTables(ctx context.Context, size *scaleSize) error {
	m, err := readMemory(s.process.pid())
	if err != nil {
		return err
	}
	size.PeakMemoryMiB = m.peak
	if err := s.watched.QueryRow(ctx, `SELECT pg_database_size(current_database())::float8`).Scan(&size.Bytes); err != nil {
		return err
	}
	rows, err := s.watched.Query(ctx, `SELECT relname AS name, pg_total_relation_size(oid)::float8 AS bytes, greatest(reltuples, 0)::float8 AS rows
		FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 2 DESC`)
	if err != nil {
		return err
	}
	size.Tables, err = pgx.CollectRows(rows, pgx.RowToStructByName[table])
	return err
}
