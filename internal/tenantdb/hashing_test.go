package tenantdb_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// scram is a server that requests a password by SCRAM.
type scram struct {
	challenge func(nonce string) string
	then      func(net.Conn) // called when the proof has arrived; nil: it refuses the password
	mechanism chan string    // the mechanism that each client has chosen
	proofs    chan []byte
}

func newScram(challenge func(nonce string) string) *scram {
	return &scram{challenge: challenge, mechanism: make(chan string, 100), proofs: make(chan []byte, 100)}
}

// challenged returns a usual challenge with the given iterations.
func challenged(iterations any) func(string) string {
	return func(nonce string) string { return fmt.Sprintf("r=%sserver,s=c2FsdHNhbHRzYWx0,i=%v", nonce, iterations) }
}

func (s *scram) serve(conn net.Conn) {
	b := pgproto3.NewBackend(conn, conn)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	receive := func(asked pgproto3.BackendMessage, as uint32) pgproto3.FrontendMessage {
		b.Send(asked)
		if b.Flush() != nil || b.SetAuthType(as) != nil {
			return nil
		}
		m, _ := b.Receive()
		return m
	}
	first, ok := receive(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"}}, pgproto3.AuthTypeSASL).(*pgproto3.SASLInitialResponse)
	if !ok {
		return
	}
	s.mechanism <- first.AuthMechanism
	_, nonce, _ := bytes.Cut(first.Data, []byte(",r="))
	challenge := &pgproto3.AuthenticationSASLContinue{Data: []byte(s.challenge(string(nonce)))}
	proof, ok := receive(challenge, pgproto3.AuthTypeSASLContinue).(*pgproto3.SASLResponse)
	if !ok {
		return
	}
	s.proofs <- slices.Clone(proof.Data)
	if s.then != nil {
		s.then(conn)
		return
	}
	_, _ = conn.Write(encoded(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: "no"}))
}

// TestSCRAMChallenges checks that a server may choose how much work it takes to
// prove a password, but only within this platform's limits.
func TestSCRAMChallenges(t *testing.T) {
	t.Parallel()
	salted := func(salt string) func(string) string {
		return func(nonce string) string { return "r=" + nonce + "x,s=" + salt + ",i=4096" }
	}
	const refused, tooMany, broken = "refuses this user", "scram_iterations", "does not speak the protocol"
	for name, tt := range map[string]struct {
		challenge func(nonce string) string
		want      string // part of the message
	}{
		"usual":                {challenged(4096), refused},
		"one":                  {challenged(1), refused},
		"most":                 {challenged(screen.MaxIterations), refused},
		"one more":             {challenged(screen.MaxIterations + 1), tooMany},
		"ten million":          {challenged(10_000_000), tooMany},
		"two thousand million": {challenged(2_000_000_000), tooMany},
		"beyond 64 bits":       {challenged("99999999999999999999"), broken},
		"none":                 {challenged(""), broken},
		"zero":                 {challenged(0), broken},
		"negative":             {challenged(-1), broken},
		"signed":               {challenged("+4096"), broken},
		"an extension":         {challenged("4096,x=1"), broken},
		"no number":            {challenged("4096x"), broken},
		"no salt":              {salted(""), broken},
		"no base64":            {salted("!"), broken},
		"long salt":            {salted(strings.Repeat("AAAA", 400)), broken},
		"another nonce":        {func(string) string { return "r=other,s=AAAA,i=4096" }, broken},
		"our nonce alone":      {func(nonce string) string { return "r=" + nonce + ",s=AAAA,i=4096" }, broken},
		"an error":             {func(string) string { return "e=other-error" }, broken},
		"nothing":              {func(string) string { return "" }, broken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newScram(tt.challenge)
			c := at(t, credential.PostgreSQL, credential.TLSDisable, server.serve)
			err := tenantdbtest.Open(t, c).Ping(t.Context())
			code := stoa.DatabaseAuthFailed
			if tt.want == broken {
				code = stoa.DatabaseUnreachable
			}
			checkFault(t, err, code, c)
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
			if proofs := len(server.proofs); proofs != 0 && tt.want != refused {
				t.Errorf("%d proofs were computed", proofs)
			}
		})
	}
}

// TestSCRAMIterationsOfARealServer checks the number of iterations that a real
// server stores with the password and requests.
func TestSCRAMIterationsOfARealServer(t *testing.T) {
	t.Parallel()
	if !slices.Contains(tenantdbtest.Engines(), credential.PostgreSQL) {
		t.Skip("needs PostgreSQL")
	}
	for iterations, good := range map[int]bool{screen.MaxIterations: true, screen.MaxIterations + 1: false} {
		t.Run(fmt.Sprint(iterations), func(t *testing.T) {
			t.Parallel()
			c := tenantdbtest.Create(t, credential.PostgreSQL)
			tenantdbtest.Exec(t, c, `ALTER ROLE `+c.User+` PASSWORD '`+verifier(t, c.Password.Reveal(), iterations)+`'`)
			err := tenantdbtest.Open(t, c).Ping(t.Context())
			if good {
				testkit.Must(t, err)
				return
			}
			checkFault(t, err, stoa.DatabaseAuthFailed, c)
			if !strings.Contains(err.Error(), "scram_iterations") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// verifier returns what PostgreSQL stores of a password.
// Source: RFC 5802, section 3; PostgreSQL manual, pg_authid.
func verifier(t *testing.T, password string, iterations int) string {
	t.Helper()
	salt := []byte("saltsaltsaltsalt")
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	testkit.Must(t, err)
	keyed := func(word string) []byte {
		mac := hmac.New(sha256.New, salted)
		mac.Write([]byte(word))
		return mac.Sum(nil)
	}
	stored := sha256.Sum256(keyed("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64(salt), b64(stored[:]), b64(keyed("Server Key")))
}

// TestHashingWaitsForItsTurn checks that a connection whose password may not be
// hashed yet waits until its caller cancels, and that it has then hashed
// nothing.
func TestHashingWaitsForItsTurn(t *testing.T) { //nolint:paralleltest // it uses all slots
	_, most := tenantdb.Hashing.Slots()
	for range most {
		testkit.Must(t, tenantdb.Hashing.Acquire(t.Context(), 1))
	}
	server := newScram(challenged(4096))
	c := at(t, credential.PostgreSQL, credential.TLSDisable, server.serve)
	db := tenantdbtest.Open(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-server.mechanism
		cancel()
	}()
	if err := db.Ping(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if n := len(server.proofs); n != 0 {
		t.Errorf("%d proofs were computed out of turn", n)
	}
	for range most {
		tenantdb.Hashing.Release()
	}
	checkFault(t, db.Ping(t.Context()), stoa.DatabaseAuthFailed, c)
	if used, _ := tenantdb.Hashing.Slots(); len(server.proofs) != 1 || used != 0 {
		t.Errorf("%d proofs, %d turns are taken", len(server.proofs), used)
	}
}

// TestHashingTurnsAreGivenBack checks that a server keeps no slot, however it
// behaves between its challenge and the end. As many such servers as there are
// slots do not prevent a connection to a working server.
func TestHashingTurnsAreGivenBack(t *testing.T) { //nolint:paralleltest // it counts all slots
	_, most := tenantdb.Hashing.Slots()
	stall := make(chan struct{})
	t.Cleanup(func() { close(stall) })
	for name, server := range map[string]*scram{
		"says nothing more":        {challenge: challenged(4096), then: func(net.Conn) { <-stall }},
		"ends the connection":      {challenge: challenged(4096), then: func(net.Conn) {}},
		"says what is not allowed": {challenge: challenged(4096), then: func(c net.Conn) { _, _ = c.Write(frame('R', u32(11), []byte("again"))) }},
		"proves nothing":           {challenge: challenged(4096), then: func(c net.Conn) { _, _ = c.Write(frame('R', u32(12), []byte("v=wrong"))) }},
	} {
		server.mechanism, server.proofs = make(chan string, 100), make(chan []byte, 100)
		c := at(t, credential.PostgreSQL, credential.TLSDisable, server.serve)
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		for range 2 * most {
			callers.Go(func() {
				if err := tenantdbtest.Open(t, c).Ping(ctx); err == nil {
					t.Errorf("connected to a server that %s", name)
				}
			})
		}
		for range 2 * most {
			<-server.proofs
		}
		testkit.Eventually(t, testkit.Timeout, "the slots are free", func() bool { used, _ := tenantdb.Hashing.Slots(); return used == 0 })
		cancel()
		callers.Wait()
	}
}

// TestHashingTooLongIsStoasFault checks that a password that could not be hashed in
// time does not count against the database.
func TestHashingTooLongIsStoasFault(t *testing.T) {
	t.Parallel()
	fault := tenantdb.NewEngines(tenantdb.Options{})[credential.PostgreSQL].Fault(fmt.Errorf("wrapped: %w", screen.ErrHashing))
	if stoa.CodeOf(fault) != stoa.DatabaseUnreachable || !tenantdb.IsTransient(fault) {
		t.Errorf("got %v", fault)
	}
}

// TestConnectedStoresHashAtAnyTime checks that a store which is connected does not share
// the limit of time with databases that somebody tests, who could keep it closed.
func TestConnectedStoresHashAtAnyTime(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	store := h.store(t)
	c := credential.ManagedSQLite(store)
	c.Kind = credential.KindPostgreSQL // no managed database is limited
	tested, err := h.OpenUnleased(c)
	testkit.Must(t, err)
	defer tested.Close() //nolint:errcheck // nothing is pending
	if tested.HashingLimits() != tenantdb.Hashing {
		t.Error("a database that is tested is not limited")
	}
	c.Kind = credential.Managed
	h.save(t, store, c)
	l := h.lease(t, store)
	defer l.Release()
	if l.HashingLimits() != tenantdb.Hashing.Trusted() || !tenantdb.IsLeased(l.DB) {
		t.Error("a connected store is limited")
	}
}

// TestSCRAMIsBoundToTheCertificate checks that over TLS a password is bound to
// the server's certificate, as it is without the screen.
func TestSCRAMIsBoundToTheCertificate(t *testing.T) {
	t.Parallel()
	server := newScram(challenged(4096))
	c := postgresTLS(t, server.serve)
	checkFault(t, tenantdbtest.Open(t, c).Ping(t.Context()), stoa.DatabaseAuthFailed, c)
	if m := <-server.mechanism; m != "SCRAM-SHA-256-PLUS" {
		t.Errorf("%s was chosen", m)
	}
}
