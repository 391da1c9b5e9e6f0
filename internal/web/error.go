package web

import (
	"cmp"
	"net/http"
)

// ErrorView fills ErrorPage. An empty Title is replaced by the status text.
type ErrorView struct {
	Status    int
	Title     string
	Detail    string
	RequestID string
}

// statusTitle returns the title of an error that has none.
func statusTitle(status int) string {
	return cmp.Or(http.StatusText(status), "Something went wrong")
}
