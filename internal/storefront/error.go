package storefront

import "net/http"

// ErrorView fills ErrorPage.
type ErrorView struct {
	Status int
	Text   string
	Home   bool // the store has a home page to go to
}

// title returns the heading of the page.
func (v ErrorView) title() string {
	switch {
	case v.Status == http.StatusNotFound:
		return "Page not found"
	case v.Status == http.StatusTooManyRequests || v.Status >= http.StatusInternalServerError:
		return "Not available at the moment"
	default:
		return "This did not work"
	}
}
