package storedata

import (
	"bytes"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The limits of an object that a column accepts, in bytes and in levels. MariaDB's
// json_valid fails at 32 levels.
const (
	maxObjectBytes = 64 << 10
	maxObjectDepth = 16
)

// The limits of an object that is read. They are larger, since a store's own software may
// write larger objects than this package does, and PostgreSQL and MySQL add spaces to
// what they return.
const (
	maxStoredBytes = 256 << 10
	maxStoredDepth = 32
)

// JSON is JSON in a column: jsonb on PostgreSQL, JSON on MySQL, text on MariaDB and
// SQLite. An empty JSON means the empty object. The engines keep the meaning, not the
// bytes: spacing and the order of members may change.
type JSON []byte

// Scan reads a column. It copies the bytes, since the driver reuses its buffer. It fails
// for a value that is not an object or that servable refuses.
func (j *JSON) Scan(src any) error {
	var read JSON
	switch src := src.(type) {
	case nil:
	case []byte:
		if len(src) > maxStoredBytes {
			return errStoredTooLong
		}
		read = bytes.Clone(src)
	case string:
		if len(src) > maxStoredBytes {
			return errStoredTooLong
		}
		read = JSON(src)
	default:
		return fmt.Errorf("cannot read JSON from %T", src)
	}
	if err := read.servable(); err != nil {
		return err
	}
	*j = read
	return nil
}

var errStoredTooLong = fmt.Errorf("JSON has more than %d KiB", maxStoredBytes>>10)

// servable reports why stored JSON cannot be served, or nil if it can. It allocates
// nothing, since a request of a shopper reads two objects.
func (j JSON) servable() error {
	if len(j) == 0 {
		return nil
	}
	if !utf8.Valid(j) || !json.Valid(j) || bytes.TrimLeft(j, " \t\r\n")[0] != '{' {
		return errors.New("no JSON object")
	}
	if bytes.Contains(j, []byte(`\u0000`)) && hasNUL(j) {
		return errors.New("JSON contains U+0000")
	}
	depth := 0
	for i := 0; i < len(j); i++ {
		switch c := j[i]; {
		case c == '"':
			i = endOfString(j, i)
		case c == '{' || c == '[':
			if depth++; depth > maxStoredDepth {
				return fmt.Errorf("JSON is nested deeper than %d levels", maxStoredDepth)
			}
		case c == '}' || c == ']':
			depth--
		case c == '-' || c >= '0' && c <= '9':
			end := endOfNumber(j, i)
			if _, err := strconv.ParseFloat(string(j[i:end]), 64); err != nil {
				return errors.New("JSON has a number that is out of range")
			}
			i = end - 1
		}
	}
	return nil
}

// endOfString returns the position of the closing quote of the string that begins at i,
// in valid JSON.
func endOfString(j []byte, i int) int {
	for i++; j[i] != '"'; i++ {
		if j[i] == '\\' {
			i++
		}
	}
	return i
}

// endOfNumber returns the position after the number that begins at i.
func endOfNumber(j []byte, i int) int {
	for i < len(j) && bytes.IndexByte([]byte("+-.eE0123456789"), j[i]) >= 0 {
		i++
	}
	return i
}

// hasNUL reports whether a string in valid JSON contains an escaped U+0000. The same six
// characters after an escaped backslash are no escape.
func hasNUL(j []byte) bool {
	for i := 0; i < len(j); i++ {
		if j[i] == '\\' {
			if bytes.HasPrefix(j[i:], []byte(`\u0000`)) {
				return true
			}
			i++
		}
	}
	return false
}

// Value returns the text, which all engines accept as JSON.
func (j JSON) Value() (driver.Value, error) { return j.String(), nil }

func (j JSON) String() string {
	if len(j) == 0 {
		return "{}"
	}
	return string(j)
}

// MarshalJSON returns the object itself, not a string that contains it.
func (j JSON) MarshalJSON() ([]byte, error) {
	if len(j) == 0 {
		return []byte("{}"), nil
	}
	return j, nil
}

// UnmarshalJSON stores the text. canonical checks later, before a write, that it is an
// object.
func (j *JSON) UnmarshalJSON(b []byte) error {
	*j = bytes.Clone(b)
	return nil
}

// canonical returns j in a form that means the same on every engine: each member occurs
// once, and there are no lone surrogates. It fails on a value that some engine would
// refuse or alter. The message is text that follows a field's name.
func (j JSON) canonical() (JSON, error) {
	if len(j) == 0 {
		return JSON("{}"), nil
	}
	tooLarge := fmt.Errorf("must be at most %d KiB", maxObjectBytes>>10)
	if len(j) > maxObjectBytes {
		return nil, tooLarge
	}
	if !json.Valid(j) {
		return nil, errors.New("must be a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(j))
	d.UseNumber() // float64 would round large integers
	var members map[string]any
	if err := d.Decode(&members); err != nil || members == nil {
		return nil, errors.New("must be a JSON object")
	}
	if err := keepable(members, 1); err != nil {
		return nil, err
	}
	if len(j)+expansion(members) > maxObjectBytes {
		return nil, tooLarge
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(members); err != nil {
		return nil, err
	}
	object := bytes.TrimSuffix(out.Bytes(), []byte("\n"))
	if len(object) > maxObjectBytes { // encoding may have turned a character into an escape
		return nil, tooLarge
	}
	return object, nil
}

// expansion returns how many bytes an engine may add when it stores the numbers in v:
// PostgreSQL stores 1e300 as 301 digits.
func expansion(v any) (n int) {
	switch v := v.(type) {
	case json.Number:
		if _, exponent, ok := strings.Cut(strings.ToLower(v.String()), "e"); ok {
			e, _ := strconv.Atoi(exponent) // keepable has checked it
			n = min(max(e, -e), maxObjectBytes)
		}
	case []any:
		for _, item := range v {
			n += expansion(item)
		}
	case map[string]any:
		for _, member := range v {
			n += expansion(member)
		}
	}
	return n
}

// keepable reports why some engine cannot store v, which is nested at this depth.
func keepable(v any, depth int) error {
	if depth > maxObjectDepth {
		return fmt.Errorf("must not be nested deeper than %d levels", maxObjectDepth)
	}
	switch v := v.(type) {
	case string:
		if strings.ContainsRune(v, 0) { // jsonb cannot store U+0000
			return errors.New("must not contain the character U+0000")
		}
	case json.Number:
		if _, err := v.Float64(); err != nil { // MySQL stores doubles
			return fmt.Errorf("must not contain a number as large as %.20s", v)
		}
	case []any:
		for _, item := range v {
			if err := keepable(item, depth+1); err != nil {
				return err
			}
		}
	case map[string]any:
		for name, member := range v {
			if err := errors.Join(keepable(name, depth), keepable(member, depth+1)); err != nil {
				return err
			}
		}
	}
	return nil
}
