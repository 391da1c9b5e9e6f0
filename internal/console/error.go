package console

import (
	"cmp"
	"net/http"
)

// ErrorView fills the page of an error.
type ErrorView struct {
	Status    int
	Title     string // unless stated, the status in words
	Detail    string
	RequestID string
}

// Error writes the page of an error in the console's frame.
func (c *Console) Error(w http.ResponseWriter, r *Request, v ErrorView) error {
	v.Title = cmp.Or(v.Title, http.StatusText(v.Status), "Something went wrong")
	return c.render(w, r, v.Status, formFrame(v.Title), errorPage(v, r.SignedIn()))
}
