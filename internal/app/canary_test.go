package app_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail/mailtest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/payments/stripetest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
	"github.com/stoahq/stoa/internal/tracing/tracingtest"
)

// mine is a client of the whole server that collects every secret it sends or receives.
type mine struct {
	t        *testing.T
	secrets  canaries
	client   client
	answers  bytes.Buffer // all responses, except those that issue a secret
	stripe   *stripetest.Stripe
	smtp     *mailtest.Server
	spans    *tracingtest.Collector
	mailDown atomic.Bool
	cfg      *config.Config
	private  string
	store    string
}

// TestCanaries checks that no secret is left in the log at debug level, in responses,
// metrics, spans, job arguments, the master database or the data directory, even when
// operations fail.
func TestCanaries(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			m := &mine{t: t, secrets: canaries{}, cfg: testConfig(t, engine), private: closedPort(t)}
			p := m.start()
			m.signIn()
			m.verify()
			m.factor()
			m.mails()
			m.keys()
			m.databases()
			m.pay()
			m.operator()
			m.secrets.search(t, "the metrics", m.metrics())
			log := p.end(t)
			db := masterdbtest.Open(t, m.cfg.MasterDBURL.Reveal())
			places := map[string][]byte{
				"the log": []byte(log), "an answer": m.answers.Bytes(), "the master": masterBytes(t, db), "the data folder": filesBelow(t, m.cfg.DataDir),
				"the spans": m.spans.Bytes(),
			}
			// Each place contains a known value that is not secret, which shows that
			// the search works.
			for place, open := range map[string]string{"the log": m.store, "an answer": "invalid_credentials", "the master": "owner@example.com", "the data folder": "Shop of canaries", "the spans": m.store} {
				if !bytes.Contains(places[place], []byte(open)) {
					t.Errorf("%s does not hold %q: the search would find nothing", place, open)
				}
			}
			for _, personal := range []string{"owner@example.com", "@example.com", "Shop of canaries"} {
				if bytes.Contains(places["the spans"], []byte(personal)) {
					t.Errorf("the spans hold %q", personal)
				}
			}
			for place, content := range places {
				m.secrets.search(t, place, content)
			}
			t.Logf("%d secrets; %d bytes of log, %d of answers", len(m.secrets), len(log), m.answers.Len())
		})
	}
}

// start runs the server with a secret in every setting that takes one.
func (m *mine) start() *process {
	m.t.Helper()
	encryption, signing := keyring.Generate("e"), keyring.Generate("j")
	for name, key := range map[string]keyring.Secret{"ENCRYPTION_KEY": encryption, "JWT_SECRET": signing} {
		_, encoded, _ := strings.Cut(key.Reveal(), ":")
		m.secrets.add(m.t, name, strings.TrimRight(encoded, "="))
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			m.t.Fatal(err)
		}
		m.secrets.add(m.t, name+" in bytes", string(raw))
	}
	m.secrets.add(m.t, "STRIPE_SECRET_KEY", stripetest.Key)
	m.secrets.add(m.t, "STRIPE_WEBHOOK_SECRET", stripetest.Secret)
	if u, err := url.Parse(m.cfg.MasterDBURL.Reveal()); err == nil && u.User != nil {
		if password, ok := u.User.Password(); ok {
			m.secrets.add(m.t, "the master's password", password)
		}
	}
	smtpPassword := m.made("SMTP_URL's password")
	m.stripe = stripetest.New(m.t, "")
	m.smtp = mailtest.Start(m.t, mailtest.Options{User: "stoa", Password: smtpPassword, Refuse: func(command, _ string) int {
		if m.mailDown.Load() && command == "." {
			return 2 // the mail is stored, but the server does not reply
		}
		return 0
	}})
	m.spans = tracingtest.Start(m.t)
	p := startProcess(m.t, m.cfg, "OTEL_EXPORTER_OTLP_ENDPOINT="+m.spans.URL, "STOA_LOG_LEVEL=debug", "ENCRYPTION_KEY="+encryption.Reveal(), "JWT_SECRET="+signing.Reveal(),
		"STRIPE_SECRET_KEY="+stripetest.Key, "STRIPE_WEBHOOK_SECRET="+stripetest.Secret, "STOA_STRIPE_URL="+m.stripe.URL,
		"SMTP_URL=smtp://stoa:"+url.QueryEscape(smtpPassword)+"@"+m.smtp.Address(), "STOA_PRIVATE_LISTEN="+m.private)
	m.client = client{t: m.t, url: p.url}
	m.stripe.SendTo(p.url + "/api/webhooks/stripe")
	return p
}

// made returns a new secret with characters that each encoding escapes differently.
func (m *mine) made(name string) string {
	m.t.Helper()
	return m.secrets.add(m.t, name, "Canary+"+rand.Text()[:12]+"/=&x")
}

// call sends a request and keeps the response for the search. Callers that receive a
// secret do not use it.
func (m *mine) call(method, path string, body any, header ...string) answer {
	m.t.Helper()
	a := m.client.call(method, path, body, header...)
	fmt.Fprintf(&m.answers, "%d %v\n%s\n", a.status, a.header, a.raw)
	return a
}

func (m *mine) signIn() {
	password := m.made("the password")
	a := m.client.call("POST", "/api/auth/register", object{"email": "owner@example.com", "password": password, "firstName": "O", "lastName": "O",
		"storeName": "Shop of canaries"}).want(http.StatusCreated)
	m.store = a.text("store", "id")
	m.session("at registration", a)
	login := func(email, password string) object { return object{"email": email, "password": password} }
	m.call("POST", "/api/auth/login", login("owner@example.com", m.made("a wrong password"))).problem(http.StatusUnauthorized, "invalid_credentials")
	m.call("POST", "/api/auth/login", login("nobody@example.com", m.made("a password of nobody"))).problem(http.StatusUnauthorized, "invalid_credentials")
	m.call("POST", "/api/auth/login", `{"email": "owner@example.com", "password": "`+m.made("a password in broken JSON")+`"`).want(http.StatusBadRequest)
	m.call("POST", "/api/auth/login", object{"email": "owner@example.com", "password": []string{m.made("a password in a list")}}).want(http.StatusUnprocessableEntity)
	m.call("POST", "/api/auth/register", object{"email": "owner@example.com", "password": m.made("a second password"), "firstName": "O", "lastName": "O"}).problem(http.StatusConflict, "email_taken")
	refresh := object{"refreshToken": a.text("refreshToken")}
	m.session("after a refresh", m.client.call("POST", "/api/auth/refresh", refresh).want(http.StatusOK))
	m.call("POST", "/api/auth/refresh", object{"refreshToken": m.made("a refresh token of nobody")}).problem(http.StatusUnauthorized, "token_invalid")
	broken := m.client
	broken.token = m.secrets.add(m.t, "a broken access token", broken.token[:len(broken.token)-8])
	fmt.Fprintln(&m.answers, broken.call("GET", "/api/auth/me", nil).problem(http.StatusUnauthorized, "token_invalid").raw)
	m.call("POST", "/api/auth/change-password", object{"oldPassword": m.made("a wrong old password"), "newPassword": m.made("a new password for it")}).
		problem(http.StatusUnauthorized, "invalid_credentials")
	next := m.made("the changed password")
	m.call("POST", "/api/auth/change-password", object{"oldPassword": password, "newPassword": next}).want(http.StatusNoContent)
	m.secrets["the password now"] = next
	m.call("GET", "/api/auth/sessions", nil).want(http.StatusOK)
}

// session adds the pair of tokens to the secrets. The client continues with that pair.
func (m *mine) session(when string, a answer) {
	m.client.token = m.secrets.add(m.t, "the access token "+when, a.text("accessToken"))
	m.secrets.add(m.t, "the access token's signature "+when, m.client.token[strings.LastIndex(m.client.token, ".")+1:])
	m.secrets.add(m.t, "the refresh token "+when, a.text("refreshToken"))
}

func (m *mine) factor() {
	const path = "/api/auth/second-factor"
	m.call("POST", path, object{"password": m.made("a wrong password for the factor")}).problem(http.StatusUnauthorized, "invalid_credentials")
	a := m.client.call("POST", path, object{"password": m.secrets["the password now"]}).want(http.StatusCreated)
	secret := m.secrets.add(m.t, "the TOTP secret", a.text("secret"))
	m.call("POST", path+"/confirm", object{"code": "000000"}).problem(http.StatusUnauthorized, "invalid_credentials")
	codes := m.client.call("POST", path+"/confirm", object{"code": code(m.t, secret, 0)}).want(http.StatusOK).list("recoveryCodes")
	for i, c := range codes {
		m.secrets.add(m.t, fmt.Sprintf("recovery code %d", i), c.(string))
		m.secrets.add(m.t, fmt.Sprintf("recovery code %d, plain", i), strings.ReplaceAll(c.(string), "-", ""))
	}
	login := object{"email": "owner@example.com", "password": m.secrets["the password now"]}
	challenge := m.secrets.add(m.t, "the challenge", m.client.call("POST", "/api/auth/login", login).problem(http.StatusUnauthorized, "second_factor_required").text("challengeToken"))
	m.call("POST", "/api/auth/login/second-factor", object{"challengeToken": challenge, "code": m.made("a wrong recovery code")[:20]}).problem(http.StatusUnauthorized, "invalid_credentials")
	m.session("with a recovery code", m.client.call("POST", "/api/auth/login/second-factor", object{"challengeToken": challenge, "code": codes[0]}).want(http.StatusOK))
	m.call("POST", "/api/auth/login/second-factor", object{"challengeToken": challenge, "code": codes[1]}).problem(http.StatusUnauthorized, "token_invalid")
	m.call("GET", path, nil).want(http.StatusOK)
}

var mailToken = regexp.MustCompile(`stoa_(?:ve|pr|in)_[A-Za-z0-9_-]{20,}`)

// tokens waits for the n-th mail with a token and adds the tokens of all mails.
func (m *mine) tokens(n int) []string {
	m.t.Helper()
	var found []string
	testkit.Eventually(m.t, testkit.Timeout, "the mail", func() bool {
		found = nil
		for _, mail := range m.smtp.Mails() {
			text := strings.NewReplacer("=\r\n", "", "=\n", "", "=3D", "=").Replace(string(mail.Data)) // decodes quoted-printable
			if token := mailToken.FindString(text); token != "" && !slices.Contains(found, token) {
				found = append(found, token)
			}
		}
		return len(found) >= n
	})
	for i, token := range found {
		m.secrets.add(m.t, fmt.Sprintf("mailed token %d", i), token)
	}
	return found
}

// verify verifies the e-mail address, which a second factor and an API key require.
func (m *mine) verify() {
	verify := m.tokens(1)[0]
	stranger := mine{t: m.t, client: client{t: m.t, url: m.client.url}, secrets: m.secrets}
	m.call("GET", "/verify?token="+url.QueryEscape(m.made("a token of nobody")), nil)
	stranger.call("POST", "/api/auth/verify-email", object{"token": verify, "password": m.made("a wrong password to verify")}).want(http.StatusUnauthorized)
	m.answers.Write(stranger.answers.Bytes())
	m.call("POST", "/api/auth/verify-email", object{"token": verify}).want(http.StatusNoContent)
	m.call("POST", "/api/auth/verify-email", object{"token": verify}).want(http.StatusUnauthorized)
}

func (m *mine) mails() {
	m.mailDown.Store(true)
	m.call("POST", "/api/auth/forgot-password", object{"email": "owner@example.com"}).want(http.StatusNoContent)
	m.call("POST", "/api/stores/"+m.store+"/invitations", object{"email": "guest@example.com", "role": "viewer"}).want(http.StatusCreated)
	for _, token := range m.tokens(3) {
		if strings.HasPrefix(token, "stoa_pr_") {
			m.call("POST", "/api/auth/reset-password", object{"token": token, "password": "short"}).want(http.StatusUnprocessableEntity)
			m.call("POST", "/reset?token="+url.QueryEscape(token), url.Values{"password": {m.made("a password by form")}}.Encode(), "Content-Type", "application/x-www-form-urlencoded")
		} else {
			m.call("POST", "/api/invitations/accept", object{"token": token})
		}
	}
	m.secrets["the password now"] = m.secrets["a password by form"]
	m.call("GET", "/api/auth/me", nil).problem(http.StatusUnauthorized, "session_revoked") // the reset has revoked the session
	challenge := m.client.call("POST", "/api/auth/login", object{"email": "owner@example.com", "password": m.secrets["the password now"]}).
		problem(http.StatusUnauthorized, "second_factor_required").text("challengeToken")
	m.session("after the reset", m.client.call("POST", "/api/auth/login/second-factor",
		object{"challengeToken": challenge, "code": m.secrets["recovery code 5"]}).want(http.StatusOK))
}

func (m *mine) keys() {
	path := "/api/stores/" + m.store + "/api-keys"
	a := m.client.call("POST", path, object{"name": "Shop", "scopes": authz.Scopes()}).want(http.StatusCreated)
	key := m.client
	key.token = m.secrets.add(m.t, "the API key", a.text("key"))
	key.call("GET", "/api/stores/"+m.store, nil).want(http.StatusOK)
	key.call("GET", "/api/auth/me", nil).problem(http.StatusForbidden, "forbidden")
	m.call("GET", path, nil).want(http.StatusOK)
	m.call("DELETE", path+"/"+a.text("id"), nil).want(http.StatusNoContent)
	fmt.Fprintln(&m.answers, key.call("GET", "/api/stores/"+m.store, nil).problem(http.StatusUnauthorized, "token_invalid").raw)
}

// databases connects databases and rotates credentials in every way. Most attempts
// fail.
func (m *mine) databases() {
	base := "/api/stores/" + m.store
	host, port, _ := strings.Cut(closedPort(m.t), ":")
	nowhere := func(scheme string) string {
		return scheme + "://anna:" + url.QueryEscape(m.made("a password to "+scheme+" nowhere")) + "@" + host + ":" + port + "/shop?sslmode=disable"
	}
	m.call("POST", base+"/connect-database", object{"type": "postgresql", "connectionString": nowhere("postgres")}).problem(http.StatusUnprocessableEntity, "database_unreachable")
	m.call("POST", base+"/connect-database", object{"type": "mysql", "connectionString": nowhere("mysql")}).problem(http.StatusUnprocessableEntity, "database_unreachable")
	for _, broken := range []string{"postgres://anna:%s@%%zz/shop", "postgres://anna:%s@h:notaport/shop", "postgres://anna@h/shop?sslpassword=%s", "postgres://h/%s?sslmode=%[1]s", "%s"} {
		m.call("POST", base+"/connect-database", object{"type": "postgresql", "connectionString": fmt.Sprintf(broken, url.QueryEscape(m.made("a password in "+broken)))}).
			problem(http.StatusUnprocessableEntity, "invalid_request")
	}
	m.call("POST", base+"/connect-database", object{"type": "supabase", "connectionString": nowhere("postgresql"), "projectUrl": "https://abcdefghijklmnopqrst.supabase.co",
		"anonKey": m.made("the anonKey"), "serviceRoleKey": m.made("the serviceRoleKey")}).want(http.StatusUnprocessableEntity)
	m.call("POST", base+"/database/test", object{"type": "mysql", "connectionString": nowhere("mariadb")})
	for _, engine := range tenantdbtest.Engines() {
		if engine != credential.SQLite {
			m.server(engine)
		}
	}
	m.call("POST", base+"/connect-database", object{"type": "managed"}).want(http.StatusOK)
	m.call("GET", base, nil).want(http.StatusOK)
	m.call("GET", base+"/provisioning", nil).want(http.StatusOK)
	m.call("GET", base+"/audit", nil).want(http.StatusOK)
}

// server connects another store to a real server: with a wrong password, by separate
// fields, over TLS that the server does not have, and finally with correct settings.
func (m *mine) server(engine credential.EngineName) {
	id := m.call("POST", "/api/stores", object{"name": string(engine)}).want(http.StatusCreated).text("id")
	base, c := "/api/stores/"+id, tenantdbtest.Create(m.t, engine)
	fields := func(password string, tls object) object {
		return object{"type": string(engine), "host": c.Host, "port": c.Port, "database": c.Database, "user": c.User, "password": password, "tls": tls}
	}
	plain := object{"mode": "disable"}
	right := m.secrets.add(m.t, "the password at "+string(engine), c.Password.Reveal())
	m.call("POST", base+"/connect-database", fields(m.made("a wrong password at "+string(engine)), plain)).problem(http.StatusUnprocessableEntity, "database_auth_failed")
	m.call("POST", base+"/connect-database", fields(right, object{"mode": "verify-full", "caCertificate": "no PEM"})).want(http.StatusUnprocessableEntity)
	m.call("POST", base+"/connect-database", fields(right, object{"mode": "verify-full"})).want(http.StatusUnprocessableEntity)
	m.call("POST", base+"/connect-database", fields(right, plain)).want(http.StatusOK)
	m.call("POST", base+"/database/rotate-credentials", fields(m.made("a wrong password to rotate to at "+string(engine)), plain)).problem(http.StatusUnprocessableEntity, "database_auth_failed")
	m.secrets.add(m.t, "the next password at "+string(engine), tenantdbtest.Revoke(m.t, c).Password.Reveal()) // and the old password stops working
	m.call("GET", base, nil).want(http.StatusOK)
	m.call("POST", base+"/database/test", nil)
	m.call("POST", base+"/database/rotate-credentials", fields(m.secrets["the next password at "+string(engine)], plain)).want(http.StatusOK)
	m.call("GET", base+"/audit", nil).want(http.StatusOK)
}

func (m *mine) pay() {
	store := []string{"X-Store-Id", m.store}
	for _, fault := range []stripetest.Fault{stripetest.Broken, stripetest.Busy, stripetest.Cut} {
		for range 4 { // the client retries on its own
			m.stripe.Break("POST /v1/checkout/sessions", fault)
		}
		m.call("POST", "/api/credits/purchase", object{"credits": 100}, store...)
	}
	testkit.Eventually(m.t, testkit.Timeout, "a checkout", func() bool {
		a := m.call("POST", "/api/credits/purchase", object{"credits": 100}, store...)
		if a.status == http.StatusCreated {
			m.stripe.Pay(m.stripe.SessionOf(a.text("checkoutUrl")))
		}
		return a.status == http.StatusCreated
	})
	m.call("POST", "/api/webhooks/stripe", `{"id":"evt_x"}`, "Stripe-Signature", "t=1,v1="+m.made("a signature")).want(http.StatusUnprocessableEntity)
	m.stripe.DeliverAll()
	testkit.Eventually(m.t, testkit.Timeout, "the credits", func() bool {
		return m.call("GET", "/api/credits/balance", nil, store...).want(http.StatusOK).text("balance") == "100"
	})
}

// operator impersonates the owner.
func (m *mine) operator() {
	me := m.call("GET", "/api/auth/me", nil).want(http.StatusOK).text("user", "id")
	password := m.made("the operator's password")
	a := m.client.call("POST", "/api/auth/register", object{"email": "op@example.com", "password": password, "firstName": "O", "lastName": "P"}).want(http.StatusCreated)
	db := masterdbtest.Open(m.t, m.cfg.MasterDBURL.Reveal())
	err := db.Tx(m.t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(m.t.Context(), `UPDATE users SET role = 'admin', email_verified = true WHERE email = 'op@example.com'`)
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.session("of the operator", a)
	as := m.client.call("POST", "/api/operator/impersonations", object{"userId": me, "reason": "ticket 17: sees no orders"}).want(http.StatusCreated)
	m.secrets.add(m.t, "the access token as another", as.text("accessToken"))
	m.call("GET", "/api/operator/audit", nil).want(http.StatusOK)
}

func (m *mine) metrics() []byte {
	c := client{t: m.t, url: "http://" + m.private}
	text := c.call("GET", "/metrics", nil).want(http.StatusOK).raw
	if !strings.Contains(text, "stoa_") {
		m.t.Errorf("no metrics: %s", text)
	}
	return []byte(text)
}
