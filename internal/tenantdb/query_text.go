package tenantdb

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jmoiron/sqlx"
)

// These bytes mark an expression that is to be cut. No SQL contains them.
const (
	cutTextMark, cutAnyMark = "\x01", "\x02"
	cutLimitMark, cutEnd    = "\x03", "\x04"
)

// CutText returns SQL for the first limit characters of a text, for use in a query of this
// package's methods.
func CutText(expression string, limit int) string {
	return cutTextMark + expression + cutLimitMark + strconv.Itoa(limit) + cutEnd
}

// CutAny is like CutText, for an expression of another type, such as an id or JSON. NULL may
// become an empty text.
func CutAny(expression string, limit int) string {
	return cutAnyMark + expression + cutLimitMark + strconv.Itoa(limit) + cutEnd
}

// text returns a query as the driver takes it.
func (db *DB) text(query string) string { return db.dialect.text(query) }

// text returns a query as the dialect's driver takes it: with its placeholders and its way to
// cut an expression. It keeps texts that differ from their query.
func (d *dialect) text(query string) string {
	if known, ok := d.texts.get(query); ok {
		return known
	}
	text := sqlx.Rebind(sqlx.BindType(d.driver), replaceCuts(replaceCuts(query, cutTextMark, d.cutText), cutAnyMark, d.cutAny))
	if text != query && len(query) <= maxKeptQuery { // a statement that sets a user's password holds it, and has no parameters
		d.texts.put(query, text)
	}
	return text
}

// replaceCuts replaces the expressions after a mark. form has verbs for the expression and the
// limit.
func replaceCuts(query, mark, form string) string {
	for {
		before, rest, found := strings.Cut(query, mark)
		if !found {
			return query
		}
		cut, after, _ := strings.Cut(rest, cutEnd)
		expression, limit, _ := strings.Cut(cut, cutLimitMark)
		query = before + fmt.Sprintf(form, expression, limit) + after
	}
}

// These constants limit a queryTexts. Some queries name tables of a store's own, of which
// there may be any number, and insert many rows.
const (
	maxTexts     = 1 << 10 // queries
	maxKeptQuery = 4 << 10 // bytes of one; that of a store's profile has 1 KiB
)

// queryTexts keeps the texts of queries, by the query. It forgets all of them when there are
// too many. It is safe for concurrent use.
type queryTexts struct {
	kept  sync.Map
	count atomic.Int64
}

func (t *queryTexts) get(query string) (string, bool) {
	text, ok := t.kept.Load(query)
	if !ok {
		return "", false
	}
	return text.(string), true
}

func (t *queryTexts) put(query, text string) {
	if t.count.Add(1) > maxTexts {
		t.kept.Clear()
		t.count.Store(1)
	}
	t.kept.Store(query, text)
}
