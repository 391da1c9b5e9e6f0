package provisioning

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// injection is a fault that is injected into a step of an execution.
type injection struct {
	name  string
	end   func(context.Context) error // how the step ends
	code  stoa.Code                   // why the run then fails
	hangs bool                        // until the execution times out
}

// injections are all injected faults except the end of the process.
var injections = []injection{
	{"an error", func(context.Context) error { return errors.New("an error without a code") }, stoa.Internal, false},
	{"a panic", func(context.Context) error { panic("a bug") }, stoa.Internal, false},
	{"a hang", func(ctx context.Context) error {
		<-ctx.Done()
		return stoa.Errorf(stoa.DatabaseUnreachable, "The database server does not answer.").WithCause(ctx.Err())
	}, stoa.DatabaseUnreachable, true},
}

// disturb replaces the work of the i-th step by end. With after set, the step's own work
// is done first.
func (w *execution) disturb(i int, end func(context.Context) error, after bool) {
	w.steps = slices.Clone(w.steps)
	do := w.steps[i].do
	w.steps[i].do = func(w *execution, ctx context.Context) error {
		if after && do != nil {
			if err := do(w, ctx); err != nil {
				return err
			}
		}
		return end(ctx)
	}
}

// disturbed executes the run until the injection has ended it.
func (b fixture) disturbed(t *testing.T, run Run, i int, in injection, after bool) {
	t.Helper()
	w, err := b.Service.begin(t.Context(), job(run))
	testkit.Must(t, err)
	ctx := expiring{t.Context(), make(chan struct{})}
	w.disturb(i, func(inner context.Context) error {
		if in.hangs {
			close(ctx.done) // the execution times out
		}
		return in.end(inner)
	}, after)
	if err := w.execute(ctx); err != nil && !errors.Is(err, lease.ErrLost) {
		t.Fatalf("the queue would run the job again: %v", err)
	}
}

// ways are the actions by which an owner continues after a run has failed.
var ways = map[string]func(fixture, context.Context, authz.Principal, stoa.StoreID, credential.Credentials) (Run, error){
	"retry": func(b fixture, ctx context.Context, p authz.Principal, store stoa.StoreID, _ credential.Credentials) (Run, error) {
		return b.Retry(ctx, p, store)
	},
	"connect": func(b fixture, ctx context.Context, p authz.Principal, store stoa.StoreID, c credential.Credentials) (Run, error) {
		return b.Connect(ctx, p, store, c)
	},
}

// goesOn checks that the owner can use the store at once, and that it opens after the
// action way.
func (b fixture) goesOn(t *testing.T, p authz.Principal, store stoa.StoreID, way string, c credential.Credentials) {
	t.Helper()
	if status := b.status(t, store); status != stores.PendingDatabase {
		t.Errorf("the store is %s", status)
	}
	run, err := ways[way](b, t.Context(), p, store, c)
	testkit.Must(t, err)
	testkit.Must(t, b.Provision(t.Context(), job(run)))
	run, err = b.Latest(t.Context(), p, store)
	testkit.Must(t, err)
	b.succeeded(t, p, run)
	b.checkOwner(t, p, store)
}

// TestStoreStaysUsable checks that, after any fault in any step, the store can be
// connected, and the same run can be resumed.
func TestStoreStaysUsable(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		for i, step := range steps {
			for _, in := range injections {
				for way := range ways {
					t.Run(fmt.Sprintf("%s/%s/%s", step.name, in.name, way), func(t *testing.T) {
						p, s := b.store(t)
						run, err := b.Connect(t.Context(), p, s.ID, managedCredentials)
						testkit.Must(t, err)
						b.disturbed(t, run, i, in, false)
						run, err = b.Latest(t.Context(), p, s.ID)
						testkit.Must(t, err)
						b.failed(t, p, run, step.name, in.code)
						b.goesOn(t, p, s.ID, way, managedCredentials)
					})
				}
			}
			for way := range ways {
				t.Run(step.name+"/deaths/"+way, func(t *testing.T) {
					p, s := b.store(t)
					run, err := b.Connect(t.Context(), p, s.ID, managedCredentials)
					testkit.Must(t, err)
					w, err := b.Service.begin(t.Context(), job(run))
					testkit.Must(t, err)
					for before := range i {
						w.doStep(t, before)
					}
					b.crash(t, w)
					for range maxCrashes {
						testkit.Must(t, b.diesAt(t, run, i))
					}
					testkit.Must(t, b.Provision(t.Context(), job(run)))
					run, err = b.Latest(t.Context(), p, s.ID)
					testkit.Must(t, err)
					b.failed(t, p, run, step.name, stoa.ProvisioningCrashed)
					b.goesOn(t, p, s.ID, way, managedCredentials)
				})
			}
		}
	})
}

// diesAt ends an execution in the i-th step as the end of its process does. The execution
// may fail to start.
func (b fixture) diesAt(t *testing.T, run Run, i int) error {
	t.Helper()
	w, err := b.Service.begin(t.Context(), job(run))
	if err != nil {
		return err
	}
	if w.crashes < maxCrashes {
		if next := w.run.next(0); next != steps[i].name {
			t.Errorf("the run goes on at %s, want %s", next, steps[i].name)
		}
	}
	b.crash(t, w)
	return nil
}

// TestStoreStaysUsableAtServers is the same test with real servers, where the work of the
// step before the fault stays.
func TestStoreStaysUsableAtServers(t *testing.T) {
	t.Parallel()
	b := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
	for _, engine := range tenantdbtest.Engines()[1:] {
		for i, step := range steps[:len(steps)-1] { // after activate the run has succeeded
			in := injections[i%len(injections)]
			t.Run(fmt.Sprintf("%s/%s/%s", engine, step.name, in.name), func(t *testing.T) {
				p, s := b.store(t)
				c := credentials(t, engine)
				run, err := b.Connect(t.Context(), p, s.ID, c)
				testkit.Must(t, err)
				b.disturbed(t, run, i, in, true)
				b.goesOn(t, p, s.ID, []string{"retry", "connect"}[i%2], c)
			})
		}
	}
}

// hostileServer answers each connection with talk. It is closed when the test ends.
func hostileServer(t *testing.T, talk func(net.Conn)) (host string, port int) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				talk(conn)
			}()
		}
	}()
	return "127.0.0.1", listener.Addr().(*net.TCPAddr).Port
}

// talks are the answers of servers that are hostile or not database servers.
var talks = map[string]func(net.Conn){
	"hangs up":   func(net.Conn) {},
	"one byte":   func(c net.Conn) { _, _ = c.Write([]byte{0xff}) },
	"zero bytes": func(c net.Conn) { _, _ = c.Write(make([]byte, 1<<16)) },
	"HTTP":       func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") },
	"an error of one byte": func(c net.Conn) { // MySQL
		_, _ = c.Write([]byte{1, 0, 0, 0, 0xff})
	},
	"an endless greeting": func(c net.Conn) {
		for err := error(nil); err == nil; {
			_, err = c.Write([]byte(strings.Repeat("x", 1<<16)))
		}
	},
}

// TestHostileServerLeavesTheStoreUsable checks that neither a test of a hostile server
// nor a connection to it changes what the store can do next.
func TestHostileServerLeavesTheStoreUsable(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.opts.Pauses = []time.Duration{}
		for name, talk := range talks {
			for _, engine := range []credential.EngineName{credential.PostgreSQL, credential.MySQL} {
				t.Run(string(engine)+"/"+name, func(t *testing.T) {
					host, port := hostileServer(t, talk)
					hostile := credential.Credentials{
						Kind: credential.Kind(engine), Engine: engine, Host: host, Port: port,
						Database: "d", User: "u", Password: keyring.NewSecret("p"), TLS: credential.TLSDisable,
					}
					p, s := b.store(t)
					found, err := b.Test(t.Context(), p, s.ID, &hostile)
					if err == nil && found.Fault == nil {
						t.Errorf("the test found nothing: %+v", found)
					}
					run, err := b.Connect(t.Context(), p, s.ID, hostile)
					testkit.Must(t, err)
					testkit.Must(t, b.Provision(t.Context(), job(run)))
					run, err = b.Latest(t.Context(), p, s.ID)
					testkit.Must(t, err)
					if run.State != Failed || run.Step != "connect" {
						t.Errorf("the run is %s at %s", run.State, run.Step)
					}
					run = b.retryNow(t, p, s.ID)
					if run.State != Failed {
						t.Errorf("the run is %s at %s", run.State, run.Step)
					}
					b.goesOn(t, p, s.ID, "connect", managedCredentials)
				})
			}
		}
	})
}

// TestFaultOfAnyWords checks that a failure is recorded, whatever text of a server its
// message contains.
func TestFaultOfAnyWords(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		for name, words := range map[string]string{
			"long": strings.Repeat("é", 1<<20), "zero bytes": "a\x00b", "invalid UTF-8": "a\xff\xc3", "cut within a character": strings.Repeat("x", stoa.MaxMessage-4) + "éé",
			"tables of a hostile server": listTables([]string{strings.Repeat("t", 1<<20), "b\x00", "\xff", "d"}),
		} {
			t.Run(name, func(t *testing.T) {
				p, s := b.store(t)
				run, err := b.Connect(t.Context(), p, s.ID, managedCredentials)
				testkit.Must(t, err)
				b.disturbed(t, run, 0, injection{end: func(context.Context) error { return stoa.Errorf(stoa.DatabaseNotEmpty, "%s", words) }}, false)
				run, err = b.Latest(t.Context(), p, s.ID)
				testkit.Must(t, err)
				b.failed(t, p, run, "connect", stoa.DatabaseNotEmpty)
				if m := run.Fault.Message; len(m) > stoa.MaxMessage+2*len("\uFFFD") || !utf8.ValidString(m) || strings.Contains(m, "\x00") {
					t.Errorf("a message of %d bytes is recorded", len(m))
				}
			})
		}
	})
}
