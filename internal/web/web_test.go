package web_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/a-h/templ"
	"golang.org/x/net/html"

	"github.com/stoahq/stoa/internal/console"
	"github.com/stoahq/stoa/internal/storefront"
	"github.com/stoahq/stoa/internal/web"
)

// render serves a page and returns its parsed document and its text.
func render(t *testing.T, page templ.Component) (*html.Node, string) {
	t.Helper()
	w := httptest.NewRecorder()
	web.Serve(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil), http.StatusOK, page)
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	doc, err := html.Parse(strings.NewReader(w.Body.String()))
	if err != nil {
		t.Fatal(err)
	}
	return doc, textOf(doc)
}

func textOf(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// attributes lists the values of an attribute over all elements of a name; an
// empty name stands for any element.
func attributes(doc *html.Node, element, key string) []string {
	var values []string
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode || element != "" && n.Data != element {
			continue
		}
		for _, a := range n.Attr {
			if a.Key == key {
				values = append(values, a.Val)
			}
		}
	}
	return values
}

func count(doc *html.Node, element string) int {
	total := 0
	for n := range doc.Descendants() {
		if n.Type == html.ElementNode && n.Data == element {
			total++
		}
	}
	return total
}

// checkHarmless fails when the page holds anything that could run, or that
// ContentSecurityPolicy would refuse.
func checkHarmless(t *testing.T, doc *html.Node) {
	t.Helper()
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		if slices.Contains([]string{"script", "style", "iframe", "object", "embed", "base"}, n.Data) {
			t.Errorf("the page has a <%s>", n.Data)
		}
		for _, a := range n.Attr {
			switch {
			case a.Key == "style" || strings.HasPrefix(a.Key, "on"):
				t.Errorf("<%s> has the attribute %s=%q", n.Data, a.Key, a.Val)
			case slices.Contains([]string{"href", "src", "action", "srcset", "formaction"}, a.Key):
				checkAddress(t, n.Data, a.Val)
			}
		}
	}
}

func checkAddress(t *testing.T, element, address string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Errorf("<%s> leads to %q: %v", element, address, err)
		return
	}
	allowed := []string{"", "https", "mailto"}
	if element == "img" {
		allowed = []string{"", "https", "data"}
	}
	if !slices.Contains(allowed, u.Scheme) {
		t.Errorf("<%s> leads to %q", element, address)
	}
}

const hostile = `"'><script>alert(1)</script><img src=x onerror=alert(1)>`

func TestHostileTextStaysText(t *testing.T) {
	t.Parallel()
	pages := map[string]templ.Component{
		"store": storefront.StorePage(storefront.StoreView{
			Name: hostile, Description: hostile, LogoURL: hostile, Currency: hostile, Locale: hostile,
			PrimaryColor: hostile, ContactEmail: hostile,
			Products: []storefront.ProductView{{Name: hostile, Description: hostile, Price: hostile, Currency: hostile,
				ImageURL: hostile, ImageAlt: hostile}},
		}),
		"picture": storefront.StorePage(storefront.StoreView{Products: []storefront.ProductView{{
			Name: hostile, ImageURL: "https://cdn.example/a.png", ImageAlt: hostile}}}),
		"checkout": console.CheckoutPage(console.CheckoutView{PurchaseID: hostile, Credits: hostile, Amount: hostile,
			Currency: hostile, Status: "pending", PayURL: hostile}),
		"ended": console.CheckoutPage(console.CheckoutView{PurchaseID: hostile, Status: hostile}),
		"error": storefront.ErrorPage(storefront.ErrorView{Status: 503, Text: hostile}),
	}
	for name, page := range pages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			doc, text := render(t, page)
			checkHarmless(t, doc)
			if !strings.Contains(text, hostile) {
				t.Errorf("the text is not shown as it was given:\n%s", text)
			}
			if n := len(attributes(doc, "", "onerror")); n != 0 {
				t.Errorf("%d onerror attributes", n)
			}
		})
	}
}

func TestPagesRenderWithoutData(t *testing.T) {
	t.Parallel()
	for name, page := range map[string]templ.Component{
		"store":    storefront.StorePage(storefront.StoreView{}),
		"product":  storefront.StorePage(storefront.StoreView{Products: []storefront.ProductView{{}}}),
		"checkout": console.CheckoutPage(console.CheckoutView{}),
		"error":    storefront.ErrorPage(storefront.ErrorView{}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			doc, _ := render(t, page)
			checkHarmless(t, doc)
			if n := count(doc, "h1"); n != 1 {
				t.Errorf("%d main headings, want 1", n)
			}
			if n := count(doc, "main"); n != 1 {
				t.Errorf("%d main elements, want 1", n)
			}
			for n := range doc.Descendants() {
				if slices.Contains([]string{"h1", "title"}, n.Data) && textOf(n) == "" {
					t.Errorf("<%s> is empty", n.Data)
				}
			}
			if lang := attributes(doc, "html", "lang"); !slices.Equal(lang, []string{"en"}) {
				t.Errorf("lang %q, want en", lang)
			}
			if src := attributes(doc, "img", "src"); len(src) != 0 {
				t.Errorf("pictures %q, want none", src)
			}
		})
	}
}

func TestServeSetsHeaders(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	web.Serve(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil), http.StatusNotFound,
		storefront.ErrorPage(storefront.ErrorView{Status: http.StatusNotFound}))
	if w.Code != http.StatusNotFound {
		t.Errorf("status %d, want 404", w.Code)
	}
	for key, want := range map[string]string{
		"Content-Type":            "text/html; charset=utf-8",
		"Content-Security-Policy": web.ContentSecurityPolicy,
		"X-Content-Type-Options":  "nosniff",
		"Cache-Control":           "no-store",
	} {
		if got := w.Header().Get(key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}

	w = httptest.NewRecorder()
	w.Header().Set("Cache-Control", "public, max-age=60")
	web.Serve(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil), http.StatusOK, storefront.StorePage(storefront.StoreView{}))
	if got := w.Header().Get("Cache-Control"); got != "public, max-age=60" {
		t.Errorf("the caller's Cache-Control became %q", got)
	}
}
