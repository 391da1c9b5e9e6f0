package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// master is the name of the platform's own database.
const master = "master"

// databases creates databases on one server and drops them at the end.
type databases struct {
	admin  *pgxpool.Pool
	server *url.URL
	run    string // prefix of every name, so that several runs can share a server

	mu   sync.Mutex
	made []string
}

func openDatabases(ctx context.Context, server string) (*databases, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, errors.New("the PostgreSQL address must be a URL") // err would contain the password
	}
	admin, err := pgxpool.New(ctx, server)
	if err != nil {
		return nil, err
	}
	return &databases{admin: admin, server: u, run: "stoa_bench_" + strings.ToLower(rand.Text()[:8])}, nil
}

// create creates a database and a role that owns it, and returns the URL for that role.
func (d *databases) create(ctx context.Context, name string) (string, error) {
	name, password := d.run+"_"+name, rand.Text()
	d.remember(name)
	for _, statement := range []string{
		fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD '%s'`, name, password),
		fmt.Sprintf(`CREATE DATABASE %s OWNER %s`, name, name),
	} {
		if _, err := d.admin.Exec(ctx, statement); err != nil {
			return "", err
		}
	}
	return d.address(name, url.UserPassword(name, password)), nil
}

// template is a database to copy: a copy of one in which a store was set up, without the
// store. The copies belong to the template's owner, so that one role serves all.
type template struct {
	name  string
	owner *url.Userinfo
}

// makeTemplate copies the database at databaseURL, which loses its connections. It removes
// the store, its owner and the store's ownership mark from the copy. The rest is a migrated
// and seeded database.
func (d *databases) makeTemplate(ctx context.Context, databaseURL string) (template, error) {
	origin, err := url.Parse(databaseURL)
	if err != nil {
		return template{}, errors.New("the store's database has no proper address")
	}
	t := template{name: d.run + "_template", owner: origin.User}
	from := strings.TrimPrefix(origin.Path, "/")
	_, err = d.admin.Exec(ctx, `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1`, from)
	if err != nil {
		return template{}, err
	}
	if err := d.copy(ctx, from, t.name, t.owner); err != nil {
		return template{}, err
	}
	conn, err := pgx.Connect(ctx, d.address(t.name, t.owner))
	if err != nil {
		return template{}, err
	}
	_, err = conn.Exec(ctx, `DELETE FROM users; DELETE FROM stores; DELETE FROM stoa_tenant`)
	return t, errors.Join(err, conn.Close(ctx)) // the connection must be closed before the first copy
}

// createFrom copies the template and returns the URL of the copy.
func (d *databases) createFrom(ctx context.Context, t template, name string) (string, error) {
	name = d.run + "_" + name
	return d.address(name, t.owner), d.copy(ctx, t.name, name, t.owner)
}

func (d *databases) copy(ctx context.Context, from, to string, owner *url.Userinfo) error {
	d.remember(to)
	_, err := d.admin.Exec(ctx, fmt.Sprintf(`CREATE DATABASE %s TEMPLATE %s OWNER %s`, to, from, owner.Username()))
	return err
}

func (d *databases) remember(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.made = append(d.made, name)
}

func (d *databases) address(name string, user *url.Userinfo) string {
	u := *d.server
	u.User, u.Path, u.RawQuery = user, "/"+name, "sslmode=disable"
	return u.String()
}

// connections counts the server's connections to stores' databases, by application_name.
func (d *databases) connections(ctx context.Context) (map[string]int, error) {
	return d.byApplication(ctx, `backend_type = 'client backend' AND starts_with(datname::text, $1) AND datname <> $2`, d.run, d.run+"_"+master)
}

// masterConnections counts the platform's connections to the master, by application_name.
func (d *databases) masterConnections(ctx context.Context) (map[string]int, error) {
	return d.byApplication(ctx, `datname = $1 AND application_name LIKE 'stoa%'`, d.run+"_"+master)
}

func (d *databases) byApplication(ctx context.Context, condition string, args ...any) (map[string]int, error) {
	rows, err := d.admin.Query(ctx, `SELECT application_name, count(*) FROM pg_stat_activity WHERE `+condition+` GROUP BY application_name`, args...)
	if err != nil {
		return nil, err
	}
	counts := map[string]int{}
	var name string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&name, &n}, func() error {
		counts[name] = n
		return nil
	})
	return counts, err
}

// drop drops the database at an address. Its role stays until the end.
func (d *databases) drop(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	_, err = d.admin.Exec(ctx, fmt.Sprintf(`DROP DATABASE IF EXISTS %s WITH (FORCE)`, strings.TrimPrefix(u.Path, "/")))
	return err
}

// dropAll also drops partly created items. It drops databases first, because a role may own
// several.
func (d *databases) dropAll(ctx context.Context) error {
	defer d.admin.Close()
	err := inParallel(ctx, len(d.made), func(ctx context.Context, i int) error {
		_, err := d.admin.Exec(ctx, fmt.Sprintf(`DROP DATABASE IF EXISTS %s WITH (FORCE)`, d.made[i]))
		return err
	})
	if err != nil {
		return err
	}
	return inParallel(ctx, len(d.made), func(ctx context.Context, i int) error {
		_, err := d.admin.Exec(ctx, fmt.Sprintf(`DROP ROLE IF EXISTS %s`, d.made[i]))
		return err
	})
}
