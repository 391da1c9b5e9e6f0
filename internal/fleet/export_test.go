package fleet

import "github.com/stoahq/stoa"

// FailedQuery is a statement of Failed with its arguments.
type FailedQuery struct {
	SQL  string
	Args []any
}

// FailedQueries are the statements of Failed, by what they do.
func FailedQueries() map[string]FailedQuery {
	return map[string]FailedQuery{"list": {selectFailed, []any{stoa.NewID[stoa.StoreID](), 21}}, "count": {countFailed, nil}}
}
