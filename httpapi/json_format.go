package httpapi

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/danielgtaylor/huma/v2"
)

// jsonFormat writes answers as JSON, each as a whole or not at all. A value
// that cannot be encoded is a fault of this program: it panics, and since
// nothing was sent the client gets a problem document. An error of the client's
// connection is none of anybody's.
var jsonFormat = huma.Format{
	Marshal: func(w io.Writer, v any) error {
		out := &firstWrite{w: w}
		e := json.NewEncoder(out) // it encodes all before it writes
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil && !out.begun {
			panic(fmt.Errorf("answer not encoded: %w", err))
		}
		return nil
	},
	Unmarshal: unmarshal,
}

// firstWrite notes that something was written.
type firstWrite struct {
	w     io.Writer
	begun bool
}

func (f *firstWrite) Write(b []byte) (int, error) {
	f.begun = true
	return f.w.Write(b)
}
