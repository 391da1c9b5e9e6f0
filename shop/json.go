package shop

import (
	"bytes"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// The largest object a column takes, in bytes and in levels. MariaDB's
// json_valid gives up at 32 levels.
const (
	maxObjectBytes = 64 << 10
	maxObjectDepth = 16
)

// JSON is JSON in a column: jsonb on PostgreSQL, JSON on MySQL, text on
// MariaDB and SQLite. Nothing counts as the empty object. The engines keep the
// meaning, not the bytes: spacing and the order of members may change.
type JSON []byte

// Scan reads a column. It copies, since the driver reuses its buffer.
func (j *JSON) Scan(src any) error {
	switch src := src.(type) {
	case nil:
		*j = nil
	case []byte:
		*j = bytes.Clone(src)
	case string:
		*j = JSON(src)
	default:
		return fmt.Errorf("cannot read JSON from %T", src)
	}
	return nil
}

// Value writes text, which all engines take for JSON.
func (j JSON) Value() (driver.Value, error) { return j.String(), nil }

func (j JSON) String() string {
	if len(j) == 0 {
		return "{}"
	}
	return string(j)
}

// MarshalJSON gives the object itself, not a string of it.
func (j JSON) MarshalJSON() ([]byte, error) {
	if len(j) == 0 {
		return []byte("{}"), nil
	}
	return j, nil
}

// UnmarshalJSON keeps the text; whether it is an object is checked when it
// is written.
func (j *JSON) UnmarshalJSON(b []byte) error {
	*j = bytes.Clone(b)
	return nil
}

// canonical returns j in the one form that means the same on every engine:
// each member once, no lone surrogates. It fails, with a message that
// follows a field's name, on what some engine would refuse or alter.
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
	d.UseNumber() // a float64 would round large integers
	var members map[string]any
	if err := d.Decode(&members); err != nil || members == nil {
		return nil, errors.New("must be a JSON object")
	}
	if err := keepable(members, 1); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(members); err != nil {
		return nil, err
	}
	object := bytes.TrimSuffix(out.Bytes(), []byte("\n"))
	if len(object) > maxObjectBytes { // a character may have become an escape
		return nil, tooLarge
	}
	return object, nil
}

// keepable reports what in v, found at this depth, some engine cannot keep.
func keepable(v any, depth int) error {
	if depth > maxObjectDepth {
		return fmt.Errorf("must not be nested deeper than %d levels", maxObjectDepth)
	}
	switch v := v.(type) {
	case string:
		if strings.ContainsRune(v, 0) { // jsonb has no U+0000
			return errors.New("must not contain the character U+0000")
		}
	case json.Number:
		if _, err := v.Float64(); err != nil { // MySQL keeps doubles
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
