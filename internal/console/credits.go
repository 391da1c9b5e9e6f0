package console

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/web"
)

func (c *Console) creditRoutes() []Route {
	read, buy, spend := scopeOf(authz.ReadCredits), scopeOf(authz.PurchaseCredits), scopeOf(authz.SpendCredits)
	return []Route{
		{Pattern: "GET /stores/{slug}/credits", RouteOptions: view(read), Handle: c.credits},
		{Pattern: "GET /stores/{slug}/credits/history.csv", RouteOptions: download(read), Handle: c.creditHistory},
		{Pattern: "GET /stores/{slug}/credits/holds", RouteOptions: view(read), Handle: c.holds},
		{Pattern: "POST /stores/{slug}/credits/holds/{id}/release", RouteOptions: form(spend), Handle: c.releaseHold},
		{Pattern: "GET /stores/{slug}/credits/buy", RouteOptions: view(buy), Handle: c.buyForm},
		{Pattern: "POST /stores/{slug}/credits/buy", RouteOptions: form(buy), Handle: c.buy},
		{Pattern: "GET /stores/{slug}/credits/purchases", RouteOptions: view(read), Handle: c.purchases},
		{Pattern: "GET /stores/{slug}/credits/purchases/{id}", RouteOptions: view(read), Handle: c.purchase},
		{Pattern: "GET /stores/{slug}/credits/purchases/{id}/live", RouteOptions: stream(read), Handle: c.livePurchase},
		{Pattern: "GET /stores/{slug}/credits/settings", RouteOptions: view(buy), Handle: c.creditSettings},
		{Pattern: "POST /stores/{slug}/credits/settings", RouteOptions: form(buy), Handle: c.setCreditSettings},
		{Pattern: "POST /stores/{slug}/credits/auto-recharge", RouteOptions: form(buy), Handle: c.setAutoRecharge},
		{Pattern: "POST /stores/{slug}/credits/card", RouteOptions: form(buy), Handle: c.saveCard},
	}
}

// creditsURL returns the address of a store's credits or of a page below them.
func creditsURL(s stores.Store, page string) string { return "/stores/" + s.Slug + "/credits" + page }

// creditTabs are the pages below a store's credits that its role may open.
type creditTabs struct {
	Store   stores.Store
	Current string // the end of the page's address
	MayBuy  bool
}

func newCreditTabs(s stores.Store, current string) creditTabs {
	return creditTabs{Store: s, Current: current, MayBuy: s.Role.Can(authz.PurchaseCredits)}
}

// creditsView fills the page of a store's credits.
type creditsView struct {
	Tabs     creditTabs
	Store    stores.Store
	Balance  credits.Balance
	Days     int // of the charts
	Stats    credits.Statistics
	Balances ui.Chart
	Flows    ui.Chart

	Form     ui.Form // of the filter
	Types    []ui.Option
	Services []ui.Option
	Rows     []credits.Transaction
	Filtered bool
	pager
	CSV string
}

// historyRows is how many transactions a page shows.
const historyRows = 25

// creditPeriods are the periods that the charts offer, in days.
var creditPeriods = []int{30, 90}

func (c *Console) credits(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	query := r.URL.Query()
	v := creditsView{Tabs: newCreditTabs(store, ""), Store: store, Days: creditPeriods[0], Form: ui.Form{Values: filterValues(query)}}
	if query.Get("days") == strconv.Itoa(creditPeriods[1]) {
		v.Days = creditPeriods[1]
	}
	if v.Balance, err = c.Credits.Balance(r.Context(), r.Principal, store.ID); err != nil {
		return err
	}
	if v.Stats, err = c.Credits.Statistics(r.Context(), r.Principal, store.ID, v.Days); err != nil {
		return err
	}
	v.Balances, v.Flows = creditCharts(v.Stats)
	if err := c.readHistory(r, &v); err != nil {
		return err
	}
	return c.render(w, r, v.Form.Status(), storeFrame(store, "credits", "Credits"), creditsPage(v))
}

// readHistory reads the transactions that the address selects. A fault of the filter
// stands beside its field.
func (c *Console) readHistory(r *Request, v *creditsView) error {
	prices, err := c.Credits.Prices(r.Context(), c.Master.Now())
	if err != nil {
		return err
	}
	v.Types, v.Services = transactionTypes(), []ui.Option{{Value: "", Label: "All"}}
	for _, p := range prices {
		v.Services = append(v.Services, ui.Option{Value: p.ServiceKey, Label: p.ServiceKey})
	}
	query := r.URL.Query()
	filter, err := historyFilter(query)
	if err == nil {
		filter.Limit, filter.Cursor = historyRows, query.Get("cursor")
		var page credits.Page
		if page, err = c.Credits.Transactions(r.Context(), r.Principal, v.Store.ID, filter); err == nil {
			v.Rows = page.Transactions
			v.pager = newPager(r, page.NextCursor)
		}
	}
	if err != nil {
		r.PostForm = query // refused keeps what was typed
		if v.Form, err = refused(r, err); err != nil {
			return err
		}
	}
	for _, name := range historyFields {
		v.Filtered = v.Filtered || query.Get(name) != ""
	}
	v.CSV = creditsURL(v.Store, "/history.csv?") + filterValues(query).Encode()
	return nil
}

// historyFields are the parameters that select transactions.
var historyFields = []string{"type", "serviceKey", "from", "to"}

func filterValues(query url.Values) url.Values {
	out := url.Values{}
	for _, name := range historyFields {
		if value := query.Get(name); value != "" {
			out.Set(name, value)
		}
	}
	return out
}

// historyFilter reads the filter of the history. Days are those of UTC, and the last
// one is included.
func historyFilter(query url.Values) (credits.Filter, error) {
	f := credits.Filter{Type: credits.Type(query.Get("type")), ServiceKey: query.Get("serviceKey")}
	var faults stoa.Invalid
	f.From = queryDay(query, "from", 0, &faults)
	f.To = queryDay(query, "to", 1, &faults)
	return f, faults.Err()
}

func queryDay(query url.Values, name string, plus int, faults *stoa.Invalid) *time.Time {
	text := query.Get(name)
	if text == "" {
		return nil
	}
	day, err := time.Parse(time.DateOnly, text)
	if err != nil {
		faults.Add(name, "must be a date like 2026-01-31")
		return nil
	}
	day = day.AddDate(0, 0, plus)
	return &day
}

func transactionTypes() []ui.Option {
	out := []ui.Option{{Value: "", Label: "All"}}
	for _, t := range []credits.Type{
		credits.TypePurchase, credits.TypeSpend, credits.TypeCapture, credits.TypeRefund, credits.TypeDispute, credits.TypeAdjustment,
		credits.TypeBonus, credits.TypeExpiry,
	} {
		out = append(out, ui.Option{Value: string(t), Label: typeWords[t]})
	}
	return out
}

var typeWords = map[credits.Type]string{
	credits.TypePurchase: "Purchase", credits.TypeSpend: "Spend", credits.TypeCapture: "Captured hold", credits.TypeRefund: "Refund",
	credits.TypeDispute: "Dispute", credits.TypeAdjustment: "Adjustment", credits.TypeBonus: "Bonus", credits.TypeExpiry: "Expired",
}

// creditCharts returns the charts of the balance and of what was bought and spent.
func creditCharts(s credits.Statistics) (balance, flows ui.Chart) {
	labels := make([]string, len(s.Days))
	balances, bought, spent := make([]float64, len(s.Days)), make([]float64, len(s.Days)), make([]float64, len(s.Days))
	for i, d := range s.Days {
		labels[i] = d.Date.Format("2 Jan")
		balances[i], bought[i], spent[i] = creditNumber(d.Balance), creditNumber(d.Purchased), creditNumber(d.Spent)
	}
	balance = ui.Chart{Title: "Balance at the end of each day", Unit: "credits", Labels: labels, Series: []ui.Series{{Name: "Balance", Values: balances}}}
	flows = ui.Chart{Title: "Bought and spent per day", Unit: "credits", Labels: labels, Columns: true,
		Series: []ui.Series{{Name: "Spent", Values: spent}, {Name: "Bought", Values: bought}}}
	return balance, flows
}

// creditNumber is an amount for a drawing; amounts in text stay exact.
func creditNumber(a credits.Amount) float64 { return float64(a) / float64(credits.Credit) }

// shareOf returns how much of the largest spend this one is, in percent.
func shareOf(s credits.ServiceSpend, all []credits.ServiceSpend) string {
	var most credits.Amount
	for _, other := range all {
		most = max(most, other.Spent)
	}
	if most <= 0 {
		return "0"
	}
	return strconv.FormatFloat(100*float64(s.Spent)/float64(most), 'f', 1, 64)
}

func serviceWords(s credits.ServiceSpend) string {
	switch {
	case s.Others:
		return "All others"
	case s.ServiceKey == "":
		return "Without a service"
	}
	return s.ServiceKey
}

// creditHistory sends the whole filtered history as a file.
func (c *Console) creditHistory(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	filter, err := historyFilter(r.URL.Query())
	if err != nil {
		return err
	}
	rows, err := c.Credits.History(r.Context(), r.Principal, store.ID, filter)
	if err != nil {
		return err
	}
	web.ServeCSV(w, r.Request, c.Log, "credits-"+store.Slug, credits.ColumnNames, func(t credits.Transaction) []string {
		return t.Columns(web.EscapeFormula)
	}, rows)
	return nil
}

// holdsView fills the page of a store's holds.
type holdsView struct {
	Tabs       creditTabs
	Store      stores.Store
	Holds      []credits.Hold
	All        bool // also those that have ended
	MayRelease bool
	pager
}

func (c *Console) holds(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	v := holdsView{Tabs: newCreditTabs(store, "/holds"), Store: store, All: r.URL.Query().Get("state") == "all", MayRelease: store.Role.Can(authz.SpendCredits)}
	filter := credits.HoldFilter{State: credits.HoldOpen, Limit: historyRows, Cursor: r.URL.Query().Get("cursor")}
	if v.All {
		filter.State = ""
	}
	page, err := c.Credits.Holds(r.Context(), r.Principal, store.ID, filter)
	if err != nil {
		return err
	}
	v.Holds = page.Holds
	v.pager = newPager(r, page.NextCursor)
	return c.render(w, r, http.StatusOK, storeFrame(store, "credits", "Holds"), holdsPage(v))
}

// releaseHold makes the credits of a hold available again. A second click changes
// nothing, since the form has a key.
func (c *Console) releaseHold(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	id, _ := stoa.ParseID[stoa.HoldID](r.PathValue("id")) // an invalid id becomes the zero id, which no hold has
	_, err = c.Credits.Release(r.Context(), r.Principal, store.ID, id, "console:"+id.String())
	switch stoa.CodeOf(err) { //nolint:exhaustive // all others are errors of the page
	case stoa.HoldNotOpen, stoa.HoldNotFound:
		return redirect(w, r, creditsURL(store, "/holds"), messageOf(err))
	case "":
		return redirect(w, r, creditsURL(store, "/holds"), "The hold was released. Its credits can be spent again.")
	}
	return err
}
