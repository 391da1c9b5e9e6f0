package web_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/storefront"
)

func TestStorePage(t *testing.T) {
	t.Parallel()
	doc, text := render(t, storefront.StorePage(storefront.StoreView{
		Name: "Kleine Keramik", Description: "Handgedreht.", Locale: "de-DE", Currency: "EUR",
		LogoURL: "https://cdn.example/logo.png", PrimaryColor: "#c2410c", ContactEmail: "hallo@keramik.example",
		Products: []storefront.ProductView{
			{Name: "Schale", Price: "24.00", ImageURL: "https://cdn.example/schale.jpg", ImageAlt: "Eine Schale"},
			{Name: "Vase", Price: "58.50", Currency: "CHF", SoldOut: true},
		},
	}))
	checkHarmless(t, doc)
	for _, want := range []string{"Kleine Keramik", "Handgedreht.", "Schale", "24.00 EUR", "58.50 CHF", "sold out"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if got, want := attributes(doc, "img", "src"), []string{"https://cdn.example/logo.png", "https://cdn.example/schale.jpg"}; !slices.Equal(got, want) {
		t.Errorf("pictures %q, want %q", got, want)
	}
	if got := attributes(doc, "img", "alt"); !slices.Equal(got, []string{"", "Eine Schale"}) {
		t.Errorf("alternatives %q", got)
	}
	if got := attributes(doc, "a", "href"); !slices.Equal(got, []string{"mailto:hallo@keramik.example"}) {
		t.Errorf("links %q", got)
	}
	if got := attributes(doc, "html", "lang"); !slices.Equal(got, []string{"de-DE"}) {
		t.Errorf("lang %q", got)
	}
}

func TestEmptyCatalogue(t *testing.T) {
	t.Parallel()
	doc, text := render(t, storefront.StorePage(storefront.StoreView{Name: "Corner Shop"}))
	if !strings.Contains(text, "nothing on the shelves yet") || count(doc, "article") != 0 {
		t.Errorf("an empty shop shows:\n%s", text)
	}
}

func TestPicturesThatPolicyWouldRefuseAreLeftOut(t *testing.T) {
	t.Parallel()
	for address, shown := range map[string]bool{
		"https://cdn.example/a.png":             true,
		"HTTPS://cdn.example/a.png":             true,
		"/pictures/a.png":                       true,
		"data:image/png;base64,iVBORw0KGgo=":    true,
		"":                                      false,
		"javascript:alert(1)":                   false,
		" javascript:alert(1)":                  false,
		"JaVaScRiPt:alert(1)":                   false,
		"data:text/html,<script>1</script>":     false,
		"vbscript:msgbox(1)":                    false,
		"http://cdn.example/a.png":              false,
		"//cdn.example/a.png":                   false,
		"https:///a.png":                        false,
		"a.png":                                 false,
		"file:///etc/passwd":                    false,
		"blob:https://cdn.example/1":            false,
		"https://cdn.example/\x00.png":          false,
		"https://user:password@cdn.example/a b": false,
	} {
		doc, _ := render(t, storefront.StorePage(storefront.StoreView{Name: "A", LogoURL: address,
			Products: []storefront.ProductView{{Name: "B", ImageURL: address}}}))
		var want []string
		if shown {
			want = []string{address, address}
		}
		if got := attributes(doc, "img", "src"); !slices.Equal(got, want) {
			t.Errorf("%q gives the pictures %q, want %q", address, got, want)
		}
	}
}

func TestThemeColour(t *testing.T) {
	t.Parallel()
	for given, ink := range map[string]string{
		"#000": "#ffffff", "#FFF": "#000000", "#c2410c": "#ffffff", "#ffdd00": "#000000", "#1F6177": "#ffffff",
		// Greys just above and just below the luminance at which the text colour
		// changes to black.
		"#767676": "#000000", "#757575": "#ffffff",
	} {
		doc, _ := render(t, storefront.StorePage(storefront.StoreView{Name: "A", PrimaryColor: given}))
		if got := attributes(doc, "rect", "fill"); !slices.Equal(got, []string{given, given}) {
			t.Errorf("%s: areas %q", given, got)
		}
		if got := attributes(doc, "text", "fill"); !slices.Equal(got, []string{ink}) {
			t.Errorf("%s: letters %q, want %s", given, got, ink)
		}
	}
	for _, given := range []string{"", "red", "#12", "#12345", "#1234567", "#ggg", "c2410c", "#fff;}", "url(https://x.example)", "#fff\n"} {
		doc, _ := render(t, storefront.StorePage(storefront.StoreView{Name: "A", PrimaryColor: given}))
		if got := attributes(doc, "", "fill"); len(got) != 0 {
			t.Errorf("%q colours %q", given, got)
		}
	}
}

func TestContactIsALinkOnlyWhenItIsAnAddress(t *testing.T) {
	t.Parallel()
	for given, want := range map[string][]string{
		"owner@example.com":                    {"mailto:owner@example.com"},
		"a?cc=spam@example.com":                {"mailto:a%3Fcc=spam@example.com"},
		"javascript:alert(1)":                  nil,
		"Owner <owner@example.com>":            nil,
		"owner@example.com, other@example.com": nil,
	} {
		doc, text := render(t, storefront.StorePage(storefront.StoreView{ContactEmail: given}))
		if got := attributes(doc, "a", "href"); !slices.Equal(got, want) {
			t.Errorf("%q gives the links %q, want %q", given, got, want)
		}
		if !strings.Contains(text, given) {
			t.Errorf("%q is not shown", given)
		}
	}
}
