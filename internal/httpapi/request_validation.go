package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/stoahq/stoa"
)

// checkURL refuses a path or query that holds control characters or invalid UTF-8,
// which databases cannot store or compare, a query that cannot be parsed, and one
// that has a parameter other than list twice.
func checkURL(r *http.Request, list string) error {
	if !isText(r.URL.Path) {
		return stoa.Errorf(stoa.NotFound, "There is nothing at this address: it holds characters that no address here has.")
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return stoa.Errorf(stoa.InvalidRequest, "The query cannot be read. Percent-encode what stands in it, ';' included.")
	}
	var faults stoa.Invalid
	for name, values := range query {
		switch {
		case !isText(name) || len(name) > maxParameterName:
			return stoa.Errorf(stoa.InvalidRequest, "The query holds a parameter whose name no parameter here has.")
		case len(values) > 1 && name != list:
			faults.Add(name, "is given %d times; once is enough", len(values))
		case !isText(strings.Join(values, " ")):
			faults.Add(name, "must be text without control characters")
		}
	}
	return faults.Err()
}

const maxParameterName = 64 // bytes

func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl) }

// unmarshal decodes a body as encoding/json does, and refuses an object that has a
// member twice: encoding/json keeps the last one, other parsers the first.
func unmarshal(data []byte, v any) error {
	if _, first := v.(*any); first { // huma decodes a body twice, first for validation
		if err := checkJSON(data); err != nil {
			return err
		}
	}
	return json.Unmarshal(data, v)
}

// maxDepth is the maximum nesting depth of a body.
const maxDepth = 64

// checkJSON fails when an object in a JSON text has a member twice, or when the
// text is nested too deeply. json.Unmarshal reports all other errors.
func checkJSON(data []byte) error {
	type level struct {
		members map[string]bool // nil in an array
		inValue bool            // a name has been read and its value has not
	}
	var open []level
	for d := json.NewDecoder(bytes.NewReader(data)); ; {
		token, err := d.Token()
		if err != nil { // the end, or an error that json.Unmarshal reports too
			return nil //nolint:nilerr // see the line above
		}
		delim, isDelim := token.(json.Delim)
		switch {
		case isDelim && (delim == '}' || delim == ']'):
			open = open[:len(open)-1]
		case len(open) > 0 && open[len(open)-1].members != nil && !open[len(open)-1].inValue:
			in, name := &open[len(open)-1], token.(string)
			if in.members[name] {
				return fmt.Errorf("has the member %.100q twice", name)
			}
			in.members[name], in.inValue = true, true
			continue
		case isDelim:
			if len(open) == maxDepth {
				return fmt.Errorf("has more than %d objects and arrays within each other", maxDepth)
			}
			l := level{}
			if delim == '{' {
				l.members = map[string]bool{}
			}
			open = append(open, l)
			continue
		}
		if len(open) > 0 { // a value has ended; in an object a name follows
			open[len(open)-1].inValue = false
		}
	}
}
