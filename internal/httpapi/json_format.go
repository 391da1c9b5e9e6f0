package httpapi

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/danielgtaylor/huma/v2"
)

// jsonFormat encodes a response as a whole before it writes any of it. A value that
// cannot be encoded is a bug: it panics, nothing has been sent, and the client gets
// a problem document. Errors of the client's connection are ignored.
var jsonFormat = huma.Format{
	Marshal: func(w io.Writer, v any) error {
		out := &firstWrite{w: w}
		e := json.NewEncoder(out) // it encodes the whole value before it writes
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil && !out.started {
			panic(fmt.Errorf("response not encoded: %w", err))
		}
		return nil
	},
	Unmarshal: unmarshal,
}

// firstWrite records that something was written.
type firstWrite struct {
	w       io.Writer
	started bool
}

func (f *firstWrite) Write(b []byte) (int, error) {
	f.started = true
	return f.w.Write(b)
}
