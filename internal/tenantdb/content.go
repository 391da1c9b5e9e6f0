package tenantdb

import (
	"database/sql"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"modernc.org/sqlite"

	"github.com/stoahq/stoa"
)

// maxText bounds a text, in characters, unless the field that it is read into
// has a max tag.
const maxText = 255

// maxRows bounds the rows of one answer. Each query has a smaller LIMIT, which
// a merchant's server is free to ignore.
const maxRows = 100_000

// contentError means that the database answered with something that cannot be
// used: a value, too many rows, or an error that its content or its schema
// causes. Its text is for the operator and holds none of the content but the
// beginning of what the driver says.
type contentError struct {
	column string // "" where it is not known
	reason string
	cause  error // nil for a value that was read and is not usable
}

func (e *contentError) Error() string {
	if e.column == "" {
		return "unusable content: " + e.reason
	}
	return "unusable content: column " + e.column + ": " + e.reason
}

func (e *contentError) Unwrap() error { return e.cause }

// readError marks what a driver reports while it reads. It may be a fault of
// the network, of the server or of the content: see DB.wrap.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

// isContent reports whether err says that the database works and that what is
// in it cannot be used.
func isContent(err error) bool {
	var content *contentError
	return errors.As(err, &content)
}

// contentInvalid is what the owner is told of err. Which column it is about
// stands in the cause.
func contentInvalid(err error) *stoa.Error {
	return stoa.Errorf(stoa.DatabaseContentInvalid, "The database holds something in Stoa's tables that cannot be used: "+
		"a text longer than its column allows or not in UTF-8, a date outside the years 1 to 9999, a number out of range, or a table that was changed. "+
		"Correct it there; the operator's log names the column.").WithCause(err)
}

// MissingRow gives ErrNotFound, of a query that has a row in every database, a
// code. Every other error stays as it is.
func MissingRow(err error) error {
	if errors.Is(err, ErrNotFound) {
		return contentInvalid(err)
	}
	return err
}

// contentFault recognises what a driver reports of a value, a row or an answer
// that cannot be used. It returns nil for every other error.
func contentFault(err error) *stoa.Error {
	var tooLong *pgproto3.ExceededMaxBodyLenErr
	if errors.Is(err, errAnswerTooLong) || errors.As(err, &tooLong) || isContent(err) {
		return contentInvalid(err)
	}
	return nil
}

// schemaFault recognises, among the errors that say nothing about the
// connection, those that the content of the database or its schema causes:
// what a driver cannot decode and, in a database that is in use, what the
// server reports about a statement that works on Stoa's own schema.
func schemaFault(err error, inUse bool) *stoa.Error {
	var (
		read    readError
		pgErr   *pgconn.PgError
		myErr   *mysql.MySQLError
		liteErr *sqlite.Error // of a file of the platform's own
		schema  bool
	)
	switch {
	case errors.As(err, &pgErr):
		schema = inUse && isPostgresSchema(pgErr.Code)
	case errors.As(err, &myErr):
		schema = inUse && isMySQLSchema(myErr.Number)
	case errors.As(err, &liteErr):
	default:
		schema = errors.As(err, &read)
	}
	if !schema {
		return nil
	}
	return contentInvalid(&contentError{reason: clip(err.Error()), cause: err})
}

// isPostgresSchema leaves out violated uniqueness, which callers look for, and
// syntax errors, which are this program's.
// Source: PostgreSQL manual, appendix A.
func isPostgresSchema(code string) bool {
	if code == uniqueViolation || code == "42601" || len(code) < 2 {
		return false
	}
	switch code[:2] {
	case "21", "22", "23", "42": // cardinality, data, constraints, names and rights
		return true
	}
	return false
}

// isMySQLSchema is of the same: missing tables, columns and functions, values
// that do not fit, constraints.
// Source: MySQL and MariaDB server error references.
func isMySQLSchema(number uint16) bool {
	switch number {
	case 1048, 1054, 1136, 1146, 1216, 1217, 1242, 1264, 1265, 1267, 1271, 1292, 1300, 1305, 1356, 1364, 1365, 1366, 1406, 1411, 1441,
		1451, 1452, 1525, 1690, 3819, 4025:
		return true
	}
	return number >= 3140 && number <= 3157 // JSON
}

// clip shortens what a driver or a server says. The rest may be content.
func clip(s string) string {
	const most = 120
	if len(s) > most {
		s = s[:most] + " …"
	}
	return strings.ToValidUTF8(s, "?")
}

// fieldRule says how one field of a row is checked.
type fieldRule struct {
	index  int
	column string
	max    int // of characters or, for bytes, of bytes
}

// rowRules holds the rules of each struct type that was read into.
var rowRules sync.Map // of reflect.Type to []fieldRule

var (
	timeType    = reflect.TypeFor[time.Time]()
	scannerType = reflect.TypeFor[sql.Scanner]()
)

// isRow reports whether the columns of a row are the fields of a t.
func isRow(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != timeType && !reflect.PointerTo(t).Implements(scannerType)
}

func rulesOf(t reflect.Type) []fieldRule {
	if rules, ok := rowRules.Load(t); ok {
		return rules.([]fieldRule)
	}
	var rules []fieldRule
	for i := range t.NumField() {
		f := t.Field(i)
		r := fieldRule{index: i, column: f.Tag.Get("db"), max: maxText}
		if r.column == "" {
			r.column = strings.ToLower(f.Name)
		}
		if most, err := strconv.Atoi(f.Tag.Get("max")); err == nil {
			r.max = most
		}
		rules = append(rules, r)
	}
	rowRules.Store(t, rules)
	return rules
}

// checkRow reports what in a scanned value cannot be used, and how many bytes
// the value takes beside its own size, its way into an answer included.
func checkRow(v reflect.Value) (size int, err error) {
	if !isRow(v.Type()) {
		return checkValue("", v, maxText)
	}
	for _, r := range rulesOf(v.Type()) {
		n, err := checkValue(r.column, v.Field(r.index), r.max)
		if err != nil {
			return 0, err
		}
		size += n
	}
	return size, nil
}

// checkValue is checkRow for one column. A type with a Scan of its own has
// checked itself.
func checkValue(column string, v reflect.Value, most int) (size int, err error) {
	switch v.Kind() { //nolint:exhaustive // all others hold nothing that could be unfit
	case reflect.Pointer:
		if v.IsNil() {
			return 0, nil
		}
		return checkValue(column, v.Elem(), most)
	case reflect.String:
		return textSize(v.String()), textFault(column, v.String(), most)
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Uint8 {
			return 0, nil
		}
		if v.Len() > most && !reflect.PointerTo(v.Type()).Implements(scannerType) {
			return 0, &contentError{column: column, reason: fmt.Sprintf("has more than %d bytes", most)}
		}
		return v.Len(), nil
	case reflect.Float32, reflect.Float64:
		if f := v.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return 0, &contentError{column: column, reason: "is no finite number"}
		}
	case reflect.Struct:
		if v.Type() == timeType {
			return 0, timeFault(column, v)
		}
		if isRow(v.Type()) {
			return checkRow(v)
		}
	}
	return 0, nil
}

// textSize is how many bytes a text takes until it has been sent: itself, and
// twice what JSON writes of it, since a buffer is copied as it grows. So who
// asks for many answers that are made at the same time finds no memory that is
// not counted.
func textSize(s string) int {
	written := len(s)
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c == '<', c == '>', c == '&':
			written += len(`\u0000`) - 1
		case c == '"', c == '\\':
			written++
		}
	}
	return len(s) + 2*written
}

func textFault(column, s string, most int) error {
	switch {
	case len(s) > most && utf8.RuneCountInString(s) > most:
		return &contentError{column: column, reason: fmt.Sprintf("has more than %d characters", most)}
	case !utf8.ValidString(s):
		return &contentError{column: column, reason: "is not valid UTF-8"}
	case strings.IndexByte(s, 0) >= 0:
		return &contentError{column: column, reason: "contains U+0000"}
	}
	return nil
}

// timeFault refuses what RFC 3339 cannot write. The zero time is what the
// MySQL driver makes of 0000-00-00.
func timeFault(column string, v reflect.Value) error {
	t, ok := v.Interface().(time.Time)
	if year := t.UTC().Year(); ok && !t.IsZero() && year >= 1 && year <= 9999 {
		return nil
	}
	return &contentError{column: column, reason: "is no date of the years 1 to 9999"}
}
