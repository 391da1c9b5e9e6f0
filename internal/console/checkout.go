package console

import (
	"net/http"
	"net/url"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/web"
)

func (c *Console) checkoutRoutes() []Route {
	routes := []Route{{Pattern: "GET /checkout/{outcome}", RouteOptions: view(Optional), Handle: c.checkoutReturn}}
	if c.Sandbox {
		routes = append(routes,
			Route{Pattern: "GET /sandbox/checkout/{ref}", RouteOptions: view(Optional), Handle: c.sandboxCheckout},
			Route{Pattern: "POST /sandbox/checkout/{ref}/pay", RouteOptions: form(Optional), Handle: c.sandboxPay})
	}
	return routes
}

// checkoutView fills the sandbox's payment page.
type checkoutView struct {
	Purchase payments.Purchase
	PayURL   string // takes a POST without a body
	Back     string // the store's credits; empty for a visitor who may not see them
	Store    string // its name
}

// outcomeView fills the page to which the payment provider sends the buyer.
type outcomeView struct {
	Title, Text string
	SignIn      string // leads back here; empty when somebody is signed in
}

// checkoutReturn serves the page to which the payment provider sends the buyer
// afterwards. It leads on to the purchase's page, or to the store's settings of automatic
// recharges, which show the outcome: it arrives as an event. The address names them, which
// anybody can write: it leads only to what the person who is signed in may see.
func (c *Console) checkoutReturn(w http.ResponseWriter, r *Request) error {
	v, ok := map[string]outcomeView{
		"done":      {Title: "Thank you", Text: "The credits are added to the store’s balance as soon as the payment is confirmed. The purchase’s page shows it by itself."},
		"saved":     {Title: "Card saved", Text: "Automatic recharges can be switched on in a moment, on the store’s page of credits."},
		"cancelled": {Title: "Nothing was paid", Text: "Nothing was paid. The payment page stays open for a day. You find it in the store’s list of purchases."},
	}[r.PathValue("outcome")]
	if !ok {
		return notFound()
	}
	if !r.SignedIn() {
		v.SignIn = "/signin?next=" + url.QueryEscape(r.URL.RequestURI())
		return c.render(w, r, http.StatusOK, formFrame(v.Title), outcomePage(v))
	}
	target, err := c.checkoutTarget(r)
	if err != nil {
		return err
	}
	if target != "" {
		return redirect(w, r, target, v.Text)
	}
	return c.render(w, r, http.StatusOK, formFrame(v.Title), outcomePage(v))
}

// checkoutTarget returns the page of the purchase or store that the address names, or ""
// if the caller may not see it.
func (c *Console) checkoutTarget(r *Request) (string, error) {
	query, page := r.URL.Query(), "/settings"
	id, _ := stoa.ParseID[stoa.StoreID](query.Get("store")) // an invalid id becomes the zero id, which no store has
	if query.Has("purchase") {
		purchase, _ := stoa.ParseID[stoa.PurchaseID](query.Get("purchase"))
		p, err := c.Payments.Find(r.Context(), r.Principal, purchase)
		if err != nil {
			return "", exceptNotFound(err)
		}
		id, page = p.StoreID, "/purchases/"+p.ID.String()
	}
	store, err := c.Stores.Get(r.Context(), r.Principal, id)
	if err != nil {
		return "", exceptNotFound(err)
	}
	if page == "/settings" && !store.Role.Can(authz.PurchaseCredits) {
		page = ""
	}
	return creditsURL(store, page), nil
}

// exceptNotFound returns nil for an error that says that the caller may not see something.
func exceptNotFound(err error) error {
	switch stoa.CodeOf(err) { //nolint:exhaustive // all others are faults
	case stoa.NotFound, stoa.StoreNotFound, stoa.Forbidden:
		return nil
	}
	return err
}

// sandboxCheckout serves the sandbox's counterpart of the payment provider's page.
// Anyone who has its address can open it and pay.
func (c *Console) sandboxCheckout(w http.ResponseWriter, r *Request) error {
	p, err := c.Payments.Checkout(r.Context(), r.PathValue("ref"))
	if err != nil {
		return err
	}
	v := checkoutView{Purchase: p, PayURL: r.URL.EscapedPath() + "/pay"}
	if r.SignedIn() {
		if store, err := c.Stores.Get(r.Context(), r.Principal, p.StoreID); err == nil {
			v.Back, v.Store = creditsURL(store, ""), store.Name
		}
	}
	return c.render(w, r, http.StatusOK, formFrame(checkoutTitle(p)), checkoutPage(v))
}

// sandboxPay pays and leads back to the payment page, which shows the outcome.
func (c *Console) sandboxPay(w http.ResponseWriter, r *Request) error {
	ref := r.PathValue("ref")
	if err := c.Payments.Pay(r.Context(), ref); err != nil {
		return err
	}
	return redirect(w, r, "/sandbox/checkout/"+url.PathEscape(ref), "")
}

func checkoutTitle(p payments.Purchase) string {
	switch p.Status {
	case payments.Paid:
		return "Paid, thank you"
	case payments.Pending:
		return "Buy credits"
	case payments.Expired, payments.Refunded, payments.Mismatched:
	}
	return "Nothing to pay"
}

func priceOf(p payments.Purchase) string { return web.Price(p.AmountDecimal(), p.Currency) }
