package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

const (
	sideRead, sideReadPeer   = "read", "readPocketBase"
	sideWrite, sideWritePeer = "write", "writePocketBase"
)

// pocketbase measures calls of a signed-in user on SQLite beside PocketBase: both check
// the token and the right, and read or add one record. The platform reads a store's profile,
// from the master and from the store's own database, and adds a spend to a ledger, with its event;
// PocketBase reads and adds a record of two fields in one database.
func (cmd peersCmd) pocketbase(ctx context.Context) (err error) {
	folder, err := os.MkdirTemp("", "stoa-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	progress("building and starting stoa")
	p, err := buildPlatform(ctx, folder, "sqlite:"+filepath.Join(folder, "master.db"))
	if err != nil {
		return err
	}
	if err := p.start(ctx, nil); err != nil {
		return err
	}
	defer p.process.stop()
	f := &fleet{platform: p}
	if f.owner, err = register(ctx, p.address); err != nil {
		return err
	}
	store, err := openEmbedded(ctx, f, "peer")
	if err != nil {
		return err
	}
	if err := enrich(ctx, f, store); err != nil {
		return err
	}
	progress("building and starting PocketBase")
	peer, err := startPocketBase(ctx, folder)
	if err != nil {
		return err
	}
	defer peer.process.stop()
	records := "/api/collections/spends/records"
	var record struct{ ID string }
	if err := peer.user.call(ctx, http.MethodPost, records, object{"amount": 1, "store": store.id}, &record); err != nil {
		return err
	}
	sides := []side{
		cmd.call(sideReadPeer, "read, PocketBase", peer.address, target{Path: records + "/" + record.ID, Marker: record.ID, Token: peer.user.token}),
		cmd.call(sideRead, "read, stoa", p.address, target{Path: "/api/stores/" + store.id, Marker: store.id, Token: f.owner.token}),
		cmd.call(sideWritePeer, "write, PocketBase", peer.address, target{Path: records, Marker: `"id":`, Token: peer.user.token, Body: `{"amount":1,"store":"` + store.id + `"}`}),
		cmd.call(sideWrite, "write, stoa", p.address, target{Path: "/api/credits/spend?storeId=" + store.id, Marker: `"transaction"`, Token: f.owner.token, Body: `{"amount":"1"}`}),
	}
	if err := warmUp(ctx, sides); err != nil {
		return err
	}
	rounds, err := takeTurns(ctx, cmd.Rounds, sides, runSide)
	if err != nil {
		return err
	}
	r := newReport("peers: PocketBase", sides, rounds)
	r.About = fmt.Sprintf("one store on SQLite, one signed-in user, %d connections of load, %d rounds of %gs, medians", cmd.Connections, cmd.Rounds, cmd.Duration.Seconds())
	r.tell("reads of a store, of PocketBase's of a record", r.throughput(sideRead, sideReadPeer))
	r.tell("spends, of PocketBase's new records", r.throughput(sideWrite, sideWritePeer))
	return r.finish(cmd.JSON)
}

func (cmd peersCmd) call(name, label, address string, t target) side {
	t.Host = "localhost"
	return side{name, label, cmd.WarmUp, job{Address: address, Connections: cmd.Connections, Duration: cmd.Duration, Draw: goRound, Targets: []target{t}}}
}

// pocketBase is a running PocketBase with the collection spends and one user.
type pocketBase struct {
	address string
	process *process
	user    *owner
}

// startPocketBase builds and starts it in a folder below folder.
func startPocketBase(ctx context.Context, folder string) (*pocketBase, error) {
	const administrator, user, password = "admin@bench.example", "user@bench.example", "many-shops-under-1-roof"
	binary, data := filepath.Join(folder, "pocketbase"), filepath.Join(folder, "pb_data")
	for _, command := range [][]string{
		{"go", "build", "-C", "pocketbase", "-o", binary, "."},
		{binary, "superuser", "upsert", administrator, password, "--dir", data},
	} {
		if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil { //nolint:gosec // constants, and a folder of this program
			return nil, fmt.Errorf("%s: %w: %s", command[0], err, out)
		}
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	p := &pocketBase{address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	if p.process, err = launch(exec.CommandContext(context.WithoutCancel(ctx), binary, "serve", "--http", p.address, "--dir", data)); err != nil { //nolint:gosec // built by this program
		return nil, err
	}
	if p.user, err = p.setUp(ctx, administrator, user, password); err != nil {
		p.process.stop()
		return nil, err
	}
	return p, nil
}

func (p *pocketBase) setUp(ctx context.Context, administrator, user, password string) (*owner, error) {
	signIn := func(collection, email string) (*owner, error) {
		o := &owner{address: p.address}
		var session struct{ Token string }
		err := o.call(ctx, http.MethodPost, "/api/collections/"+collection+"/auth-with-password", object{"identity": email, "password": password}, &session)
		o.token = session.Token
		return o, err
	}
	var admin *owner
	var err error
	for range 100 { // until it listens
		if admin, err = signIn("_superusers", administrator); err == nil || p.process.ended() != nil {
			break
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	const signedIn = `@request.auth.id != ""`
	err = admin.call(ctx, http.MethodPost, "/api/collections", object{
		"name": "spends", "type": "base", "viewRule": signedIn, "createRule": signedIn,
		"fields": []object{{"name": "amount", "type": "number"}, {"name": "store", "type": "text"}},
	}, nil)
	if err != nil {
		return nil, err
	}
	if err := admin.call(ctx, http.MethodPost, "/api/collections/users/records", object{"email": user, "password": password, "passwordConfirm": password}, nil); err != nil {
		return nil, err
	}
	return signIn("users", user)
}
