package masterdb

import (
	"strconv"
	"strings"
)

// Placeholders returns the SQL of that many rows of placeholders, for VALUES: "($1, $2), ($3, $4)".
func Placeholders(rows, columns int) string {
	var b strings.Builder
	for i := range rows * columns {
		switch {
		case i == 0:
			b.WriteString("(")
		case i%columns == 0:
			b.WriteString("), (")
		default:
			b.WriteString(", ")
		}
		b.WriteString("$" + strconv.Itoa(i+1))
	}
	return b.String() + ")"
}
