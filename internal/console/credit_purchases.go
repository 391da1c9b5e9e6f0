package console

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/stores"
)

// buyView fills the form that buys credits.
type buyView struct {
	Tabs  creditTabs
	Store stores.Store
	Form  ui.Form
	Key   string // makes a second submit of the same form return the same purchase
}

func (c *Console) buyForm(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.PurchaseCredits)
	if err != nil {
		return err
	}
	return c.showBuyForm(w, r, buyView{Store: store, Key: newFormKey()})
}

func (c *Console) showBuyForm(w http.ResponseWriter, r *Request, v buyView) error {
	v.Tabs = newCreditTabs(v.Store, "/buy")
	return c.render(w, r, v.Form.Status(), storeFrame(v.Store, "credits", "Buy credits"), buyPage(v))
}

// buy begins a purchase. The sandbox's payment page is on this host; the page of the
// purchase links to any other one: the Content-Security-Policy lets no form lead to
// another site.
func (c *Console) buy(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.PurchaseCredits)
	if err != nil {
		return err
	}
	key := r.PostForm.Get("key")
	amount, err := formAmount(r, "credits")
	var p payments.PurchaseResult
	if err == nil {
		p, err = c.Payments.Purchase(r.Context(), r.Principal, store.ID, payments.PurchaseRequest{Credits: amount, IdempotencyKey: key})
	}
	if stoa.CodeOf(err) == stoa.IdempotencyConflict {
		key = newFormKey()
		err = stoa.Errorf(stoa.InvalidRequest, "This form has begun a purchase already, which is in your list. Send it again to begin another one.")
	}
	if err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showBuyForm(w, r, buyView{Store: store, Form: form, Key: key})
	}
	if p.Provider == payments.Sandbox {
		if u, err := url.Parse(p.CheckoutURL); err == nil && p.Status == payments.Pending {
			return redirect(w, r, u.EscapedPath(), "")
		}
	}
	return redirect(w, r, creditsURL(store, "/purchases/"+p.ID.String()), "")
}

// formAmount reads an amount of credits from a field.
func formAmount(r *Request, field string) (credits.Amount, error) {
	amount, err := credits.ParseAmount(strings.TrimSpace(r.PostForm.Get(field)))
	if err != nil {
		var faults stoa.Invalid
		faults.Add(field, "%v", err)
		return 0, faults.Err()
	}
	return amount, nil
}

// purchasesView fills the list of a store's purchases.
type purchasesView struct {
	Tabs      creditTabs
	Store     stores.Store
	Purchases []payments.Purchase
	pager
}

func (c *Console) purchases(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	page, err := c.Payments.List(r.Context(), r.Principal, store.ID, historyRows, r.URL.Query().Get("cursor"))
	if err != nil {
		return err
	}
	v := purchasesView{Tabs: newCreditTabs(store, "/purchases"), Store: store, Purchases: page.Purchases}
	v.pager = newPager(r, page.NextCursor)
	return c.render(w, r, http.StatusOK, storeFrame(store, "credits", "Purchases"), purchasesPage(v))
}

// purchaseView fills the page of one purchase.
type purchaseView struct {
	Tabs     creditTabs
	Store    stores.Store
	Purchase payments.Purchase
	Checkout string // where the buyer pays; empty when there is nothing to pay
}

func (c *Console) purchase(w http.ResponseWriter, r *Request) error {
	v, err := c.readPurchase(r)
	if err != nil {
		return err
	}
	return c.render(w, r, http.StatusOK, storeFrame(v.Store, "credits", "Purchase"), purchasePage(v))
}

func (c *Console) readPurchase(r *Request) (purchaseView, error) {
	store, err := c.store(r)
	if err != nil {
		return purchaseView{}, err
	}
	id, _ := stoa.ParseID[stoa.PurchaseID](r.PathValue("id")) // an invalid id becomes the zero id, which no purchase has
	p, err := c.Payments.Get(r.Context(), r.Principal, store.ID, id)
	if err != nil {
		return purchaseView{}, err
	}
	v := purchaseView{Tabs: newCreditTabs(store, "/purchases"), Store: store, Purchase: p}
	if p.Status == payments.Pending {
		v.Checkout = p.CheckoutURL
	}
	return v, nil
}

// livePurchase sends the purchase again until it is decided.
func (c *Console) livePurchase(w http.ResponseWriter, r *Request) error {
	return c.serveLive(w, r, nil, func(ctx context.Context) (templ.Component, bool, error) {
		at := *r
		at.Request = r.WithContext(ctx)
		v, err := c.readPurchase(&at)
		if err != nil {
			return nil, false, err
		}
		return purchaseFacts(v), v.Purchase.Status != payments.Pending, nil
	})
}

// purchaseState returns a purchase's state in words.
func purchaseState(p payments.Purchase) ui.State {
	switch p.Status {
	case payments.Pending:
		return ui.State{Word: "Waiting for payment", Kind: ui.Info, Icon: "clock"}
	case payments.Paid:
		return ui.State{Word: "Paid", Kind: ui.Success, Icon: "check"}
	case payments.Expired:
		return ui.State{Word: "Expired", Kind: ui.Warning, Icon: "clock"}
	case payments.Refunded:
		return ui.State{Word: "Refunded", Kind: ui.Warning, Icon: "pause"}
	case payments.Mismatched:
		return ui.State{Word: "Another amount was paid", Kind: ui.Danger, Icon: "alert"}
	}
	return ui.State{Word: string(p.Status), Kind: ui.Info, Icon: "info"}
}

// creditSettingsView fills the page of the low-balance mail and of automatic recharges.
type creditSettingsView struct {
	Tabs     creditTabs
	Store    stores.Store
	Settings credits.Settings
	Recharge payments.AutoRecharge
	Mail     ui.Form // of the low-balance mail
	Form     ui.Form // of automatic recharges
}

func (c *Console) creditSettings(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	return c.showCreditSettings(w, r, creditSettingsView{Store: store})
}

func (c *Console) showCreditSettings(w http.ResponseWriter, r *Request, v creditSettingsView) (err error) {
	v.Tabs = newCreditTabs(v.Store, "/settings")
	if v.Settings, err = c.Credits.Settings(r.Context(), r.Principal, v.Store.ID); err != nil {
		return err
	}
	if v.Recharge, err = c.Payments.AutoRecharge(r.Context(), r.Principal, v.Store.ID); err != nil {
		return err
	}
	status := max(v.Mail.Status(), v.Form.Status())
	return c.render(w, r, status, storeFrame(v.Store, "credits", "Low-balance mail and auto-recharge"), creditSettingsPage(v))
}

func (c *Console) setCreditSettings(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	var s credits.Settings
	message := "No mail is sent when credits run low."
	if strings.TrimSpace(r.PostForm.Get("lowBalanceThreshold")) != "" {
		var amount credits.Amount
		amount, err = formAmount(r, "lowBalanceThreshold")
		s.LowBalance = &amount
		message = "Owners get a mail when fewer than " + amount.String() + " credits are available."
	}
	if err == nil {
		err = c.Credits.SetSettings(r.Context(), r.Principal, store.ID, s, nil)
	}
	if err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showCreditSettings(w, r, creditSettingsView{Store: store, Mail: form})
	}
	return redirect(w, r, creditsURL(store, "/settings"), message)
}

func (c *Console) setAutoRecharge(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	req, err := autoRechargeRequest(r)
	if err == nil {
		_, err = c.Payments.SetAutoRecharge(r.Context(), r.Principal, store.ID, req)
	}
	if err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showCreditSettings(w, r, creditSettingsView{Store: store, Form: form})
	}
	message := "Automatic recharges are off."
	if req.Enabled {
		message = "Automatic recharges are on."
	}
	return redirect(w, r, creditsURL(store, "/settings"), message)
}

// autoRechargeRequest reads the form and names every amount that is none.
func autoRechargeRequest(r *Request) (payments.AutoRechargeRequest, error) {
	req := payments.AutoRechargeRequest{Enabled: r.PostForm.Get("enabled") != ""}
	var faults stoa.Invalid
	for name, to := range map[string]*credits.Amount{"threshold": &req.Threshold, "credits": &req.Credits, "monthlyCap": &req.MonthlyCap} {
		amount, err := credits.ParseAmount(strings.TrimSpace(r.PostForm.Get(name)))
		if err != nil {
			faults.Add(name, "%v", err)
		}
		*to = amount
	}
	return req, faults.Err()
}

// saveCard leads to the provider's page where a card is saved, by a page with a link:
// the Content-Security-Policy lets no form lead to another site.
func (c *Console) saveCard(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	target, err := c.Payments.SaveCard(r.Context(), r.Principal, store.ID, r.PostForm.Get("key"))
	if err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showCreditSettings(w, r, creditSettingsView{Store: store, Form: form})
	}
	return c.render(w, r, http.StatusOK, storeFrame(store, "credits", "Save a card"), saveCardPage(newCreditTabs(store, "/settings"), target))
}

// stopWords says why the platform has switched automatic recharges off.
var stopWords = map[string]string{
	"declined":                "the card was declined",
	"authentication_required": "the bank wants the owner to confirm each payment",
	"refused":                 "the payment provider refused the charge",
	"disputed":                "a charge was disputed",
	"refunded":                "a charge was refunded",
	"mismatched":              "another amount was paid than was asked for",
	"not_permitted":           "whoever switched them on may not buy credits any more",
}

func stopReason(reason string) string {
	if words, ok := stopWords[reason]; ok {
		return words
	}
	return reason
}

// lowBalanceValue is the threshold as the form shows it at first.
func lowBalanceValue(s credits.Settings) string {
	if s.LowBalance == nil {
		return ""
	}
	return s.LowBalance.String()
}

// amountValue is an amount as a form shows it at first: a suggestion while none is set.
func amountValue(a credits.Amount, suggestion string) string {
	if a == 0 {
		return suggestion
	}
	return a.String()
}
