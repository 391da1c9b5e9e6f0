package app_test

import (
	"bufio"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/pquerna/otp/totp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/doctor"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/keyrotation"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
)

// operatorBench is an installation whose operator changes keys and restarts the server.
type operatorBench struct {
	t   *testing.T
	cfg *config.Config
	s   *server
}

func eachOperator(t *testing.T, test func(*operatorBench)) {
	t.Helper()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			test(&operatorBench{t: t, cfg: testConfig(t, engine)})
		})
	}
}

func keys(specs ...keyring.Secret) keyring.Secret {
	var parts []string
	for _, s := range specs {
		parts = append(parts, s.Reveal())
	}
	return keyring.NewSecret(strings.Join(parts, ","))
}

// restart stops the server, if it runs, and starts it with these keys.
func (o *operatorBench) restart(encryption, signing keyring.Secret) {
	o.t.Helper()
	if o.s != nil {
		if err := o.s.Stop(); err != nil {
			o.t.Fatal(err)
		}
	}
	next := *o.cfg
	next.EncryptionKey, next.JWTSecret = encryption, signing
	s, err := launch(o.t.Context(), &next, slog.New(slog.DiscardHandler))
	if err != nil {
		o.t.Fatal(err)
	}
	if o.s == nil {
		o.t.Cleanup(func() { _ = o.s.Stop() })
	}
	o.cfg, o.s = &next, s
}

// flags returns the flags that name the installation and its keys to a command.
func (o *operatorBench) flags() []string {
	return []string{"--data-dir=" + o.cfg.DataDir, "--master-db-url=" + o.cfg.MasterDBURL.Reveal(),
		"--encryption-key=" + o.cfg.EncryptionKey.Reveal(), "--jwt-secret=" + o.cfg.JWTSecret.Reveal()}
}

func (o *operatorBench) stoa(args ...string) (status int, out, errOut string) {
	o.t.Helper()
	return command(o.t, append(args, o.flags()...)...)
}

// rotate runs 'stoa keys rotate --json'.
func (o *operatorBench) rotate() (status int, r cli.Rotation, errOut string) {
	o.t.Helper()
	status, out, errOut := o.stoa("keys", "rotate", "--json")
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		o.t.Fatalf("%v: %s%s", err, out, errOut)
	}
	return status, r, errOut
}

// code returns a code of the authenticator app, ahead periods from now.
func code(t *testing.T, secret string, ahead int) string {
	t.Helper()
	code, err := totp.GenerateCode(secret, time.Now().Add(time.Duration(ahead)*30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// withFactor gives c's account a second factor and returns its secret.
func (c client) withFactor() (secret string) {
	c.t.Helper()
	secret = c.proven().call("POST", "/api/auth/second-factor", object{"password": testPassword}).want(http.StatusCreated).text("secret")
	c.call("POST", "/api/auth/second-factor/confirm", object{"code": code(c.t, secret, 0)}).want(http.StatusOK)
	return secret
}

var envelopes = regexp.MustCompile(`\bv1\.[A-Za-z0-9_-]{1,32}\.[A-Za-z0-9_-]{38,}`)

// TestKeysAreRotated replaces both keys of a store in use, and checks that the old ones
// are not needed afterwards.
func TestKeysAreRotated(t *testing.T) {
	t.Parallel()
	eachOperator(t, func(o *operatorBench) {
		sb := supabasetest.NewAPI(o.t, supabasetest.Options{})
		o.cfg.SupabaseURL, o.cfg.SupabaseClientID, o.cfg.SupabaseClientSecret = sb.URL, supabasetest.ClientID, secretOf(supabasetest.ClientSecret)
		oldEnc, newEnc, oldJWT, newJWT := keyring.Generate("e1"), keyring.Generate("e2"), keyring.Generate("j1"), keyring.Generate("j2")
		o.restart(oldEnc, oldJWT)
		c, id, host := connected(o.t, o.s, "owner@example.com")
		secret := c.withFactor()
		c.call("POST", "/api/stores", object{"name": "Kept"}, "Idempotency-Key", "k").want(http.StatusCreated)
		planned := o.plannedProject(c, sb)
		o.waitingRevocation(c, sb)
		webhook := c.call("POST", "/api/stores/"+id+"/webhooks", object{"url": "http://127.0.0.1:1/"}).want(http.StatusCreated).text("id")
		c.call("POST", "/api/stores/"+id+"/webhooks/"+webhook+"/rotate-secret", nil).want(http.StatusOK)
		backup := c.call("POST", "/api/stores/"+id+"/backups", nil).want(http.StatusAccepted).text("id")
		c.archived(id, backup)
		c.call("POST", "/api/stores/"+id+"/moves", object{"database": object{"type": "postgresql", "connectionString": "postgres://u:p@127.0.0.1:1/d"}}).want(http.StatusAccepted)
		o.sealedColumnsAreKnown()

		o.restart(keys(oldEnc, newEnc), keys(oldJWT, newJWT))
		o.restart(keys(newEnc, oldEnc), keys(newJWT, oldJWT))
		c.url = o.s.URL
		c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("active", "status") // the old access token
		connected(o.t, o.s, "second@example.com")
		shopping, done := make(chan struct{}), make(chan int)
		go func() { // shoppers are served without interruption
			failures := 0
			for {
				select {
				case <-shopping:
					done <- failures
					return
				default:
					if c.call("GET", "/api/storefront/store", nil, "Host", host).status != http.StatusOK {
						failures++
					}
				}
			}
		}()
		status, r, errOut := o.rotate()
		close(shopping)
		if failures := <-done; failures > 0 {
			o.t.Errorf("%d requests failed meanwhile", failures)
		}
		if status != 0 || r.Resealed != 11 || r.Unreadable != 0 || len(r.Removable) != 1 || r.Removable[0] != "e1" {
			o.t.Errorf("status %d, %+v, %s", status, r, errOut)
		}
		if _, out, _ := o.stoa("keys", "list"); !regexp.MustCompile(`e2 +encrypts +2 × store_databases.credentials, 1 × second_factors.secret`).MatchString(out) ||
			!regexp.MustCompile(`e1 +decrypts +nothing`).MatchString(out) || !regexp.MustCompile(`j2 +signs`).MatchString(out) || !regexp.MustCompile(`j1 +verifies`).MatchString(out) {
			o.t.Errorf("list:\n%s", out)
		}

		o.restart(newEnc, newJWT)
		c.url = o.s.URL
		c.call("GET", "/api/stores/"+id, nil).problem(http.StatusUnauthorized, "token_invalid") // signed with the removed key
		login := c.call("POST", "/api/auth/login", object{"email": "owner@example.com", "password": testPassword}).problem(http.StatusUnauthorized, "second_factor_required")
		a := c.call("POST", "/api/auth/login/second-factor", object{"challengeToken": login.text("challengeToken"), "code": code(o.t, secret, 1)}).want(http.StatusOK)
		c.token = a.text("accessToken")
		if kid := keyOf(o.t, c.token); kid != "j2" {
			o.t.Errorf("signed with %q", kid)
		}
		c.call("POST", "/api/stores", object{"name": "Kept"}, "Idempotency-Key", "k").want(http.StatusCreated).replayed()
		c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("ok", "database", "status")
		c.call("GET", "/api/stores/"+planned+"/supabase/organizations", nil).want(http.StatusOK)
		c.call("POST", "/api/stores/"+id+"/backups/"+backup+"/check", nil).want(http.StatusAccepted)
		c.archived(id, backup).is("passed", "check", "state")
		if status, out, errOut := o.stoa("keys", "rotate"); status != 0 || !strings.HasPrefix(out, "0 rows encrypted anew") {
			o.t.Errorf("status %d: %s%s", status, out, errOut)
		}
	})
}

// plannedProject returns a store of c's that is connected to Supabase and has a planned
// database there that is never created.
func (o *operatorBench) plannedProject(c client, sb *supabasetest.Server) (store string) {
	o.t.Helper()
	project, err := sb.AddProject(o.t.Context(), sb.Organization, "Shop")
	if err != nil {
		o.t.Fatal(err)
	}
	store = c.call("POST", "/api/stores", object{"name": "Planned"}).want(http.StatusCreated).text("id")
	consent(o.t, c, sb, store)
	sb.Alter("GET /v1/projects/{ref}/config/database/pooler", func(o map[string]any) { o["db_host"] = "pooler.example.com" })
	c.call("POST", "/api/stores/"+store+"/connect-database", object{"type": "supabase", "projectRef": project.Ref}).problem(http.StatusUnprocessableEntity, "database_host_forbidden")
	return store
}

// waitingRevocation disconnects a store from Supabase, which fails to revoke the tokens.
func (o *operatorBench) waitingRevocation(c client, sb *supabasetest.Server) {
	o.t.Helper()
	store := c.call("POST", "/api/stores", object{"name": "Left"}).want(http.StatusCreated).text("id")
	consent(o.t, c, sb, store)
	sb.Break("POST /v1/oauth/revoke", slices.Repeat([]supabasetest.Fault{supabasetest.Broken}, 20)...)
	c.call("DELETE", "/api/stores/"+store+"/supabase/connection", nil).want(http.StatusNoContent)
}

// keyOf returns the id of the key that a token names.
func keyOf(t *testing.T, token string) any {
	t.Helper()
	parsed, _, err := jwt.NewParser().ParseUnverified(token, jwt.MapClaims{})
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Header["kid"]
}

// sealedColumnsAreKnown searches the whole master database for encrypted values. A
// column that no rotation covers would be lost with its key. Every known column must
// contain one, or the test does not cover it.
func (o *operatorBench) sealedColumnsAreKnown() {
	o.t.Helper()
	found := map[string]bool{}
	for _, c := range dump(o.t, o.s.Master) {
		if envelopes.MatchString(c.Value) {
			found[c.Table+"."+c.Column] = true
		}
	}
	for _, c := range doctor.SealedColumns() {
		if !found[c.String()] {
			o.t.Errorf("%s holds no envelope", c)
		}
		delete(found, c.String())
	}
	for column := range found {
		o.t.Errorf("%s holds envelopes that sealedColumns does not name", column)
	}
}

// TestLostKey checks that the stores of a removed key are unreachable and report the
// cause, that all others work, and that restoring the key restores the stores.
func TestLostKey(t *testing.T) {
	t.Parallel()
	eachOperator(t, func(o *operatorBench) {
		lost, kept, jwt := keyring.Generate("lost"), keyring.Generate("kept"), keyring.Generate("j")
		o.restart(lost, jwt)
		c, id, host := connected(o.t, o.s, "owner@example.com")
		o.restart(kept, jwt)
		c.url = o.s.URL
		other, otherID, otherHost := connected(o.t, o.s, "other@example.com")

		front := c.call("GET", "/api/storefront/store", nil, "Host", host).problem(http.StatusServiceUnavailable, "tenant_unavailable")
		if front.header.Get("Retry-After") == "" || strings.Contains(front.raw, "key") {
			o.t.Errorf("shoppers are told %v %s", front.header, front.raw)
		}
		a := c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is(nil, "profile").is("failed", "database", "status").
			is("database_credentials_lost", "database", "lastError", "code")
		if !strings.Contains(a.text("database", "lastError", "message"), "decrypt") {
			o.t.Errorf("the owner is told %s", a.raw)
		}
		c.call("POST", "/api/stores/"+id+"/database/test", nil).problem(http.StatusServiceUnavailable, "database_credentials_lost")
		other.call("GET", "/api/storefront/store", nil, "Host", otherHost).want(http.StatusOK)
		other.call("GET", "/api/stores/"+otherID, nil).want(http.StatusOK).is("ok", "database", "status")

		if _, out, _ := o.stoa("keys", "list"); !regexp.MustCompile(`lost +MISSING +1 × store_databases.credentials`).MatchString(out) {
			o.t.Errorf("list:\n%s", out)
		}
		if status, out, errOut := o.stoa("keys", "rotate"); status != 1 || !strings.Contains(out, id) || !strings.Contains(errOut, "1 rows are not") {
			o.t.Errorf("status %d: %s%s", status, out, errOut)
		}
		if _, out, _ := o.stoa("doctor"); !strings.Contains(out, "1 rows are encrypted with keys that are missing") {
			o.t.Errorf("doctor:\n%s", out)
		}
		o.restart(keys(kept, lost), jwt)
		c.url = o.s.URL
		c.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusOK)
		c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("ok", "database", "status")
		if status, r, _ := o.rotate(); status != 0 || r.Resealed != 1 {
			o.t.Errorf("status %d: %+v", status, r)
		}
	})
}

// TestRotationSurvivesKills kills a rotation before it ends, and checks that the next
// one continues it.
func TestRotationSurvivesKills(t *testing.T) {
	t.Parallel()
	eachOperator(t, func(o *operatorBench) {
		rows := 3000
		if db := o.cfg.MasterDBURL.Reveal(); strings.HasPrefix(db, "sqlite:") {
			rows = 5000 // enough rows that the rotation is still running when it is killed
		}
		first, second, jwt := keyring.Generate("e1"), keyring.Generate("e2"), keyring.Generate("j")
		o.cfg.EncryptionKey, o.cfg.JWTSecret = keys(second, first), jwt
		db := masterdbtest.Open(o.t, o.cfg.MasterDBURL.Reveal())
		fillFactors(o.t, db, first, rows)
		self, err := os.Executable()
		if err != nil {
			o.t.Fatal(err)
		}
		p := exec.Command(self, "-test.run="+onlyCommandProcess)
		p.Env = append(os.Environ(), commandProcess+"=keys rotate", "STOA_DATA_DIR="+o.cfg.DataDir, "MASTER_DB_URL="+o.cfg.MasterDBURL.Reveal(),
			"ENCRYPTION_KEY="+o.cfg.EncryptionKey.Reveal(), "JWT_SECRET="+jwt.Reveal())
		stdin, err := p.StdinPipe()
		if err != nil {
			o.t.Fatal(err)
		}
		o.t.Cleanup(func() { _ = stdin.Close() })
		progress, err := p.StderrPipe()
		if err != nil {
			o.t.Fatal(err)
		}
		if err := p.Start(); err != nil {
			o.t.Fatal(err)
		}
		line, err := bufio.NewReader(progress).ReadString('\n')
		_ = p.Process.Kill()
		_, _ = io.Copy(io.Discard, progress)
		if _ = p.Wait(); err != nil || !regexp.MustCompile(`^\d+/\d+ rows, 0 unreadable, [\d.]+/s, \d+s left`).MatchString(line) {
			o.t.Fatalf("progress %q, %v", line, err)
		}
		counts, err := keyrotation.Counts(o.t.Context(), db, doctor.SealedColumns())
		if err != nil || len(counts) != 2 || counts[0].Rows+counts[1].Rows != int64(rows) {
			o.t.Fatalf("killed: %+v, %v", counts, err)
		}
		status, r, errOut := o.rotate()
		if status != 0 || r.Resealed != counts[0].Rows || len(r.Removable) != 1 {
			o.t.Errorf("status %d, %+v, %s", status, r, errOut)
		}
		o.t.Logf("killed after %d of %d rows; the others took %.2f s", counts[1].Rows, rows, r.Seconds)
	})
}

// fillFactors creates users with second factors.
func fillFactors(t *testing.T, db *masterdb.DB, key keyring.Secret, n int) {
	t.Helper()
	ring, err := keyring.Parse(key)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		for range n {
			id := stoa.NewID[stoa.UserID]()
			envelope, err := ring.Seal([]byte("secret"), id.String())
			if err != nil {
				return err
			}
			if _, err := tx.Exec(t.Context(), `INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at)
				VALUES ($1, $2, 'x', 'A', 'B', $3, $3)`, id, id.String()+"@example.com", tx.Now); err != nil {
				return err
			}
			if _, err := tx.Exec(t.Context(), `INSERT INTO second_factors (user_id, secret, created_at) VALUES ($1, $2, $3)`, id, envelope, tx.Now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
