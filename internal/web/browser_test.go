package web_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/a-h/templ"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/stoahq/stoa/internal/console"
	"github.com/stoahq/stoa/internal/storefront"
	"github.com/stoahq/stoa/internal/web"
)

// chromiumEnv names the environment variable with the path of a Chromium, for the tests
// that need a real browser: only a browser shows whether the pages comply with their
// own policies.
const chromiumEnv = "STOA_TEST_CHROMIUM"

const sampleDocument = `{
	"openapi": "3.1.0",
	"info": {"title": "Sample", "version": "1"},
	"paths": {
		"/api/things": {
			"get": {"summary": "List things", "responses": {"200": {"description": "OK", "content": {
				"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}}}},
			"post": {"summary": "Make a thing", "responses": {"201": {"description": "Made"}}}
		}
	},
	"components": {"schemas": {"Thing": {"type": "object", "properties": {"note": {"type": ["string", "null"]}}}}}
}`

// site serves every page of the package.
func site() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/assets/", web.Assets())
	mux.Handle("/api/docs", console.Docs("/api/openapi.json", "/api/docs"))
	mux.Handle("/api/docs/", console.Docs("/api/openapi.json", "/api/docs"))
	mux.HandleFunc("/api/openapi.json", answer(sampleDocument))
	mux.HandleFunc("GET /api/things", answer(`{"note": "tried out"}`))
	for path, page := range map[string]templ.Component{
		"/store": storefront.StorePage(storefront.StoreView{Name: "Corner Shop", PrimaryColor: "#c2410c", ContactEmail: "owner@example.com",
			Products: []storefront.ProductView{
				{Name: "Bowl", Price: "24.00", Currency: "EUR",
					ImageURL: "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 1 1'/>"},
				{Name: strings.Repeat("Unbreakable", 20), Description: strings.Repeat("w", 300)},
			}}),
		"/checkout": console.CheckoutPage(console.CheckoutView{PurchaseID: "01981a2b-3c4d-7e5f-8a9b-0c1d2e3f4a5b", Credits: "100",
			Amount: "10.00", Currency: "EUR", Status: "pending", PayURL: "/pay"}),
		"/error": storefront.ErrorPage(storefront.ErrorView{Status: 503, Text: "Please try again."}),
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { web.Serve(w, r, http.StatusOK, page) })
	}
	return mux
}

func answer(document string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, document)
	}
}

// browser opens a page at path, in a window as narrow as a small phone. It fails the
// test for every error in its console and every request to another host. Only loopback
// addresses resolve. Browsers are large, so tests run them one by one.
func browser(t *testing.T, path string) context.Context {
	t.Helper()
	program := os.Getenv(chromiumEnv)
	if program == "" {
		t.Skipf("set %s to the path of a Chromium", chromiumEnv)
	}
	server := httptest.NewServer(site())
	t.Cleanup(server.Close)
	// The context must outlive t.Context, which ends before the cleanup that reads the
	// console.
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program), chromedp.NoSandbox,
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"))...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	watch(t, ctx, server.URL)
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(360, 700), chromedp.Navigate(server.URL+path)); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// watch collects the page's requests and console errors, and reports them at the end of
// the test.
func watch(t *testing.T, ctx context.Context, origin string) {
	t.Helper()
	console := chromedp.Console(ctx)
	var mu sync.Mutex
	var faults []string
	err := chromedp.Listen(ctx, func(ev any) {
		e, ok := ev.(*network.EventRequestWillBeSent)
		if !ok || strings.HasPrefix(e.Request.URL, origin+"/") || strings.HasPrefix(e.Request.URL, "data:") {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		faults = append(faults, "asked for "+e.Request.URL)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for message, err := range console {
			if err != nil {
				return // the browser has closed
			}
			mu.Lock()
			faults = append(faults, "console: "+message.String())
			mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Error(err)
		}
		<-done
		for _, fault := range faults {
			t.Error(fault)
		}
	})
}

func TestPagesInABrowser(t *testing.T) {
	for _, path := range []string{"/store", "/checkout", "/error"} {
		t.Run(strings.TrimPrefix(path, "/"), func(t *testing.T) {
			ctx := browser(t, path)
			styled, err := chromedp.Run(ctx, chromedp.Evaluate[string](`getComputedStyle(document.body).display`))
			if err != nil || styled != "flex" {
				t.Errorf("the stylesheet is not in use: %q, %v", styled, err)
			}
			width, err := chromedp.Run(ctx, chromedp.Evaluate[int](`document.documentElement.scrollWidth`))
			if err != nil || width > 360 {
				t.Errorf("the page is %d pixels wide in a window of 360: %v", width, err)
			}
		})
	}
}

func TestDocsInABrowser(t *testing.T) {
	ctx := browser(t, "/api/docs")
	operations, err := chromedp.Run(ctx, chromedp.Poll[int](`document.querySelectorAll(".opblock").length`))
	if err != nil || operations != 2 {
		t.Fatalf("%d operations, %v; want 2", operations, err)
	}
	// Opening an operation shows its schema, in which OpenAPI 3.1 differs from 3.0.
	// Trying it out needs the policy's connect-src. The page moves while it is drawn,
	// so a click at a position may miss.
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool](`(() => {
		const op = document.querySelector(".opblock-get")
		if (!op.classList.contains("is-open")) op.querySelector(".opblock-summary-control").click()
		return op.querySelector(".execute") !== null
	})()`)); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[any](`document.querySelector(".opblock-get .execute").click()`)); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx, chromedp.WaitVisible(".opblock-get .live-responses-table")); err != nil {
		t.Fatal(err)
	}
	text, err := chromedp.Run(ctx, chromedp.Text("main"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"OAS 3.1", "/api/things", "List things", "Make a thing", `"note": "string"`, "tried out"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}
