package httpapi

import (
	"bytes"
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
		var out bytes.Buffer
		e := json.NewEncoder(&out)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			panic(fmt.Errorf("response not encoded: %w", err))
		}
		if rw, ok := w.(*responseWriter); ok {
			rw.writeWhole(out.Bytes())
			return nil
		}
		_, _ = w.Write(out.Bytes())
		return nil
	},
	Unmarshal: unmarshal,
}
