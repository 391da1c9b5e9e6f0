package console

import (
	"context"
	"net/http"
	"time"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/operations"
	"github.com/stoahq/stoa/internal/page"
	"github.com/stoahq/stoa/internal/payments"
)

func (c *Console) operatorMoneyRoutes() []Route {
	return []Route{
		{Pattern: "GET /operator/credits", RouteOptions: view(Operator), Handle: c.operatorCredits},
		{Pattern: "POST /operator/credits/grant", RouteOptions: form(Operator), Handle: c.grantCredits},
		{Pattern: "GET /operator/credits/live", RouteOptions: stream(Operator), Handle: c.followVerification},
		{Pattern: "POST /operator/credits/verify", RouteOptions: form(Operator), Handle: c.verifyCredits},
		{Pattern: "GET /operator/prices", RouteOptions: view(Operator), Handle: c.operatorPrices},
		{Pattern: "POST /operator/prices", RouteOptions: form(Operator), Handle: c.setPrice},
		{Pattern: "GET /operator/payments", RouteOptions: view(Operator), Handle: c.operatorPayments},
	}
}

// operatorCreditsView fills the page of grants and of the verification.
type operatorCreditsView struct {
	Form         ui.Form
	Store        string // the slug of the store that the page was opened for
	Key          string // of the next grant
	Verification verificationView
}

// verificationView fills the part of the page that shows the last verification.
type verificationView struct {
	Last *operations.Verification // nil: there was none
	Now  time.Time
}

// running reports whether a verification is under way.
func (v verificationView) running() bool {
	return v.Last != nil && v.Last.State == operations.VerificationRunning && !v.Last.Stalled(v.Now)
}

func (c *Console) readVerification(ctx context.Context, r *Request) (v verificationView, err error) {
	v.Now = c.Master.Now()
	v.Last, err = c.Operations.LastVerification(ctx, r.Principal)
	return v, err
}

func (c *Console) operatorCredits(w http.ResponseWriter, r *Request) error {
	return c.showCredits(w, r, http.StatusOK, operatorCreditsView{})
}

func (c *Console) showCredits(w http.ResponseWriter, r *Request, status int, v operatorCreditsView) error {
	if err := c.Operations.MayGrant(r.Context(), r.Principal); err != nil {
		return err
	}
	var err error
	if v.Verification, err = c.readVerification(r.Context(), r); err != nil {
		return err
	}
	v.Store, v.Key = r.URL.Query().Get("store"), newFormKey()
	if key := v.Form.Values.Get("key"); key != "" {
		v.Key = key
	}
	return c.render(w, r, status, operatorFrame("credits", "Credits"), operatorCreditsPage(v))
}

func (c *Console) grantCredits(w http.ResponseWriter, r *Request) error {
	slug := r.PostForm.Get("store")
	amount, err := grantAmount(r)
	if err == nil {
		store, lookup := c.Stores.GetBySlug(r.Context(), r.Principal, slug)
		if stoa.CodeOf(lookup) == stoa.StoreNotFound {
			var faults stoa.Invalid
			faults.Add("store", "there is no store with this short name")
			lookup = faults.Err()
		}
		if err = lookup; err == nil {
			_, err = c.Operations.GrantCredits(r.Context(), r.Principal,
				operations.Grant{Store: store.ID, Amount: amount, Reason: r.PostForm.Get("reason"), Key: r.PostForm.Get("key")})
		}
	}
	if err != nil {
		f, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showCredits(w, r, f.Status(), operatorCreditsView{Form: f})
	}
	return redirect(w, r, "/operator/credits", amount.String()+" credits were granted to "+slug+".")
}

func grantAmount(r *Request) (credits.Amount, error) {
	amount, err := credits.ParseAmount(r.PostForm.Get("amount"))
	var faults stoa.Invalid
	if err != nil {
		faults.Add("amount", "must be a number of credits with at most 4 decimals, such as 100 or 2.5")
	}
	return amount, faults.Err()
}

func (c *Console) verifyCredits(w http.ResponseWriter, r *Request) error {
	if err := c.Operations.Verify(r.Context(), r.Principal); err != nil {
		return err
	}
	return redirect(w, r, "/operator/credits", "The verification has been started. This page shows its progress.")
}

func (c *Console) followVerification(w http.ResponseWriter, r *Request) error {
	return c.serveLive(w, r, nil, func(ctx context.Context) (templ.Component, bool, error) {
		v, err := c.readVerification(ctx, r)
		return verificationPart(v), err == nil && !v.running(), err
	})
}

// pricesView fills the page of prices.
type pricesView struct {
	Form   ui.Form
	Prices []credits.ListedPrice
	Now    time.Time
	pager
}

// state says whether a price is past, in force or planned.
func (v pricesView) state(p credits.ListedPrice) ui.State {
	switch {
	case p.EffectiveFrom.After(v.Now):
		return ui.State{Word: "Planned", Kind: ui.Info, Icon: "clock"}
	case p.Replaced:
		return ui.State{Word: "Past", Kind: ui.Info, Icon: "archive"}
	}
	return ui.State{Word: "In force", Kind: ui.Success, Icon: "check"}
}

func (c *Console) operatorPrices(w http.ResponseWriter, r *Request) error {
	return c.showPrices(w, r, http.StatusOK, ui.Form{})
}

func (c *Console) showPrices(w http.ResponseWriter, r *Request, status int, f ui.Form) error {
	prices, err := c.Operations.PriceHistory(r.Context(), r.Principal, page.MaxLimit, r.URL.Query().Get("cursor"))
	if err != nil {
		return err
	}
	v := pricesView{Form: f, Prices: prices.Prices, Now: c.Master.Now(), pager: newPager(r, prices.NextCursor)}
	return c.render(w, r, status, operatorFrame("prices", "Prices"), pricesPage(v))
}

// formTime is how a browser sends a date and time.
const formTime = "2006-01-02T15:04"

func (c *Console) setPrice(w http.ResponseWriter, r *Request) error {
	price := credits.Price{ServiceKey: r.PostForm.Get("service"), Unit: r.PostForm.Get("unit"), Description: r.PostForm.Get("description")}
	var faults stoa.Invalid
	var err error
	if price.UnitPrice, err = credits.ParseAmount(r.PostForm.Get("price")); err != nil {
		faults.Add("price", "must be a number of credits with at most 4 decimals, such as 0.25")
	}
	if from := r.PostForm.Get("from"); from != "" {
		if price.EffectiveFrom, err = time.Parse(formTime, from); err != nil {
			faults.Add("from", "must be a date and time")
		}
	}
	added := false
	if err = faults.Err(); err == nil {
		price, added, err = c.Operations.SetPrice(r.Context(), r.Principal, price)
	}
	if err != nil {
		f, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showPrices(w, r, f.Status(), f)
	}
	if !added {
		return redirect(w, r, "/operator/prices", "This price is in force at that time already. Nothing was changed.")
	}
	return redirect(w, r, "/operator/prices", "The price of "+price.ServiceKey+" is "+price.UnitPrice.String()+" credits from "+price.EffectiveFrom.Format("2 January 2006 15:04 UTC")+".")
}

// operatorPaymentsView fills the list of payments.
type operatorPaymentsView struct {
	Status    payments.Status
	Purchases []payments.Listed
	pager
}

func (c *Console) operatorPayments(w http.ResponseWriter, r *Request) error {
	v := operatorPaymentsView{Status: payments.Status(r.URL.Query().Get("status"))}
	page, err := c.Payments.ListForOperator(r.Context(), r.Principal, v.Status, 0, r.URL.Query().Get("cursor"))
	if err != nil {
		return err
	}
	v.Purchases, v.pager = page.Purchases, newPager(r, page.NextCursor)
	return c.render(w, r, http.StatusOK, operatorFrame("payments", "Payments"), operatorPaymentsPage(v))
}

func paymentState(s payments.Status) ui.State {
	switch s {
	case payments.Paid:
		return ui.State{Word: "Paid", Kind: ui.Success, Icon: "check"}
	case payments.Mismatched:
		return ui.State{Word: "Does not match", Kind: ui.Danger, Icon: "alert"}
	case payments.Refunded:
		return ui.State{Word: "Refunded", Kind: ui.Info, Icon: "archive"}
	case payments.Expired:
		return ui.State{Word: "Expired", Kind: ui.Info, Icon: "clock"}
	case payments.Pending:
	}
	return ui.State{Word: "Waiting for payment", Kind: ui.Info, Icon: "clock"}
}
