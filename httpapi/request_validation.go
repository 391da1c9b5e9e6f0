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

// checkURL refuses what no path or query parameter may hold, before any of
// it reaches a domain: text that the databases cannot keep or compare, and a
// query that cannot be read or names a parameter twice.
func checkURL(r *http.Request) error {
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
		case len(values) > 1:
			faults.Add(name, "is given %d times; once is enough", len(values))
		case !isText(values[0]):
			faults.Add(name, "must be text without control characters")
		}
	}
	return faults.Err()
}

const maxParameterName = 64 // bytes

func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl) }

// unmarshal reads a body as encoding/json does, and refuses one that names a
// member twice: it would keep the last one, and others the first.
func unmarshal(data []byte, v any) error {
	if _, first := v.(*any); first { // huma reads a body twice, first for its validation
		if err := checkJSON(data); err != nil {
			return err
		}
	}
	return json.Unmarshal(data, v)
}

// maxDepth is how many objects and arrays of a body may be within each other.
const maxDepth = 64

// checkJSON fails when an object of a JSON text has a member twice, or when
// the text is nested too deeply. Other faults it leaves to json.Unmarshal.
func checkJSON(data []byte) error {
	type level struct {
		members map[string]bool // nil in an array
		inValue bool            // a name has been read and its value has not
	}
	var open []level
	for d := json.NewDecoder(bytes.NewReader(data)); ; {
		token, err := d.Token()
		if err != nil { // its end, or a fault that json.Unmarshal meets too and names
			return nil //nolint:nilerr // see above
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
		if len(open) > 0 { // a value has ended: in an object, a name follows
			open[len(open)-1].inValue = false
		}
	}
}
