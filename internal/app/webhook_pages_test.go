package app_test

import (
	"html"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
	"github.com/stoahq/stoa/internal/webhooks"
)

// addWebhooks gives the busy store endpoints in every state, with deliveries of one in every
// state, and the platform an endpoint. Nothing happens of what they wait for, so that nothing is
// sent.
func (w *pageWorld) addWebhooks(busy string) {
	w.t.Helper()
	store, err := stoa.ParseID[stoa.StoreID](busy)
	testkit.Must(w.t, err)
	for _, e := range []struct {
		placeholder, address, description, set string
		store                                  stoa.StoreID
		types                                  []string
	}{
		{"{endpoint}", "https://hooks.example.com/stoa?token=hidden", hostileNames[0], `failing_since = updated_at`, store, []string{"backup.cloned"}},
		{"{disabled}", "https://" + strings.Repeat("long.", 12) + "example.com/" + hostileNames[2], hostileNames[1],
			`state = 'disabled', disabled_reason = 'failing', failing_since = updated_at, last_position = position + 771000`, store, []string{}},
		{"{gone}", "https://gone.example.com/", "", `state = 'disabled', disabled_reason = 'gone'`, store, []string{"backup.cloned", "store.deleted", "backup.deleted", "store.restored"}},
		{"{paused}", "https://paused.example.com/", "", `state = 'paused', old_secret = secret, old_until = '2036-01-01T00:00:00Z'`, store, []string{"backup.cloned"}},
		{"{platformEndpoint}", "https://platform.example.com/events", "Data warehouse", `failures = 0`, stoa.StoreID{}, []string{"user.deleted"}},
	} {
		by := "owner"
		if e.store.IsZero() {
			by = "operator"
		}
		p := authz.Principal{UserID: w.ids[by]}
		testkit.Must(w.t, w.s.Master.Get(w.t.Context(), &p.SessionID, `SELECT id FROM sessions WHERE user_id = $1 AND revoked_at IS NULL LIMIT 1`, p.UserID))
		made, _, err := w.s.Webhooks.Create(w.t.Context(), p, e.store,
			webhooks.Change{URL: &e.address, Description: &e.description, Types: &e.types})
		testkit.Must(w.t, err)
		w.values[e.placeholder] = made.ID.String()
		w.tx(func(tx *masterdb.Tx) error {
			_, err := tx.Exec(w.t.Context(), `UPDATE webhook_endpoints SET `+e.set+` WHERE id = $1`, made.ID)
			return err
		})
	}
	w.addDelivery("{accepted}", "{endpoint}", store, webhooks.Succeeded, "")
	w.addDelivery("{old}", "{endpoint}", store, webhooks.Failed, "The endpoint answered 500.")
	w.tx(func(tx *masterdb.Tx) error {
		_, err := tx.Exec(w.t.Context(), `UPDATE webhook_deliveries SET event_id = $1 WHERE id = $2`, stoa.NewID[stoa.EventID](), w.values["{old}"])
		return err
	})
	w.addDelivery("{waiting}", "{endpoint}", store, webhooks.Waiting, "The endpoint did not answer in time.")
	w.addDelivery("{delivery}", "{endpoint}", store, webhooks.Failed, "The endpoint answered 500.")
	w.addDelivery("{platformDelivery}", "{platformEndpoint}", stoa.StoreID{}, webhooks.Succeeded, "")
}

// addDelivery adds a delivery of a test event, with two attempts.
func (w *pageWorld) addDelivery(placeholder, endpoint string, store stoa.StoreID, state webhooks.DeliveryState, fault string) {
	w.t.Helper()
	id := stoa.NewID[stoa.DeliveryID]()
	w.values[placeholder] = id.String()
	w.tx(func(tx *masterdb.Tx) error {
		event, err := events.RecordTest(w.t.Context(), tx, store, w.ids["owner"], map[string]string{"endpointId": w.values[endpoint], "note": hostileNames[0] + hostileNames[1]})
		if err != nil {
			return err
		}
		var next, finished *time.Time
		if state == webhooks.Waiting {
			next = new(tx.Now.Add(5 * time.Hour))
		} else {
			finished = &tx.Now
		}
		if _, err := tx.Exec(w.t.Context(), `INSERT INTO webhook_deliveries (id, endpoint_id, event_id, type, origin, state, attempts, next_at, created_at, finished_at)
			VALUES ($1, $2, $3, 'webhook.test', 'test', $4, 2, $5, $6, $7)`, id, w.values[endpoint], event, string(state), next, tx.Now, finished); err != nil {
			return err
		}
		for number, status := range []int{0, 500} {
			answer := ""
			if status != 0 {
				answer = hostileNames[0] + strings.Repeat("\nat com.example.Handler.handle(Handler.java:17)", 20) + hostileNames[2]
			}
			if fault == "" {
				status, answer = 204, ""
			}
			if _, err := tx.Exec(w.t.Context(), `INSERT INTO webhook_attempts (delivery_id, number, at, took_ms, status, fault, answer) VALUES ($1, $2, $3, 15000, $4, $5, $6)`,
				id, number+1, tx.Now, status, fault, answer); err != nil {
				return err
			}
		}
		return nil
	})
}

// hookCall is a request that an endpoint received.
type hookCall struct {
	header http.Header
	body   []byte
}

// hookServer is the program of an owner. It answers status.
type hookServer struct {
	*httptest.Server
	status atomic.Int64
	calls  chan hookCall
}

func startHookServer(t *testing.T) *hookServer {
	t.Helper()
	h := &hookServer{calls: make(chan hookCall, 100)}
	h.status.Store(http.StatusOK)
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.WriteHeader(int(h.status.Load()))
		_, _ = io.WriteString(w, "<b>thanks</b>")
		h.calls <- hookCall{r.Header, body}
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hookServer) next(t *testing.T) hookCall {
	t.Helper()
	select {
	case c := <-h.calls:
		return c
	case <-time.After(30 * time.Second):
		t.Fatal("no call")
		return hookCall{}
	}
}

// verify fails the test unless the call is signed with the secret.
func (c hookCall) verify(t *testing.T, secret string) {
	t.Helper()
	hook, err := standardwebhooks.NewWebhook(secret)
	testkit.Must(t, err)
	testkit.Must(t, hook.Verify(c.body, c.header))
}

var (
	secretOnPage = regexp.MustCompile(`<code id="new-secret">(whsec_[^<]+)</code>`)
	endpointLink = regexp.MustCompile(`href="[^"]*/webhooks/([0-9a-f-]{36})"`)
	rotateAction = regexp.MustCompile(`action="([^"]*/rotate\?version=[^"]*)"`)
)

// secret returns the new secret that a page shows.
func (a pageAnswer) secret(t *testing.T) string {
	t.Helper()
	found := secretOnPage.FindStringSubmatch(a.Body)
	if a.Status != http.StatusOK || found == nil || a.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("no secret: %d, %s\n%s", a.Status, a.Header.Get("Cache-Control"), mainText(a.Body))
	}
	return html.UnescapeString(found[1])
}

// addEndpoint adds an endpoint on a page, and returns the address of its page and its secret.
func (b *browserClient) addEndpoint(list, address string, types ...string) (page, secret string) {
	b.t.Helper()
	form := url.Values{"url": {address}, "which": {"all"}, "types": types, "key": {b.get(list).hidden("key")}}
	if len(types) > 0 {
		form.Set("which", "chosen")
	}
	got := b.post(list, form)
	secret = got.secret(b.t)
	return list + "/" + endpointLink.FindStringSubmatch(got.Body)[1], secret
}

// TestAddWebhook adds endpoints: with faults, and with a form that is sent twice.
func TestAddWebhook(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t, testConfig(t, masterdb.SQLite))
	hooks := startHookServer(t)
	b, list := w.owner, w.base+"/webhooks"
	empty := b.get(list).shows(t, http.StatusOK, "No endpoints yet", "stoa webhooks listen --forward-to", "store.suspended").lacks(t, "user.registered", "webhook.test")
	key := empty.hidden("key")
	long := strings.Repeat("x", 100_000)
	for what, c := range map[string]struct {
		form url.Values
		want []string
	}{
		"nothing":               {url.Values{}, []string{`id="url-fault"`}},
		"another scheme":        {url.Values{"url": {"ftp://example.com/<b>"}, "description": {"Kept"}}, []string{`id="url-fault"`, "ftp://example.com/&lt;b&gt;", `value="Kept"`}},
		"a password":            {url.Values{"url": {"https://u:p@example.com/"}}, []string{"Must not contain a user or password"}},
		"a long address":        {url.Values{"url": {"https://example.com/" + long}}, []string{`id="url-fault"`, long}},
		"a long description":    {url.Values{"url": {"https://example.com/"}, "description": {long}}, []string{`id="description-fault"`, long, `value="https://example.com/"`}},
		"hidden characters":     {url.Values{"url": {"https://example.com/"}, "description": {strings.Repeat("x", 150) + "\u202e"}}, []string{`id="description-fault"`}},
		"invalid UTF-8":         {url.Values{"url": {"https://example.com/"}, "description": {"\xff"}}, []string{`id="description-fault"`}},
		"no chosen type":        {url.Values{"url": {"https://example.com/"}, "which": {"chosen"}}, []string{"Choose at least one", `value="https://example.com/"`}},
		"a type that is none":   {url.Values{"url": {"https://example.com/"}, "which": {"chosen"}, "types": {"store.created", `"><script>`}}, []string{`id="types-fault"`, `value="store.created" checked`}},
		"a long type":           {url.Values{"url": {"https://example.com/"}, "which": {"chosen"}, "types": {long}}, []string{`id="types-fault"`}},
		"many types of nothing": {url.Values{"url": {"https://example.com/"}, "which": {"chosen"}, "types": strings.Split(strings.Repeat("x,", 5_000), ",")}, []string{`id="types-fault"`}},
	} {
		form := c.form
		form.Set("key", key)
		t.Run(what, func(t *testing.T) {
			b := *b
			b.t = t
			b.post(list, form).shows(t, http.StatusUnprocessableEntity, c.want...).lacks(t, "<script>", "whsec_")
		})
	}

	form := url.Values{"url": {hooks.URL + "/a?token=hidden"}, "description": {"متجر <b>"}, "which": {"chosen"}, "types": {"store.suspended", "store.resumed"}, "key": {key}}
	first := b.post(list, form)
	first.shows(t, http.StatusOK, "Copy the secret now", "standardwebhooks").secret(t)
	b.post(list, form).shows(t, http.StatusUnprocessableEntity, "has made an endpoint already").lacks(t, "whsec_")
	got := b.get(list).shows(t, http.StatusOK, strings.TrimPrefix(hooks.URL, "http://")+"/a?…", "متجر &lt;b&gt;", "store.resumed, store.suspended", "Active").lacks(t, "token=hidden", "whsec_")
	if n := len(endpointLink.FindAllString(got.Body, -1)); n != 1 {
		t.Errorf("%d endpoints for a form that was sent twice", n)
	}
	page := list + "/" + endpointLink.FindStringSubmatch(got.Body)[1]
	b.get(page).shows(t, http.StatusOK, "token=hidden", `value="store.resumed" checked`, "None.").lacks(t, "whsec_")
}

// TestWebhookDeliveries sends a test event, one that fails and one again, and looks at what
// was sent and what was answered.
func TestWebhookDeliveries(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t, testConfig(t, masterdb.SQLite))
	hooks := startHookServer(t)
	b, list := w.owner, w.base+"/webhooks"
	page, secret := b.addEndpoint(list, hooks.URL, "store.suspended")

	tested := b.post(page+"/test", nil)
	call := hooks.next(t)
	call.verify(t, secret)
	if tested.Status != http.StatusSeeOther || !strings.HasPrefix(tested.Location, page+"/deliveries/") {
		t.Fatalf("test: %d to %q\n%s", tested.Status, tested.Location, tested.Body)
	}
	testkit.Eventually(t, testkit.Timeout, "the test is accepted", func() bool { return strings.Contains(b.get(tested.Location).Body, "Accepted") })
	id := call.header.Get("webhook-id")
	b.get(tested.Location).shows(t, http.StatusOK, "webhook-id: "+id, "webhook-timestamp: "+call.header.Get("webhook-timestamp"), "user-agent: "+call.header.Get("User-Agent"),
		"200 OK", "&lt;b&gt;thanks&lt;/b&gt;", "&#34;type&#34;: &#34;webhook.test&#34;", "Send again")
	b.get(tested.Location+"/live").shows(t, http.StatusOK, "event: done", "Accepted")

	hooks.status.Store(http.StatusInternalServerError)
	failed := b.post(page+"/test", nil)
	hooks.next(t)
	testkit.Eventually(t, testkit.Timeout, "the test fails", func() bool { return strings.Contains(b.get(failed.Location).Body, "Will be retried") })
	b.get(failed.Location+"/live").shows(t, http.StatusOK, "The endpoint answered 500.", "Next attempt").lacks(t, "event: done")

	hooks.status.Store(http.StatusNoContent)
	again := b.post(tested.Location+"/resend", nil)
	if again.Status != http.StatusSeeOther || !strings.HasPrefix(again.Location, page+"/deliveries/") || again.Location == tested.Location {
		t.Fatalf("send again: %d to %q\n%s", again.Status, again.Location, again.Body)
	}
	testkit.Eventually(t, testkit.Timeout, "the event is sent again", func() bool { return hooks.next(t).header.Get("webhook-id") == id })
	testkit.Eventually(t, testkit.Timeout, "it is accepted", func() bool { return strings.Contains(b.get(again.Location).Body, "Accepted") })

	b.get(page).shows(t, http.StatusOK, "webhook.test", "Sent again", "Test")
	b.get(page+"/live").shows(t, http.StatusOK, "webhook.test")
	b.get(page+"?state=failed").shows(t, http.StatusOK, `name="state" value="failed"`, "Show all").lacks(t, "/deliveries/")
	b.get(page+"?type=webhook.test").shows(t, http.StatusOK, "/deliveries/")
	b.get(page+"?type=store.suspended").shows(t, http.StatusOK).lacks(t, "/deliveries/")
	b.get(page+"?state=lost").shows(t, http.StatusUnprocessableEntity, "There is no such state")
	b.get(page+"?type="+url.QueryEscape(strings.Repeat(`"><script>`, 100))).shows(t, http.StatusUnprocessableEntity, `id="type-fault"`).lacks(t, `"><script>`)
	b.get(page+"?cursor=x").shows(t, http.StatusUnprocessableEntity, "does not exist")

	// The list is paged.
	for range 20 {
		b.post(tested.Location+"/resend", nil).leadsToUnder(t, page+"/deliveries/")
	}
	older := regexp.MustCompile(`href="([^"]*cursor=[^"]*)"`).FindStringSubmatch(b.get(page).shows(t, http.StatusOK, ">Older<").Body)
	b.get(html.UnescapeString(older[1])).shows(t, http.StatusOK, ">Newer<").lacks(t, ">Older<", "sse-connect")

	// Others see nothing of it, under their own store neither.
	theirs := w.by["stranger"]
	theirs.get(page).shows(t, http.StatusNotFound)
	path := storeOf(t, w, theirs)
	for _, other := range []string{strings.Replace(page, w.base, path, 1), strings.Replace(tested.Location, w.base, path, 1)} {
		theirs.get(other).shows(t, http.StatusNotFound)
		theirs.get(other+"/live").shows(t, http.StatusNotFound)
	}
	theirs.post(strings.Replace(tested.Location, w.base, path, 1)+"/resend", nil).shows(t, http.StatusNotFound)
	theirs.post(strings.Replace(page, w.base, path, 1)+"/delete", url.Values{"confirm": {"x"}}).shows(t, http.StatusNotFound)
	second, _ := b.addEndpoint(list, hooks.URL)
	b.get(strings.Replace(tested.Location, page, second, 1)).shows(t, http.StatusNotFound)
}

// storeOf returns the path of the only store of a browser's user.
func storeOf(t *testing.T, w *storeWorld, b *browserClient) string {
	t.Helper()
	for _, found := range regexp.MustCompile(`href="(/stores/[a-z0-9-]+)"`).FindAllStringSubmatch(b.get("/stores").Body, -1) {
		if found[1] != "/stores/new" && found[1] != w.base {
			return found[1]
		}
	}
	t.Fatal("no store")
	return ""
}

// leadsToUnder fails the test unless the answer redirects to a path below base.
func (a pageAnswer) leadsToUnder(t *testing.T, base string) {
	t.Helper()
	if a.Status != http.StatusSeeOther || !strings.HasPrefix(a.Location, base) {
		t.Errorf("%d to %q, want 303 to %q\n%s", a.Status, a.Location, base, mainText(a.Body))
	}
}

// TestChangeWebhook changes an endpoint, its state and its secret, sends a range again and
// deletes it, each with forms that are sent twice or are wrong.
func TestChangeWebhook(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t, testConfig(t, masterdb.SQLite))
	hooks := startHookServer(t)
	b, list := w.owner, w.base+"/webhooks"
	page, secret := b.addEndpoint(list, hooks.URL)

	// Settings.
	form := url.Values{"version": {b.get(page).hidden("version")}, "url": {hooks.URL + "/new"}, "description": {"Warehouse"}, "which": {"chosen"}, "types": {"store.suspended", "store.resumed"}}
	b.post(page, form).leadsTo(t, page)
	b.get(page).shows(t, http.StatusOK, "/new", `value="Warehouse"`, `value="store.suspended" checked`)
	form.Set("description", "Another")
	stale := b.post(page, form).shows(t, http.StatusConflict, "What the endpoint is now", `value="Another"`, "Warehouse")
	form.Set("version", stale.hidden("version"))
	form.Set("url", strings.Repeat("x", 100_000))
	b.post(page, form).shows(t, http.StatusUnprocessableEntity, `id="url-fault"`, strings.Repeat("x", 100_000))
	form.Del("types")
	b.post(page, form).shows(t, http.StatusUnprocessableEntity, "Choose at least one")

	// A new secret.
	confirm := b.get(page+"/rotate").shows(t, http.StatusOK, "both secrets").lacks(t, "It ends at once")
	action := html.UnescapeString(rotateAction.FindStringSubmatch(confirm.Body)[1])
	second := b.post(action, nil).secret(t)
	if second == secret {
		t.Error("the secret is the old one")
	}
	b.post(action, nil).shows(t, http.StatusConflict, "may have a new secret already").lacks(t, "whsec_")
	b.post(page+"/rotate", nil).shows(t, http.StatusConflict).lacks(t, "whsec_")
	b.get(page+"/rotate").shows(t, http.StatusOK, "It ends at once")
	b.get(page).shows(t, http.StatusOK, "The one before is valid too").lacks(t, "whsec_")
	b.post(page+"/test", nil).leadsToUnder(t, page+"/deliveries/")
	call := hooks.next(t)
	call.verify(t, secret)
	call.verify(t, second)

	// Pause and enable.
	b.post(page+"/pause", nil).leadsTo(t, page)
	b.get(page).shows(t, http.StatusOK, "Paused", "Enable the endpoint").lacks(t, "Send a test event")
	b.post(page+"/test", nil).shows(t, http.StatusUnprocessableEntity, "Enable it first")
	b.post(page+"/replay", url.Values{"from": {minutesAgo(10)}}).shows(t, http.StatusUnprocessableEntity, "Enable it first")
	b.post(page+"/enable", nil).shows(t, http.StatusUnprocessableEntity, `id="missed-fault"`)
	w.api.call("POST", "/api/stores/"+w.id+"/suspend", nil).want(http.StatusOK)
	w.published(t, "store.suspended")
	b.post(page+"/enable", url.Values{"missed": {"skip"}}).leadsTo(t, page)
	b.post(page+"/pause", nil).leadsTo(t, page)
	w.api.call("POST", "/api/stores/"+w.id+"/resume", nil).want(http.StatusOK)
	w.published(t, "store.resumed")
	b.get(page).shows(t, http.StatusOK, "up to 1")
	b.post(page+"/enable", url.Values{"missed": {"send"}}).leadsTo(t, page)
	if got := hooks.next(t); !strings.Contains(string(got.body), `"store.resumed"`) {
		t.Errorf("the endpoint received %s, want what it has missed after it was enabled without what it had missed", got.body)
	}

	// A range again.
	for value, want := range map[string]string{"": "Say from when on", "yesterday": "Write the time as", minutesAgo(-10): "Must be before to", "2020-01-01T00:00": "last 30 days", strings.Repeat("9", 100_000): "Write the time as"} {
		b.post(page+"/replay", url.Values{"from": {value}, "to": {""}}).shows(t, http.StatusUnprocessableEntity, want, `value="`+value+`"`)
	}
	b.post(page+"/replay", url.Values{"from": {minutesAgo(10)}, "to": {"31 of June"}}).shows(t, http.StatusUnprocessableEntity, `value="31 of June"`, `id="to-fault"`)
	b.post(page+"/replay", url.Values{"from": {minutesAgo(10)}, "to": {minutesAgo(9)}}).leadsTo(t, page)
	b.get(page).shows(t, http.StatusOK, "Nothing has happened in this time")
	b.post(page+"/replay", url.Values{"from": {minutesAgo(10)}}).leadsTo(t, page)
	again := string(hooks.next(t).body) + string(hooks.next(t).body) // in any order: several are sent at a time
	for _, event := range []string{`"store.suspended"`, `"store.resumed"`} {
		if !strings.Contains(again, event) {
			t.Errorf("the endpoint received %s, want all of the range", again)
		}
	}
	testkit.Eventually(t, testkit.Timeout, "the range is listed", func() bool { return strings.Contains(b.get(page).Body, "Sent again with others") })

	// Deletion.
	host := strings.TrimPrefix(hooks.URL, "http://")
	b.get(page+"/delete").shows(t, http.StatusOK, host)
	b.post(page+"/delete", url.Values{"confirm": {strings.Repeat("x", 100_000)}}).shows(t, http.StatusUnprocessableEntity, "This is not the name")
	b.post(page+"/delete", url.Values{"confirm": {host}}).leadsTo(t, list)
	b.get(list).shows(t, http.StatusOK, "was deleted", "No endpoints yet")
	for _, path := range []string{page, page + "/rotate", page + "/delete", page + "/live"} {
		b.get(path).shows(t, http.StatusNotFound)
	}
	for _, path := range []string{page, page + "/test", page + "/pause", page + "/replay?", page + "/rotate", page + "/delete"} {
		b.post(path, url.Values{"from": {minutesAgo(10)}, "url": {hooks.URL}, "confirm": {host}}).shows(t, http.StatusNotFound)
	}
	b.post(page+"/enable", url.Values{"missed": {"send"}}).shows(t, http.StatusNotFound)
	w.api.call("GET", "/api/stores/"+w.id+"/audit?action=webhook.deleted", nil).want(http.StatusOK)
	b.get(w.base+"/activity/audit").shows(t, http.StatusOK, "Webhook endpoint deleted", "Secret of a webhook endpoint changed", "Webhook endpoint tested")
}

// minutesAgo returns a time as a field has it.
func minutesAgo(n int) string {
	return time.Now().UTC().Add(-time.Duration(n) * time.Minute).Format("2006-01-02T15:04")
}

// published waits until an event of the type is published.
func (w *storeWorld) published(t *testing.T, kind string) {
	t.Helper()
	testkit.Eventually(t, testkit.Timeout, kind+" is published", func() bool {
		found, err := webhooks.StreamRange{Store: parseStore(t, w.id), UpTo: math.MaxInt64, Types: []string{kind}, Limit: 1}.Read(t.Context(), w.Master, w.Master.Engine)
		testkit.Must(t, err)
		return len(found) > 0
	})
}

// TestPlatformWebhooks adds an endpoint for the whole platform, which stores do not see.
func TestPlatformWebhooks(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t, testConfig(t, masterdb.SQLite))
	register(t, w.server, "operator@example.com")
	testkit.Must(t, w.Master.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE users SET email_verified = true, role = CASE WHEN email = 'operator@example.com' THEN 'admin' ELSE role END`)
		return err
	}))
	hooks := startHookServer(t)
	op, list := signIn(t, w.server, "operator@example.com", testPassword), "/operator/webhooks"
	op.get(list).shows(t, http.StatusOK, "No endpoints yet", "user.registered")
	page, secret := op.addEndpoint(list, hooks.URL, "user.registered")
	signUpInBrowser(t, w.server, "new@example.com")
	call := hooks.next(t)
	call.verify(t, secret)
	testkit.Eventually(t, testkit.Timeout, "the delivery is listed", func() bool { return strings.Contains(op.get(page).Body, "/deliveries/") })
	op.post(page+"/test", nil).leadsToUnder(t, page+"/deliveries/")
	id := strings.TrimPrefix(page, list+"/")
	for _, path := range []string{list, page, page + "/rotate"} {
		w.owner.get(path).shows(t, http.StatusForbidden)
	}
	w.owner.post(page+"/pause", nil).shows(t, http.StatusForbidden)
	w.owner.get(w.base+"/webhooks/"+id).shows(t, http.StatusNotFound)
	w.owner.post(w.base+"/webhooks/"+id+"/pause", nil).shows(t, http.StatusNotFound)

	// An operator sees a store's endpoints, without their secrets, and changes none.
	theirs, _ := w.owner.addEndpoint(w.base+"/webhooks", hooks.URL+"/x?token=hidden")
	op.get(theirs).shows(t, http.StatusOK, "/x?…").lacks(t, "token=hidden", "Send a test event")
	op.post(theirs+"/pause", nil).shows(t, http.StatusForbidden)
	op.get(strings.Replace(theirs, w.base+"/webhooks", list, 1)).shows(t, http.StatusNotFound)
}

// TestActivityPage follows what happens to a store.
func TestActivityPage(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t, testConfig(t, masterdb.SQLite), authz.Viewer)
	b, page := w.owner, w.base+"/activity"
	w.api.call("PATCH", "/api/stores/"+w.id, object{"city": "Wien"}).want(http.StatusOK)
	w.published(t, "store.updated")
	b.get(page).shows(t, http.StatusOK, "store.updated", "fields", "city", "database.ready", "sse-connect", page+"/audit")
	b.get(page+"/live").shows(t, http.StatusOK, "id: ", "store.updated")
	b.get(page+"?type=store.updated").shows(t, http.StatusOK, "/activity/live?type=store.updated").lacks(t, "<code class=\"muted small\">database.ready")
	b.get(page+"/live?type=store.updated").shows(t, http.StatusOK, "store.updated").lacks(t, "database.ready")
	b.get(page+"?type=backup.cloned").shows(t, http.StatusOK, "Nothing of this type")
	b.get(page+"?type="+url.QueryEscape(strings.Repeat(`"><script>`, 100))).shows(t, http.StatusUnprocessableEntity, "There is no such type").lacks(t, `"><script>`)
	b.get(page+"?cursor=x").shows(t, http.StatusUnprocessableEntity, "does not exist")
	b.get(page+"?action=store.updated&outcome=denied").leadsTo(t, page+"/audit?action=store.updated&outcome=denied")
	for range 60 {
		w.api.call("POST", "/api/stores/"+w.id+"/suspend", nil).want(http.StatusOK)
		w.api.call("POST", "/api/stores/"+w.id+"/resume", nil).want(http.StatusOK)
	}
	testkit.Eventually(t, testkit.Timeout, "all are published", func() bool { return strings.Contains(b.get(page).Body, ">Older<") })
	older := regexp.MustCompile(`href="([^"]*cursor=[^"]*)"`).FindStringSubmatch(b.get(page).Body)
	b.get(html.UnescapeString(older[1])).shows(t, http.StatusOK, ">Newer<").lacks(t, "sse-connect")
	w.by["viewer"].get(page+"/live").shows(t, http.StatusForbidden)
	w.by["stranger"].get(page+"/live").shows(t, http.StatusNotFound)
}

// TestWebhooksInChromium adds an endpoint in a browser, copies its secret, and sees what it
// answers to a test event, and what happens to the store, without loading a page again.
func TestWebhooksInChromium(t *testing.T) {
	w := newStoreWorld(t, testConfig(t, masterdb.SQLite))
	hooks := startHookServer(t)
	c := startChromium(t, w.server)
	c.open("/signin")
	c.fill("email", "owner@example.com")
	c.fill("password", testPassword)
	c.press("Sign in")

	c.open(w.base + "/webhooks")
	c.fill("url", hooks.URL)
	c.fill("description", "Warehouse")
	c.click("Types of events")
	c.await("the types are shown", `document.querySelector("main details").open`)
	c.takePicture("webhooks-types")
	for fault, on := range c.inspect() {
		t.Errorf("the choice of types, %v: %s", on, fault)
	}
	c.press("Add the endpoint")
	c.shows("Copy the secret now", "whsec_")
	c.takePicture("webhooks-secret")
	for fault, on := range c.inspect() {
		t.Errorf("the new secret, %v: %s", on, fault)
	}
	c.click("I have copied it")
	c.shows("Warehouse", "Send a test event")
	hooks.status.Store(http.StatusServiceUnavailable)
	c.press("Send a test event")
	hooks.next(t)
	c.await("the answer is shown", `document.body.textContent.includes("The endpoint answered 503.")`)
	c.takePicture("webhooks-retry")
	hooks.status.Store(http.StatusOK)
	hooks.next(t) // five seconds later
	c.await("the second answer is shown", `document.body.textContent.includes("200 OK")`)
	c.await("the delivery has ended", `document.querySelector("main .state").textContent.includes("Accepted")`)

	c.open(w.base + "/activity")
	w.api.call("POST", "/api/stores/"+w.id+"/suspend", nil).want(http.StatusOK)
	c.await("the event is shown", `document.body.textContent.includes("store.suspended") && [...document.querySelectorAll("code")].some(e => e.textContent === "store.suspended")`)
	c.noFaults("the pages of webhooks")
}

// takePicture saves a picture of the current page with every device, when screenshots are
// asked for.
func (c *chromium) takePicture(name string) {
	c.t.Helper()
	folder := os.Getenv(screenshotsEnv)
	if folder == "" {
		return
	}
	for _, d := range devices {
		c.emulate(d)
		testkit.Must(c.t, os.WriteFile(filepath.Join(folder, name+"-"+d.name+".png"), c.picture(), 0o644))
	}
	c.emulate(desktop)
}
