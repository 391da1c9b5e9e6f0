// Package storefront holds the page at a store's hostname.
package storefront

// StoreView fills StorePage. All its texts come from the merchant: an invalid link or
// colour is omitted.
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
