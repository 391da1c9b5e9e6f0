package archive

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/stoahq/stoa/internal/tenantdb"
)

// maxScale is the largest number of fractional digits that every engine keeps (MySQL).
const maxScale = 30

// An encoded value begins with one of these bytes.
const (
	tagNull  = 0
	tagValue = 1
)

// These times are the limits of the years that RFC 3339 can represent.
var (
	minTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	maxTime = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
)

// valueError describes a value that an archive cannot contain. Its text contains nothing of
// the value.
type valueError struct {
	column string
	reason string
}

func (e *valueError) Error() string { return "column " + e.column + " " + e.reason }

// appendRow appends the encoded row: each value in its canonical form. values are those
// that a driver returns.
func appendRow(b []byte, columns []Column, values []any) ([]byte, error) {
	if len(values) != len(columns) {
		return nil, fmt.Errorf("archive: %d values for %d columns", len(values), len(columns))
	}
	return appendColumns(b, columns, func(b []byte, i int) ([]byte, error) { return appendValue(b, columns[i], values[i]) })
}

// appendColumns appends each column by value.
func appendColumns(b []byte, columns []Column, value func(b []byte, i int) ([]byte, error)) (_ []byte, err error) {
	begin := len(b)
	for i, c := range columns {
		if b, err = value(b, i); err != nil {
			return nil, &valueError{c.Name, err.Error()}
		}
		if len(b)-begin > maxRow {
			return nil, &valueError{c.Name, fmt.Sprintf("and those before it have more than %d MiB in one row", maxRow>>20)}
		}
	}
	return b, nil
}

func appendNull(b []byte, c Column) ([]byte, error) {
	if !c.Nullable {
		return nil, errors.New("is NULL, which its table does not allow")
	}
	return append(b, tagNull), nil
}

func appendValue(b []byte, c Column, v any) ([]byte, error) {
	if v == nil {
		return appendNull(b, c)
	}
	b = append(b, tagValue)
	switch c.Type { //nolint:exhaustive // the others have a variable length
	case tenantdb.TypeUUID:
		id, err := canonicalUUID(v)
		return append(b, id[:]...), err
	case tenantdb.TypeInteger:
		n, err := canonicalInteger(v)
		return binary.AppendVarint(b, n), err
	case tenantdb.TypeBoolean:
		n, err := canonicalBoolean(v)
		return append(b, n), err
	case tenantdb.TypeTimestamp:
		n, err := canonicalTime(v)
		return binary.AppendVarint(b, n), err
	}
	if raw, ok := v.([]byte); ok {
		return appendText(b, c, raw)
	}
	text, err := canonicalText(c, v)
	return appendSized(b, text), err
}

// appendText appends the bytes of a value of variable length.
func appendText(b []byte, c Column, raw []byte) ([]byte, error) {
	switch {
	case c.Type == tenantdb.TypeText && len(raw) <= maxRow && utf8.Valid(raw), c.Type == tenantdb.TypeBytes && len(raw) <= maxRow:
		return appendSized(b, raw), nil
	case c.Type == tenantdb.TypeJSON && utf8.Valid(raw):
		at := len(b)
		b, err := appendCanonicalJSON(b, string(raw))
		if err != nil {
			return nil, err
		}
		var size [binary.MaxVarintLen64]byte
		n := binary.PutUvarint(size[:], uint64(len(b)-at)) //nolint:gosec // not negative
		return slices.Insert(b, at, size[:n]...), nil
	}
	text, err := canonicalText(c, string(raw))
	return appendSized(b, text), err
}

// appendSized appends a value after its length.
func appendSized[T string | []byte](b []byte, v T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

// canonicalText returns the bytes of a value of variable length.
func canonicalText(c Column, v any) (string, error) {
	if c.Type == tenantdb.TypeDecimal {
		return canonicalDecimal(v, c.Scale)
	}
	s, ok := asText(v)
	switch {
	case !ok:
		return "", fmt.Errorf("holds a value of the type %T", v)
	case len(s) > maxRow:
		return "", fmt.Errorf("has more than %d MiB", maxRow>>20)
	case c.Type == tenantdb.TypeBytes:
		return s, nil
	case !utf8.ValidString(s):
		return "", errors.New("is not valid UTF-8")
	case c.Type == tenantdb.TypeJSON:
		return canonicalJSON(s)
	}
	return s, nil
}

func asText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case []byte:
		return string(v), true
	}
	return "", false
}

func canonicalUUID(v any) (id uuid.UUID, err error) {
	var ok bool
	switch v := v.(type) {
	case [16]byte:
		return v, nil
	case string:
		id, ok = parseUUID(v)
	case []byte:
		id, ok = parseUUID(v)
	}
	if !ok {
		return id, errors.New("is no id in its usual form")
	}
	return id, nil
}

// parseUUID reads an id in its usual form. A text in capitals is another value on the engines
// that store ids as text.
func parseUUID[T string | []byte](s T) (id uuid.UUID, ok bool) {
	if len(s) != 36 {
		return id, false
	}
	n := 0 // digits
	for i := range len(s) {
		c := s[i]
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return id, false
			}
			continue
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return id, false
		}
		id[n/2] = id[n/2]<<4 | c
		n++
	}
	return id, true
}

func canonicalInteger(v any) (int64, error) {
	switch v := v.(type) {
	case int64:
		return v, nil
	case bool: // of a column that SQLite declares as boolean
		if v {
			return 1, nil
		}
		return 0, nil
	}
	s, ok := asText(v)
	n, err := strconv.ParseInt(s, 10, 64)
	if !ok || err != nil {
		return 0, errors.New("is no integer of 64 bits")
	}
	return n, nil
}

func canonicalBoolean(v any) (byte, error) {
	if n, err := canonicalInteger(v); err == nil && (n == 0 || n == 1) {
		return byte(n), nil
	}
	return 0, errors.New("is neither true nor false")
}

// canonicalTime returns a time in microseconds since 1970. It drops the nanoseconds, which
// no server stores.
func canonicalTime(v any) (int64, error) {
	t, ok := v.(time.Time)
	if !ok || t.Before(minTime) || !t.Before(maxTime) {
		return 0, errTime
	}
	return t.UnixMicro(), nil
}

var errTime = errors.New("is no date of the years 1 to 9999")

var decimal = regexp.MustCompile(`^(-?)([0-9]+)(?:\.([0-9]+))?$`)

// maxDigits limits the digits of a decimal. MySQL stores at most 65.
const maxDigits = 1000

// canonicalDecimal returns a decimal with exactly scale fractional digits, without leading
// zeros and without a negative zero.
func canonicalDecimal(v any, scale int) (string, error) {
	s, ok := asText(v)
	switch v := v.(type) {
	case int64:
		s, ok = strconv.FormatInt(v, 10), true
	case float64: // SQLite, for a column that is not a text
		s, ok = strconv.FormatFloat(v, 'f', -1, 64), true
		if math.Abs(v) >= 1<<53 {
			return "", errors.New("is a number that SQLite has rounded")
		}
	}
	if !ok || len(s) > maxDigits {
		return "", errors.New("is no decimal number")
	}
	m := decimal.FindStringSubmatch(s)
	if m == nil {
		return "", errors.New("is no decimal number")
	}
	sign, whole, fraction := m[1], strings.TrimLeft(m[2], "0"), strings.TrimRight(m[3], "0")
	if len(fraction) > scale {
		return "", fmt.Errorf("has more than %d fractional digits", scale)
	}
	if whole == "" && fraction == "" {
		sign = ""
	}
	if whole == "" {
		whole = "0"
	}
	if scale > 0 {
		whole += "." + fraction + strings.Repeat("0", scale-len(fraction))
	}
	return sign + whole, nil
}

var errEncoding = errors.New("a value is not in its canonical form")

// decodeRow reads a row from b. The values are those that drivers accept as arguments. rest
// is what follows the row.
func decodeRow(b []byte, columns []Column) (values []any, rest []byte, err error) {
	values = make([]any, len(columns))
	for i, c := range columns {
		if len(b) == 0 {
			return nil, nil, errEncoding
		}
		tag := b[0]
		b = b[1:]
		switch {
		case tag == tagNull && c.Nullable:
		case tag != tagValue:
			return nil, nil, errEncoding
		default:
			if values[i], b, err = decodeValue(b, c); err != nil {
				return nil, nil, err
			}
		}
	}
	return values, b, nil
}

func decodeValue(b []byte, c Column) (v any, rest []byte, err error) {
	switch c.Type { //nolint:exhaustive // the others have a variable length
	case tenantdb.TypeUUID:
		if len(b) < 16 {
			return nil, nil, errEncoding
		}
		return uuid.UUID(b[:16]).String(), b[16:], nil
	case tenantdb.TypeBoolean:
		if len(b) == 0 || b[0] > 1 {
			return nil, nil, errEncoding
		}
		return b[0] == 1, b[1:], nil
	case tenantdb.TypeInteger, tenantdb.TypeTimestamp:
		n, size := binary.Varint(b)
		if size <= 0 || size > 1 && b[size-1] == 0 { // a byte of nothing
			return nil, nil, errEncoding
		}
		if c.Type == tenantdb.TypeInteger {
			return n, b[size:], nil
		}
		t := time.UnixMicro(n).UTC()
		if t.Before(minTime) || !t.Before(maxTime) {
			return nil, nil, errEncoding
		}
		return t, b[size:], nil
	}
	n, size := binary.Uvarint(b)
	if size <= 0 || size > 1 && b[size-1] == 0 || n > uint64(len(b)-size) { //nolint:gosec // not negative
		return nil, nil, errEncoding
	}
	text, rest := b[size:size+int(n)], b[size+int(n):] //nolint:gosec // at most len(b)
	if c.Type == tenantdb.TypeBytes {
		return append([]byte{}, text...), rest, nil
	}
	s := string(text)
	if again, err := canonicalText(c, s); err != nil || again != s {
		return nil, nil, errEncoding
	}
	return s, rest, nil
}

// keyText returns the key of a row for a message: at most 200 characters of it.
func keyText(t Table, values []any) string {
	var parts []string
	for i, at := range t.keyColumns() {
		text := fmt.Sprint(values[at])
		if raw, ok := values[at].([]byte); ok {
			if text = string(raw); t.Columns[at].Type == tenantdb.TypeBytes {
				text = hex.EncodeToString(raw)
			}
		}
		if runes := []rune(text); len(runes) > 100 {
			text = string(runes[:100]) + "…"
		}
		parts = append(parts, t.Key[i]+" = "+strings.ToValidUTF8(text, "?"))
	}
	if len(parts) > 2 {
		parts = parts[:2]
	}
	return strings.Join(parts, ", ")
}
