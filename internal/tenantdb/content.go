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
	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

// maxText limits the length of a text, in characters. A field with a max tag
// has its own limit.
const maxText = 255

// maxRows limits the number of rows of one answer. Each query has a smaller
// LIMIT, but a merchant's server may ignore it.
const maxRows = 100_000

// contentError means that the database returned something that cannot be used:
// a value, too many rows, or an error caused by its content or its schema. Its
// text is for the operator. The text contains no content except the beginning
// of the driver's message.
type contentError struct {
	column string // "" if unknown
	reason string
	cause  error // nil if a value was read and is not usable
}

func (e *contentError) Error() string {
	if e.column == "" {
		return "unusable content: " + e.reason
	}
	return "unusable content: column " + e.column + ": " + e.reason
}

func (e *contentError) Unwrap() error { return e.cause }

// readError marks an error that a driver reports while it reads. Its cause may
// be the network, the server or the content: see DB.wrap.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

// isContent reports whether err says that the database works but its content
// cannot be used.
func isContent(err error) bool {
	var content *contentError
	return errors.As(err, &content)
}

// contentInvalid returns the error that the owner sees for err. The cause names
// the column.
func contentInvalid(err error) *stoa.Error {
	return stoa.Errorf(stoa.DatabaseContentInvalid, "The database holds something in Stoa's tables that cannot be used: "+
		"a text longer than its column allows or not in UTF-8, a date outside the years 1 to 9999, a number out of range, or a table that was changed. "+
		"Correct it there; the operator's log names the column.").WithCause(err)
}

// MissingRow adds a code to the ErrNotFound of a query whose row exists in
// every database. It returns every other error unchanged.
func MissingRow(err error) error {
	if errors.Is(err, ErrNotFound) {
		return contentInvalid(err)
	}
	return err
}

// contentFault recognises a driver's error about a value, a row or an answer
// that cannot be used. It returns nil for every other error.
func contentFault(err error) *stoa.Error {
	var tooLong *pgproto3.ExceededMaxBodyLenErr
	if errors.Is(err, screen.ErrAnswerTooLong) || errors.As(err, &tooLong) || isContent(err) {
		return contentInvalid(err)
	}
	return nil
}

// schemaFault recognises errors that the content of the database or its schema
// causes, among the errors that say nothing about the connection. These are
// errors about what a driver cannot decode and, in a database that is in use,
// server errors about a statement that works on Stoa's own schema.
func schemaFault(err error, inUse bool) *stoa.Error {
	var (
		read    readError
		pgErr   *pgconn.PgError
		myErr   *mysql.MySQLError
		liteErr *sqlite.Error // of one of the platform's own files
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

// isPostgresSchema reports whether an SQLSTATE is about the schema or the
// content. It excludes violated uniqueness, which callers check for, and syntax
// errors, which are bugs of this program.
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

// isMySQLSchema reports the same for a MySQL error number: missing tables,
// columns and functions, values that do not fit, constraints.
// Source: MySQL and MariaDB server error references.
func isMySQLSchema(number uint16) bool {
	switch number {
	case 1048, 1054, 1136, 1146, 1216, 1217, 1242, 1264, 1265, 1267, 1271, 1292, 1300, 1305, 1356, 1364, 1365, 1366, 1406, 1411, 1441,
		1451, 1452, 1525, 1690, 3819, 4025:
		return true
	}
	return number >= 3140 && number <= 3157 // JSON
}

// clip shortens a message of a driver or a server. The rest of the message may
// be content.
func clip(s string) string {
	const most = 120
	if len(s) > most {
		s = s[:most] + " …"
	}
	return strings.ToValidUTF8(s, "?")
}

// fieldRule describes how one field of a row is checked.
type fieldRule struct {
	index  int
	column string
	max    int  // in characters or, for bytes, in bytes
	scans  bool // its type has a Scan method, which has checked it
	isRow  bool // it, or what it points to, has fields of its own
}

// rowRules caches the rules of each struct type that rows were read into.
var rowRules sync.Map // of reflect.Type to []fieldRule

// ruleOf returns the rule for a value without a name of its own.
func ruleOf(t reflect.Type) fieldRule {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return fieldRule{max: maxText, scans: reflect.PointerTo(t).Implements(scannerType), isRow: isRow(t)}
}

var (
	timeType    = reflect.TypeFor[time.Time]()
	scannerType = reflect.TypeFor[sql.Scanner]()
)

// isRow reports whether the columns of a row map to the fields of a t.
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
		r := ruleOf(f.Type)
		r.index, r.column = i, f.Tag.Get("db")
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

// checkRow returns an error if a scanned value cannot be used. size is the
// number of bytes that the value takes in addition to its own size, including
// the bytes that it takes in an answer.
func checkRow(v reflect.Value) (size int, err error) {
	if !isRow(v.Type()) {
		return ruleOf(v.Type()).check(v)
	}
	return checkFields(v)
}

func checkFields(v reflect.Value) (size int, err error) {
	for _, r := range rulesOf(v.Type()) {
		n, err := r.check(v.Field(r.index))
		if err != nil {
			return 0, err
		}
		size += n
	}
	return size, nil
}

// check does the same as checkRow for one column.
func (r fieldRule) check(v reflect.Value) (size int, err error) {
	switch v.Kind() { //nolint:exhaustive // every value of another kind can be used
	case reflect.Pointer:
		if v.IsNil() {
			return 0, nil
		}
		return r.check(v.Elem())
	case reflect.String:
		return textSize(v.String()), textFault(r.column, v.String(), r.max)
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Uint8 {
			return 0, nil
		}
		if v.Len() > r.max && !r.scans {
			return 0, &contentError{column: r.column, reason: fmt.Sprintf("has more than %d bytes", r.max)}
		}
		return v.Len(), nil
	case reflect.Float32, reflect.Float64:
		if f := v.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return 0, &contentError{column: r.column, reason: "is no finite number"}
		}
	case reflect.Struct:
		if v.Type() == timeType {
			return 0, timeFault(r.column, *v.Addr().Interface().(*time.Time)) //nolint:forcetypeassert // its type is known
		}
		if r.isRow {
			return checkFields(v)
		}
	}
	return 0, nil
}

// textSize returns the number of bytes that a text takes until it has been
// sent: its own bytes, plus twice the bytes of its JSON form, because a buffer
// is copied as it grows. All memory is therefore counted, even if a caller
// requests many answers that are made at the same time.
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

// timeFault rejects a time that RFC 3339 cannot represent. The MySQL driver
// returns the zero time for 0000-00-00.
func timeFault(column string, t time.Time) error {
	if year := t.UTC().Year(); !t.IsZero() && year >= 1 && year <= 9999 {
		return nil
	}
	return &contentError{column: column, reason: "is no date of the years 1 to 9999"}
}
