package console

import "strings"

// pager has the addresses of the neighbouring pages of a list, "" for none.
type pager struct {
	Newer string // the first page, from any later one
	Older string
}

// newPager returns the neighbours of the page that r asks for, with its filter. next is
// the cursor of the next page.
func newPager(r *Request, next *string) (p pager) {
	query, path := r.URL.Query(), strings.TrimSuffix(r.URL.Path, "/live")
	if query.Has("cursor") {
		query.Del("cursor")
		p.Newer = path + "?" + query.Encode()
	}
	if next != nil {
		query.Set("cursor", *next)
		p.Older = path + "?" + query.Encode()
	}
	return p
}
