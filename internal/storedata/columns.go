package storedata

import (
	"reflect"
	"strconv"
	"strings"

	"github.com/stoahq/stoa/internal/tenantdb"
)

// A merchant's database may contain more than the schema allows: a constraint can be
// dropped and a table replaced by a view. So each query limits what it reads. A text is
// cut one character after its limit. tenantdb recognizes by that character that the text
// is too long and refuses it, so a text that was cut is never used.

// idLength is the number of characters of an id.
const idLength = 36

// cutText returns SQL for a text of at most limit characters.
func cutText(expression string, limit int) string { return tenantdb.CutText(expression, limit+1) }

// cutAny is like cutText, for an expression of another type, such as an id or JSON.
// NULL may become an empty text.
func cutAny(expression string, limit int) string { return tenantdb.CutAny(expression, limit+1) }

// cutID returns SQL for an id.
func cutID(expression string) string { return cutAny(expression, idLength) }

// selectList returns SQL for the columns that a T is read from. The db tag of a field
// names its column. The sql tag gives an expression for it; without that tag it is the
// column of that name in table. Text needs a max tag: its limit in characters. JSON needs
// none.
func selectList[T any](table string) string {
	var list []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		if f.Anonymous {
			continue // its fields follow
		}
		column := f.Tag.Get("db")
		expression := f.Tag.Get("sql")
		if expression == "" {
			expression = table + "." + column
		}
		list = append(list, bounded(f, expression)+" AS "+column)
	}
	return strings.Join(list, ", ")
}

// bounded returns SQL for a bounded expression. It panics for a text without a limit:
// the queries are built when the program starts, and in every test.
func bounded(f reflect.StructField, expression string) string {
	t := f.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[JSON]():
		return cutAny(expression, maxStoredBytes)
	case t.Kind() == reflect.Array:
		return cutID(expression)
	case t.Kind() == reflect.String:
		return cutText(expression, maxOf(f))
	}
	return expression
}

// maxOf returns the limit of a text's characters, which its tag max has.
func maxOf(f reflect.StructField) int {
	limit, err := strconv.Atoi(f.Tag.Get("max"))
	if err != nil {
		panic("storedata: the text " + f.Name + " has no max tag")
	}
	return limit
}
