package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/stoahq/stoa/internal/testkit"
)

// chromiumEnv names the environment variable with the path of a Chromium: only a
// browser shows whether the pages comply with their own policies, and whether people
// can use them.
const chromiumEnv = "STOA_TEST_CHROMIUM"

// chromium is a window of a browser without any cookies.
type chromium struct {
	t      *testing.T
	ctx    context.Context
	origin string // of the server

	mu     sync.Mutex
	faults []string // console errors, violations of policies, requests to other hosts
	clicks int
}

// startChromium opens a browser in front of a server. It is closed when the test ends.
// Only the hosts of the server and its stores resolve.
func startChromium(t *testing.T, s *server) *chromium {
	t.Helper()
	program := os.Getenv(chromiumEnv)
	if program == "" {
		testkit.Unavailable(t, fmt.Sprintf("set %s to the path of a Chromium", chromiumEnv))
	}
	// t.Context ends before the cleanup.
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program), chromedp.NoSandbox,
		chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("host-resolver-rules", "MAP *.localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"))...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return newWindow(t, ctx, s)
}

// another opens a window of the same browser with cookies of its own.
func (c *chromium) another(t *testing.T, s *server) *chromium {
	t.Helper()
	ctx, cancel := chromedp.NewContext(c.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	return newWindow(t, ctx, s)
}

func newWindow(t *testing.T, ctx context.Context, s *server) *chromium {
	t.Helper()
	c := &chromium{t: t, ctx: ctx, origin: s.URL}
	// This starts the browser or opens the window, which lives as long as the context of this call.
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Listen(ctx, c.observe); err != nil {
		t.Fatal(err)
	}
	call(c, network.Enable, network.EnableParams{})
	call(c, log.Enable, cdp.Empty{})
	call(c, page.Enable, page.EnableParams{})
	c.emulate(desktop)
	return c
}

// observe collects what a page must not do.
func (c *chromium) observe(ev any) {
	switch ev := ev.(type) {
	case *network.EventRequestWillBeSent:
		if url := ev.Request.URL; strings.HasPrefix(url, "http") && !strings.HasPrefix(url, c.origin+"/") {
			if host, _, _ := strings.Cut(strings.TrimPrefix(url, "http://"), ":"); !strings.HasSuffix(host, ".localhost") {
				c.fault("asked for " + url)
			}
		}
	case *runtime.EventConsoleAPICalled:
		if ev.Type == "error" || ev.Type == "warning" || ev.Type == "assert" {
			raw, _ := json.Marshal(ev.Args)
			c.fault(fmt.Sprintf("console: %s %.300s", ev.Type, raw))
		}
	case *runtime.EventExceptionThrown:
		text := ev.ExceptionDetails.Text
		if e := ev.ExceptionDetails.Exception; e != nil {
			text += " " + e.Description
		}
		c.fault("exception: " + text)
	case *log.EventEntryAdded:
		if ev.Entry.Level == "error" || ev.Entry.Level == "warning" {
			c.fault(fmt.Sprintf("%s %s: %s (%s)", ev.Entry.Source, ev.Entry.Level, ev.Entry.Text, ev.Entry.URL))
		}
	case *page.EventJavascriptDialogOpening:
		c.fault("dialog: " + ev.Message)
	}
}

func (c *chromium) fault(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, text)
}

// takeFaults returns what the pages did wrong since the last call. The browser has no
// further event of what came before.
func (c *chromium) takeFaults() []string {
	c.t.Helper()
	evaluate[bool](c, "true")
	c.mu.Lock()
	defer c.mu.Unlock()
	faults := c.faults
	c.faults = nil
	return faults
}

// noFaults fails the test for what the pages did wrong since the last call.
func (c *chromium) noFaults(where string) {
	c.t.Helper()
	for _, fault := range c.takeFaults() {
		c.t.Errorf("%s: %s", where, fault)
	}
}

// do runs actions. Each may take a minute: a busy machine is slow.
func (c *chromium) do(actions ...chromedp.Action[chromedp.Void]) {
	c.t.Helper()
	for _, action := range actions {
		ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
		err := chromedp.Do(ctx, action)
		cancel()
		if err != nil {
			c.t.Fatalf("%v, at %s", err, c.whereabouts())
		}
	}
}

// whereabouts describes the page, for the message of a failed test.
func (c *chromium) whereabouts() string {
	ctx, cancel := context.WithTimeout(c.ctx, 10*time.Second)
	defer cancel()
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`))
	return fmt.Sprintf("%.3000s", text)
}

// evaluate returns the value of a JavaScript expression in the page, or what the
// promise resolves to.
func evaluate[T any](c *chromium, expression string) T {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		c.t.Fatalf("%.100s: %v, at %s", expression, err, c.whereabouts())
	}
	return v
}

// open goes to a path of the server, or to an address, and returns the status.
func (c *chromium) open(path string) int {
	c.t.Helper()
	if strings.HasPrefix(path, "/") {
		path = c.origin + path
	}
	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()
	res, err := chromedp.Run(ctx, chromedp.NavigateResponse(path))
	if err != nil {
		c.t.Fatalf("%s: %v", path, err)
	}
	if res == nil {
		return 0
	}
	return int(res.Status)
}

// path returns the path and the query of the current page.
func (c *chromium) path() string {
	c.t.Helper()
	return evaluate[string](c, `location.pathname + location.search`)
}

// fill types into the field with this name.
func (c *chromium) fill(name, value string) {
	c.t.Helper()
	find := `document.querySelector('main [name=` + strconv.Quote(name) + `]')`
	c.await("the field "+name, find+`?.checkVisibility()`)
	evaluate[bool](c, `(`+find+`.focus(), `+find+`.select(), true)`)
	call(c, input.InsertText, input.InsertTextParams{Text: value})
}

// choose chooses a value of the list, or the radio button with it, of this name.
func (c *chromium) choose(name, value string) {
	c.t.Helper()
	find := fmt.Sprintf(`document.querySelector('main select[name=%[1]q]') ?? document.querySelector('main [name=%[1]q][value=%[2]q]')`, name, value)
	c.await("the choice "+name, find)
	evaluate[bool](c, fmt.Sprintf(`(() => {const e = %s; if (e.type === "radio" || e.type === "checkbox") e.click(); else e.value = %q; return true})()`, find, value))
}

// shows fails the test unless the page shows all texts. It waits for them.
func (c *chromium) shows(texts ...string) {
	c.t.Helper()
	for _, text := range texts {
		c.await(text, `document.body.innerText.replace(/\s+/g, " ").includes(`+strconv.Quote(text)+`)`)
	}
}

// refusedForm drops what the console says of a page that shows a form again, and fails
// the test for everything else.
func (c *chromium) refusedForm(where string) {
	c.t.Helper()
	for _, fault := range c.takeFaults() {
		if !strings.Contains(fault, "Failed to load resource: the server responded with a status of 422") {
			c.t.Errorf("%s: %s", where, fault)
		}
	}
}

// press clicks the button or link with this text, as a person would, and waits for the
// page that follows. The page has one.
func (c *chromium) press(text string) {
	c.t.Helper()
	c.click(text)
	c.loaded()
}

// navigate presses the link or button with this text in a part around the page's
// content: its class is topbar, rail or banner.
func (c *chromium) navigate(part, text string) {
	c.t.Helper()
	c.clickIn("."+part, text)
	c.loaded()
}

// loaded waits for the page that follows a click.
func (c *chromium) loaded() {
	c.t.Helper()
	c.await(`location.href loads`, `document.readyState === "complete" && window.stoaClicked === undefined`)
}

// click clicks the button or link with this text. It does not wait.
func (c *chromium) click(text string) {
	c.t.Helper()
	c.clickIn("main", text)
}

func (c *chromium) clickIn(part, text string) {
	c.t.Helper()
	find := fmt.Sprintf(`[...document.querySelectorAll(%s)].filter(e => e.innerText.trim().replace(/\s+/g, " ") === %s && e.checkVisibility())`,
		strconv.Quote(part+" :is(a, button, summary)"), strconv.Quote(text))
	c.await(text, find+`.length > 0`)
	if n := evaluate[int](c, find+`.length`); n != 1 {
		c.t.Fatalf("%d buttons or links say %q at %s", n, text, c.whereabouts())
	}
	at := evaluate[[]float64](c, `(() => {
		window.stoaClicked = true
		const e = `+find+`[0]
		e.scrollIntoView({block: "center", behavior: "instant"})
		const box = e.getBoundingClientRect()
		return [box.x + box.width / 2, box.y + box.height / 2]
	})()`)
	c.clicks++
	c.do(chromedp.MouseClickXY(at[0], at[1]))
}

// await polls until the expression is true.
func (c *chromium) await(what, expression string) {
	c.t.Helper()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`Boolean(`+expression+`)`))
		cancel()
		if err == nil && ok { // while a page is replaced by the next, there is an error
			return
		}
		select {
		case <-deadline.C:
			c.t.Fatalf("in vain: %s (%v), at %s", what, err, c.whereabouts())
		case <-tick.C:
		}
	}
}

// device is what a page is looked at with.
type device struct {
	name          string
	width, height int64
	scheme        string // light or dark
}

var (
	desktop = device{"desktop", 1280, 900, "light"}
	phone   = device{"phone", 360, 740, "light"}
	dark    = device{"dark", 1280, 900, "dark"}
	devices = []device{desktop, phone, dark}
)

// emulate looks at the page with a device. Nothing moves, so that what is measured does
// not change.
func (c *chromium) emulate(d device) {
	c.t.Helper()
	c.do(chromedp.EmulateViewport(d.width, d.height))
	call(c, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: d.scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
}

// call sends a command of the DevTools protocol.
func call[P, R any](c *chromium, command cdp.Command[P, R], params P) R {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()
	answer, err := chromedp.Call(ctx, command, params)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer
}

// picture returns the whole page as a PNG.
func (c *chromium) picture() []byte {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		c.t.Fatal(err)
	}
	return png
}
