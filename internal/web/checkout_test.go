package web_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/console"
)

func TestCheckoutPage(t *testing.T) {
	t.Parallel()
	pending := console.CheckoutView{PurchaseID: "0198", Credits: "100", Amount: "10.00", Currency: "EUR",
		Status: "pending", PayURL: "/api/sandbox/0198/pay"}
	paid, settled, expired := pending, pending, pending
	paid.Paid, paid.Status = true, "paid"
	settled.Status = "paid" // and Paid was not set
	expired.Status = "expired"

	for name, c := range map[string]struct {
		view console.CheckoutView
		form bool
		text string
	}{
		"pending": {pending, true, "Pay 10.00 EUR"},
		"paid":    {paid, false, "GET /api/credits/balance"},
		"settled": {settled, false, "GET /api/credits/balance"},
		"expired": {expired, false, "POST /api/credits/purchase"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			doc, text := render(t, console.CheckoutPage(c.view))
			checkHarmless(t, doc)
			for _, want := range []string{"This is a sandbox. No money moves", "100", "10.00 EUR", "0198", c.text} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in:\n%s", want, text)
				}
			}
			var want []string
			if c.form {
				want = []string{"/api/sandbox/0198/pay"}
			}
			if got := attributes(doc, "form", "action"); !slices.Equal(got, want) {
				t.Errorf("forms %q, want %q", got, want)
			}
			if c.form && !slices.Equal(attributes(doc, "form", "method"), []string{"post"}) {
				t.Error("the form is not a POST")
			}
		})
	}
}

func TestNotePage(t *testing.T) {
	t.Parallel()
	doc, text := render(t, console.NotePage(console.NoteView{Title: "Thank <b>you</b>", Text: "Soon & surely"}))
	checkHarmless(t, doc)
	for _, want := range []string{"Thank <b>you</b>", "Soon & surely"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

func TestPayButtonLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	doc, _ := render(t, console.CheckoutPage(console.CheckoutView{PayURL: "javascript:alert(1)"}))
	if got := attributes(doc, "form", "action"); !slices.Equal(got, []string{"about:invalid#TemplFailedSanitizationURL"}) {
		t.Errorf("the form leads to %q", got)
	}
}
