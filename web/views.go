package web

// LandingView fills LandingPage.
type LandingView struct {
	BaseURL     string // of the platform, such as http://localhost:3000
	Version     string
	Development bool // shows the commands of the first minute
}

// StoreView fills StorePage. All of it is the merchant's own text: a link or
// a colour that is not fit to be used is left out.
type StoreView struct {
	Name         string
	Description  string
	LogoURL      string
	Currency     string // ISO 4217, of products that name none
	Locale       string // BCP 47; English when empty
	PrimaryColor string // #rgb or #rrggbb
	ContactEmail string
	Products     []ProductView
}

// ProductView is one product of a StoreView. An empty Price shows none.
type ProductView struct {
	Name        string
	Description string
	Price       string // decimal, such as "12.50"
	Currency    string
	ImageURL    string
	ImageAlt    string
	SoldOut     bool
}

// CheckoutView fills CheckoutPage. The Pay button is there when PayURL is set
// and the purchase is still to be paid.
type CheckoutView struct {
	PurchaseID string
	Credits    string // decimal
	Amount     string // decimal, such as "10.00"
	Currency   string
	Status     string // pending, paid, expired or refunded
	PayURL     string // takes a POST without a body
	Paid       bool   // also true of the status paid
}

// ErrorView fills ErrorPage. An empty Title becomes the status's own text.
type ErrorView struct {
	Status    int
	Title     string
	Detail    string
	RequestID string
}

// NoteView fills NotePage.
type NoteView struct {
	Title string
	Text  string
}
