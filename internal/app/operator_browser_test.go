package app_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// fleetWorld is a platform with stores of one owner, some of which are sick.
type fleetWorld struct {
	t      *testing.T
	s      *server
	owner  client
	sick   string // id of an active store whose database refuses its password
	broken string // id of a store whose run has failed for a wrong password
	mend   func() // makes the password of the broken store the right one
}

func newFleetWorld(t *testing.T, engine masterdb.Engine) *fleetWorld {
	t.Helper()
	if !slices.Contains(tenantdbtest.Engines(), credential.PostgreSQL) {
		t.Skip("needs a PostgreSQL server for the stores")
	}
	cfg := testConfig(t, engine)
	unlimited(cfg)
	w := &fleetWorld{t: t, s: startServer(t, cfg)}
	w.owner, _, _ = connected(t, w.s, "owner@example.com")
	w.owner.proven()
	for i := range 3 {
		w.connect(fmt.Sprintf("Sound Shop %d", i+1), object{"type": "managed"}, http.StatusOK)
	}

	c := tenantdbtest.Create(t, credential.PostgreSQL)
	w.sick = w.connect("Sick Shop", detailsOf(c), http.StatusOK)
	tenantdbtest.Revoke(t, c)
	w.owner.call("POST", "/api/stores/"+w.sick+"/database/test", nil).want(http.StatusOK).is(false, "ok")

	c = tenantdbtest.Create(t, credential.PostgreSQL)
	wrong := detailsOf(c)
	wrong["password"] = "not the password"
	w.broken = w.connect("Broken Shop", wrong, http.StatusUnprocessableEntity)
	w.mend = func() {
		tenantdbtest.Admin(t, credential.PostgreSQL, fmt.Sprintf("ALTER ROLE %q PASSWORD '%s'", c.User, wrong["password"]))
	}
	w.promote("op@example.com")
	return w
}

// detailsOf returns the fields of a connection for the API.
func detailsOf(c credential.Credentials) object {
	return object{"type": string(c.Kind), "host": c.Host, "port": c.Port, "database": c.Database, "user": c.User,
		"password": c.Password.Reveal(), "tls": object{"mode": string(c.TLS)}}
}

// connect creates a store and connects a database to it. It returns the store's id.
func (w *fleetWorld) connect(name string, database object, status int) string {
	w.t.Helper()
	id := w.owner.call("POST", "/api/stores", object{"name": name}).want(http.StatusCreated).text("id")
	w.owner.call("POST", "/api/stores/"+id+"/connect-database", database).want(status)
	return id
}

// promote registers an operator.
func (w *fleetWorld) promote(email string) {
	w.t.Helper()
	register(w.t, w.s, email)
	testkit.Must(w.t, w.s.Master.Tx(w.t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(w.t.Context(), `UPDATE users SET role = 'admin', email_verified = true WHERE email = $1`, email)
		return err
	}))
}

func (w *fleetWorld) status(store, want string) {
	w.t.Helper()
	w.owner.call("GET", "/api/stores/"+store, nil).want(http.StatusOK).is(want, "status")
}

// TestOperatorsJourneyInChromium walks an operator's day in a browser on each master: a
// sick store is found, understood, closed and opened again, a failed run is retried, a
// person is looked after, credits are granted, and everything is checked.
func TestOperatorsJourneyInChromium(t *testing.T) {
	for _, engine := range shortOn(masterdb.Postgres) {
		t.Run(string(engine), func(t *testing.T) {
			w := newFleetWorld(t, engine)
			c := startChromium(t, w.s)
			c.open("/signin")
			c.fill("email", "op@example.com")
			c.fill("password", testPassword)
			c.press("Sign in")
			c.navigate("topbar", "Operator")
			c.shows("Fleet", "Schema versions", "Runs that failed in a day")
			c.noFaults("the fleet")
			w.findSickStore(c)
			w.closeAndOpen(c)
			w.retryRun(c)
			w.lookAfterPerson(c)
			w.lookAfterMoney(c)
		})
	}
}

// findSickStore searches for the store whose database is not usable, and reads why.
func (w *fleetWorld) findSickStore(c *chromium) {
	c.t.Helper()
	c.navigate("rail", "Stores")
	c.shows("Sound Shop 1", "Sick Shop")
	c.choose("health", "unreachable")
	c.press("Search")
	c.shows("Sick Shop", "Broken Shop")
	if rows := evaluate[int](c, `document.querySelectorAll("main tbody tr").length`); rows != 2 {
		c.t.Errorf("%d stores are not usable, want two, at %s", rows, c.whereabouts())
	}
	c.fill("q", "sick")
	c.press("Search")
	if rows := evaluate[int](c, `document.querySelectorAll("main tbody tr").length`); rows != 1 {
		c.t.Errorf("%d stores are found, want one, at %s", rows, c.whereabouts())
	}
	if at := c.path(); at != "/operator/stores?q=sick&status=&health=unreachable&engine=&server=&schema=" {
		c.t.Errorf("the filter is at %s", at)
	}
	c.press("Sick Shop")
	c.shows("Its database cannot be used (database_auth_failed)", "it refuses the user or password. Enter the new password on the store's database page.", "Unusable")
	c.noFaults("the sick store")
}

// closeAndOpen suspends two stores at once and resumes them.
func (w *fleetWorld) closeAndOpen(c *chromium) {
	c.t.Helper()
	selectStores := func(action string) {
		c.navigate("rail", "Stores")
		c.fill("q", "s") // Sick Shop and Sound Shop
		c.press("Search")
		for _, slug := range []string{"sick-shop", "sound-shop-1"} {
			evaluate[bool](c, fmt.Sprintf(`(document.querySelector('main [aria-label="Select %s"]').click(), true)`, slug))
		}
		c.press(action)
	}
	selectStores("Suspend…")
	c.shows("2 selected", "Shoppers of these stores will see that they are closed")
	c.fill("confirm", "suspend")
	c.press("Suspend them")
	c.shows(`Type "suspend 2"`)
	c.refusedForm("without the number of stores")
	c.fill("confirm", "suspend 2")
	c.press("Suspend them")
	c.await("the suspension", `document.querySelector("main .facts").innerText.includes("Finished")`) // by itself
	w.status(w.sick, "suspended")
	selectStores("Resume…")
	c.press("Resume them")
	c.await("the resumption", `document.querySelector("main .facts").innerText.includes("Finished")`)
	w.status(w.sick, "active")
	c.noFaults("suspend and resume")
}

// retryRun finds the run that has failed and retries it after the cause is gone.
func (w *fleetWorld) retryRun(c *chromium) {
	c.t.Helper()
	c.navigate("rail", "Runs")
	c.press("Failed")
	c.shows("database_auth_failed", "The database server refuses this user and password")
	c.press("Broken Shop")
	w.mend()
	c.press("Try again")
	c.shows("The store is open.") // by itself
	w.status(w.broken, "active")
	c.noFaults("the retried run")
}

// lookAfterPerson acts as a person for a moment, suspends the account and resumes it.
func (w *fleetWorld) lookAfterPerson(c *chromium) {
	c.t.Helper()
	const reason = "ticket 17: sees no orders"
	c.navigate("topbar", "Operator")
	c.navigate("rail", "Jobs")
	c.press("Done")
	c.shows("Jobs: Done")
	c.navigate("rail", "Users")
	c.fill("q", "owner@")
	c.press("Search")
	c.press("owner@example.com")
	c.fill("purpose", "short")
	c.press("Act as this person")
	c.await("the fault beside the field", `document.getElementById("purpose-fault")`)
	c.refusedForm("a short reason")
	c.fill("purpose", reason)
	c.press("Act as this person")
	c.shows("You act as owner@example.com", "Sick Shop")
	c.press("Sound Shop 1")
	c.shows("You act as owner@example.com")
	c.navigate("banner", "End impersonation")
	c.shows("Suspend the account")
	c.fill("reason", reason)
	c.press("Suspend the account")
	c.shows("End the suspension", reason, "by op@example.com")
	c.fill("reason", reason)
	c.press("End the suspension")
	c.shows("Act as this person")
	c.noFaults("the person")
}

// lookAfterMoney grants credits, verifies the accounts, sets a price and runs the checks.
func (w *fleetWorld) lookAfterMoney(c *chromium) {
	c.t.Helper()
	c.navigate("rail", "Credits")
	c.fill("store", "sick-shop")
	c.fill("amount", "12.5")
	c.fill("reason", "for the hours without a database")
	c.press("Grant the credits")
	w.owner.token = w.owner.call("POST", "/api/auth/login", object{"email": "owner@example.com", "password": testPassword}).want(http.StatusOK).text("accessToken") // the suspension ended the session
	w.owner.call("GET", "/api/credits/balance?storeId="+w.sick, nil).want(http.StatusOK).is("12.5", "balance")
	c.press("Verify now")
	c.shows("Every account adds up")
	c.navigate("rail", "Prices")
	c.fill("service", "photo_scan")
	c.fill("price", "0.25")
	c.fill("unit", "photo")
	c.fill("description", "One photo that is scanned")
	c.press("Set the price")
	c.shows("photo_scan", "0.25")
	c.navigate("rail", "System")
	c.press("Run the checks")
	c.shows("data directory", "Checked")
	c.noFaults("money and system")
}
