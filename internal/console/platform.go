package console

// LandingView fills the platform's home page.
type LandingView struct {
	BaseURL     string // of the platform, such as http://localhost:3000
	Version     string
	Development bool // shows the quick start
}

// CheckoutView fills CheckoutPage. The Pay button is shown when PayURL is set and
// the purchase can still be paid.
type CheckoutView struct {
	PurchaseID string
	Credits    string // decimal
	Amount     string // decimal, such as "10.00"
	Currency   string
	Status     string // pending, paid, expired or refunded
	PayURL     string // takes a POST without a body
	Paid       bool   // also true of the status paid
}

// NoteView fills NotePage.
type NoteView struct {
	Title string
	Text  string
}
