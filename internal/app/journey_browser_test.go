package app_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"

	"github.com/stoahq/stoa/internal/masterdb"
)

// TestOwnersJourneyInChromium goes from nothing to an open store in a browser on each
// master: five clicks at most besides typing, and no error in the browser's console.
func TestOwnersJourneyInChromium(t *testing.T) {
	for _, engine := range shortOn(masterdb.SQLite) {
		t.Run(string(engine), func(t *testing.T) {
			c := startChromium(t, startServer(t, testConfig(t, engine)))
			began := time.Now()
			c.open("/")
			c.press("Create an account")
			c.fill("firstName", "Ada")
			c.fill("lastName", "Lovelace")
			c.fill("email", "ada@example.com")
			c.fill("password", browserPassword)
			c.press("Create the account")
			if at := c.path(); at != "/stores/new" && at != "/stores" {
				t.Fatalf("after the sign-up: %s", c.whereabouts())
			}
			if c.path() == "/stores" {
				c.press("Create a store")
			}
			c.fill("name", "Ada’s Corner Shop")
			c.press("Create the store")
			c.press("Go to the overview") // appears by itself when the run is finished
			c.noFaults("from nothing to a store")
			c.press("Open the store")
			c.await("the store's page", `document.querySelector("h1").innerText === "Ada’s Corner Shop"`)
			if host := evaluate[string](c, `location.hostname`); host != "adas-corner-shop.localhost" {
				t.Errorf("the store is at %s", host)
			}
			c.noFaults("the store's page")
			if c.clicks > 5 {
				t.Errorf("%d clicks, at most 5 were promised", c.clicks)
			}
			if took := time.Since(began); took > 2*time.Minute {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// TestFormsInChromium sends a form twice, goes back after it, and sends one whose session
// has ended meanwhile.
func TestFormsInChromium(t *testing.T) {
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	s := startServer(t, cfg)
	owner := signUpInBrowser(t, s, "ada@example.com")
	c := startChromium(t, s)
	c.open("/signin")
	c.fill("email", "ada@example.com")
	c.fill("password", browserPassword)
	c.press("Sign in")

	c.open("/stores/new")
	c.fill("name", "Twice")
	evaluate[bool](c, `(() => {const b = [...document.querySelectorAll("main button")].pop(); b.click(); b.click(); return true})()`)
	c.await("the store", `location.pathname.startsWith("/stores/twice")`)
	if n := strings.Count(owner.get("/stores").Body, "/stores/twice"); n == 0 {
		t.Error("no store was made")
	}
	if a := owner.get("/stores/twice-2"); a.Status != http.StatusNotFound {
		t.Errorf("the second click made another store: %d", a.Status)
	}
	c.await("the run ends", `document.body.innerText.includes("Go to the overview")`)
	c.noFaults("a double click")

	evaluate[bool](c, `(history.back(), true)`)
	c.await("the form again", `location.pathname === "/stores/new"`)
	c.fill("name", "Twice")
	c.press("Create the store")
	if a := owner.get("/stores/twice-2"); a.Status != http.StatusNotFound {
		t.Errorf("going back and sending again made another store: %d at %s", a.Status, c.whereabouts())
	}

	c.open("/stores/new")
	c.fill("name", "Kept over the sign-in")
	call(c, network.ClearBrowserCookies, cdp.Empty{})
	c.press("Create the store")
	c.fill("email", "ada@example.com")
	c.fill("password", browserPassword)
	c.press("Sign in")
	c.press("Send the form")
	c.await("the store of the kept form", `location.pathname.startsWith("/stores/kept-over-the-sign-in")`)
}
