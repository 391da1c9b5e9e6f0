package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgxpool"
)

// databases makes databases on one server, each with a role of its own, and
// drops what it made.
type databases struct {
	admin  *pgxpool.Pool
	server *url.URL
	run    string // begins every name, so that several runs can share a server

	mu   sync.Mutex
	made []string
}

func openDatabases(ctx context.Context, server string) (*databases, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, errors.New("the PostgreSQL address must be a URL") // err would show the password
	}
	admin, err := pgxpool.New(ctx, server)
	if err != nil {
		return nil, err
	}
	return &databases{admin: admin, server: u, run: "stoa_bench_" + strings.ToLower(rand.Text()[:8])}, nil
}

// create makes a database and returns the URL at which its role owns it.
func (d *databases) create(ctx context.Context, name string) (string, error) {
	name, password := d.run+"_"+name, rand.Text()
	d.mu.Lock()
	d.made = append(d.made, name)
	d.mu.Unlock()
	for _, statement := range []string{
		fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD '%s'`, name, password),
		fmt.Sprintf(`CREATE DATABASE %s OWNER %s`, name, name),
	} {
		if _, err := d.admin.Exec(ctx, statement); err != nil {
			return "", err
		}
	}
	u := *d.server
	u.User, u.Path = url.UserPassword(name, password), "/"+name
	u.RawQuery = "sslmode=disable"
	return u.String(), nil
}

// dropAll also drops what was made in part.
func (d *databases) dropAll(ctx context.Context) error {
	defer d.admin.Close()
	return inParallel(ctx, len(d.made), func(ctx context.Context, i int) error {
		_, err := d.admin.Exec(ctx, fmt.Sprintf(`DROP DATABASE IF EXISTS %s WITH (FORCE)`, d.made[i]))
		if err != nil {
			return err
		}
		_, err = d.admin.Exec(ctx, fmt.Sprintf(`DROP ROLE IF EXISTS %s`, d.made[i]))
		return err
	})
}
