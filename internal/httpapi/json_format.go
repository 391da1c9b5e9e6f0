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
		e := json.NewEncoder(wholeWriter{w})
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			panic(fmt.Errorf("response not encoded: %w", err))
		}
		return nil
	},
	Unmarshal: unmarshal,
}

// wholeWriter writes what an encoder made. json.Encoder calls it once, with everything,
// so that a long response is in memory once.
type wholeWriter struct{ to io.Writer }

func (w wholeWriter) Write(b []byte) (int, error) {
	if rw, ok := w.to.(*responseWriter); ok {
		rw.writeWhole(b)
	} else {
		_, _ = w.to.Write(b)
	}
	return len(b), nil
}
