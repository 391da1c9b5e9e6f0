package app_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// ownPostgres is a PostgreSQL server of one test, which may stop and freeze it.
type ownPostgres struct {
	t        *testing.T
	bin, dir string
	as       *syscall.SysProcAttr // PostgreSQL does not run as root
	password string
	port     string
	settings []string // additional settings, as arguments
	server   *exec.Cmd
	log      bytes.Buffer // read after the server has ended
	env      []string     // additional environment variables
}

// postgresBin finds the programs where scripts/with-servers finds them.
func postgresBin(t *testing.T) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(found, func(a, b string) int {
		version := func(path string) int { n, _ := strconv.Atoi(filepath.Base(filepath.Dir(path))); return n }
		return version(b) - version(a)
	})
	if out, err := exec.CommandContext(t.Context(), "pg_config", "--bindir").Output(); err == nil {
		found = append(found, strings.TrimSpace(string(out)))
	}
	for _, dir := range found {
		if !config.Missing(filepath.Join(dir, "initdb")) && !config.Missing(filepath.Join(dir, "postgres")) {
			return dir
		}
	}
	if os.Getenv(masterdbtest.PostgresEnv) == "" {
		masterdbtest.Engines() // fails when the environment requires the servers
		t.Skip("PostgreSQL is not installed here")
	}
	t.Fatal("there is a PostgreSQL server, but its programs were not found")
	return ""
}

// newOwnPostgres starts a server on loopback.
func newOwnPostgres(t *testing.T) *ownPostgres {
	t.Helper()
	p := &ownPostgres{t: t, bin: postgresBin(t), password: rand.Text()}
	p.makeDir()
	p.initialise()
	p.start()
	return p
}

// makeDir gives the server a directory and a port, and stops it at the end of the test.
func (p *ownPostgres) makeDir() {
	t := p.t
	t.Helper()
	p.as = &syscall.SysProcAttr{}
	dir, err := os.MkdirTemp("", "stoa-own-postgres-") // other users cannot enter the parents of t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p.dir = dir
	if os.Geteuid() == 0 {
		p.dropRoot()
	}
	_, p.port, _ = net.SplitHostPort(closedPort(t))
	t.Cleanup(func() {
		if p.server != nil {
			p.stop()
		}
	})
}

func (p *ownPostgres) initialise() {
	t, dir := p.t, p.dir
	t.Helper()
	secret := filepath.Join(dir, "password")
	if err := os.WriteFile(secret, []byte(p.password), 0o600); err != nil {
		t.Fatal(err)
	}
	p.give(secret)
	initdb := p.command("initdb", "-D", p.data(), "-U", "stoa", "--pwfile="+secret, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
}

// dropRoot makes the programs run as the user of Debian's package, or as nobody.
func (p *ownPostgres) dropRoot() {
	p.t.Helper()
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		p.t.Fatal(err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	p.as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	p.give(p.dir)
}

// give makes the programs' user the owner of a file.
func (p *ownPostgres) give(path string) {
	p.t.Helper()
	if c := p.as.Credential; c != nil {
		if err := os.Chown(path, int(c.Uid), int(c.Gid)); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *ownPostgres) data() string { return filepath.Join(p.dir, "data") }

func (p *ownPostgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir, cmd.SysProcAttr = p.dir, p.as
	cmd.Env = append([]string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}, p.env...)
	return cmd
}

// start starts the server and returns when it answers. Commits reach the operating
// system, which survives a kill of the server; without fsync they are fast.
func (p *ownPostgres) start() {
	p.t.Helper()
	args := []string{"-D", p.data(), "-p", p.port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
		"-c", "fsync=off", "-c", "max_connections=100", "-c", "shared_buffers=32MB"}
	for _, setting := range p.settings {
		args = append(args, "-c", setting)
	}
	p.server = p.command("postgres", args...)
	p.server.Stdout, p.server.Stderr = &p.log, &p.log
	if err := p.server.Start(); err != nil {
		p.t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		conn, err := pgx.Connect(ctx, p.url())
		if err == nil {
			_ = conn.Close(ctx)
		}
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			p.stop()
			p.t.Fatalf("PostgreSQL does not answer: %v\n%s", err, &p.log)
		}
	}
}

// stop makes PostgreSQL's immediate shutdown: connections are cut, and the next start
// recovers.
func (p *ownPostgres) stop() {
	p.signal(syscall.SIGCONT)
	_ = p.server.Process.Signal(syscall.SIGQUIT)
	_ = p.server.Wait()
	p.server = nil
}

// freeze stops every process of the server: its connections stay open and nothing
// answers, as on a machine whose disk does not respond. thaw or the end of the test
// resumes it.
func (p *ownPostgres) freeze() { p.signal(syscall.SIGSTOP) }
func (p *ownPostgres) thaw()   { p.signal(syscall.SIGCONT) }

// signal signals the server and its children. It lists the children before and after:
// those of an ended server are no longer its children, and the server may start others
// meanwhile.
func (p *ownPostgres) signal(s syscall.Signal) {
	children := childrenOf(p.server.Process.Pid)
	_ = p.server.Process.Signal(s)
	for _, child := range append(children, childrenOf(p.server.Process.Pid)...) {
		_ = syscall.Kill(child, s)
	}
}

// kill kills every process of the server, frozen or not.
func (p *ownPostgres) kill() {
	p.signal(syscall.SIGSTOP) // so that it starts no further children
	p.signal(syscall.SIGKILL)
	_ = p.server.Wait()
	p.server = nil
}

// childrenOf returns a process's children, from Linux's /proc.
func childrenOf(parent int) (children []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // the process has ended
		}
		// The program's name, in parentheses, may contain any character.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			children = append(children, child)
		}
	}
	return children
}

func (p *ownPostgres) url() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("stoa", p.password), Host: fmt.Sprintf("127.0.0.1:%s", p.port), Path: "/postgres", RawQuery: "sslmode=disable"}
	return u.String()
}
