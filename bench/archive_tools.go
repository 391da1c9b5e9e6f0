package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"

	_ "github.com/go-sql-driver/mysql" // the driver of mysqlDatabases

	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// zstdLevel is the tool's level for what archives use: the encoder's default.
const zstdLevel = "-3"

// runTool dumps the database at address into file with the engine's tool and zstd, or
// restores it from there.
func runTool(ctx context.Context, s archiveSide, file, address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return errors.New("the database's address must be a URL") // err would contain the password
	}
	password, _ := u.User.Password()
	plain := *u // without the password, which others could see in the command
	plain.User = url.User(u.User.Username())
	tool, env := []string{"pg_dump", "-Fc", "-Z0", "-d", plain.String()}, "PGPASSWORD="+password
	if s.load {
		tool = []string{"pg_restore", "--no-owner", "--exit-on-error", "-d", plain.String()}
	}
	if s.engine == credential.MySQL {
		name, options := "mariadb-dump", []string{"--single-transaction", "--quick"}
		if s.load {
			name, options = "mariadb", nil
		}
		tool = append([]string{name, "--host=" + u.Hostname(), "--port=" + u.Port(), "--protocol=tcp", "--user=" + u.User.Username()}, options...)
		tool, env = append(tool, strings.TrimPrefix(u.Path, "/")), "MYSQL_PWD="+password
	}
	zstd := []string{"zstd", "-q", "-f", zstdLevel, "-o", file}
	if s.load {
		return pipe(ctx, []string{"zstd", "-q", "-dc", file}, tool, env)
	}
	return pipe(ctx, tool, zstd, env)
}

// pipe runs two commands, of which the second reads what the first writes.
func pipe(ctx context.Context, from, to []string, env string) error {
	var fault bytes.Buffer
	first := exec.CommandContext(ctx, from[0], from[1:]...) //nolint:gosec // the tools of runTool
	second := exec.CommandContext(ctx, to[0], to[1:]...)    //nolint:gosec // the tools of runTool
	first.Env, second.Env = append(os.Environ(), env), append(os.Environ(), env)
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	first.Stdout, second.Stdin, second.Stderr = w, r, &fault
	err = first.Start()
	if err == nil {
		err = second.Start()
	}
	_, _ = w.Close(), r.Close() // the commands have their own handles
	if err != nil {
		return err
	}
	errFirst, errSecond := first.Wait(), second.Wait()
	if err := errors.Join(errFirst, errSecond); err != nil {
		return fmt.Errorf("%s | %s: %w: %s", from[0], to[0], err, bytes.TrimSpace(fault.Bytes()))
	}
	return nil
}

// mysqlDatabases creates databases on one server and drops them at the end.
type mysqlDatabases struct {
	admin  *sql.DB
	server *url.URL
	run    string // prefix of every name
	made   []string
}

func openMySQLDatabases(server, run string) (*mysqlDatabases, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, errors.New("the MySQL address must be a URL") // err would contain the password
	}
	password, _ := u.User.Password()
	admin, err := sql.Open("mysql", fmt.Sprintf("%s:%s@tcp(%s)%s", u.User.Username(), password, u.Host, u.Path))
	return &mysqlDatabases{admin: admin, server: u, run: run}, err
}

// create creates a database and a user of it, and returns the URL for that user.
func (d *mysqlDatabases) create(ctx context.Context, name string) (string, error) {
	name, password := d.run+"_"+name, rand.Text()
	d.made = append(d.made, name)
	for _, statement := range []string{
		"CREATE DATABASE " + name + " CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
		fmt.Sprintf("CREATE USER %s@'%%' IDENTIFIED BY '%s'", name, password),
		fmt.Sprintf("GRANT ALL PRIVILEGES ON %s.* TO %s@'%%'", name, name),
	} {
		if _, err := d.admin.ExecContext(ctx, statement); err != nil {
			return "", err
		}
	}
	u := *d.server
	u.User, u.Path, u.RawQuery = url.UserPassword(name, password), "/"+name, "sslmode=disable"
	return u.String(), nil
}

// drop drops the database at an address. Its user stays until the end.
func (d *mysqlDatabases) drop(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	_, err = d.admin.ExecContext(ctx, "DROP DATABASE IF EXISTS "+strings.TrimPrefix(u.Path, "/"))
	return err
}

func (d *mysqlDatabases) dropAll(ctx context.Context) error {
	defer d.admin.Close() //nolint:errcheck // nothing is pending
	var errs []error
	for _, name := range d.made {
		for _, statement := range []string{"DROP DATABASE IF EXISTS " + name, "DROP USER IF EXISTS " + name + "@'%'"} {
			_, err := d.admin.ExecContext(ctx, statement)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
