package web

import (
	"io"
	"net/http"
	"time"
)

// downloadPause is how long the client of a download may read nothing.
const downloadPause = 20 * time.Second

// Download sends a file that is written while it is sent. It returns the error of write.
// If the answer has begun by then, the caller aborts the connection: a part must not be
// taken for the whole.
func Download(w http.ResponseWriter, name, contentType string, write func(io.Writer) error) (begun bool, err error) {
	out := downloadWriter{Writer: w, control: http.NewResponseController(w)}
	_ = out.control.SetReadDeadline(time.Time{}) // the request's deadline would end the connection
	out.begin = func() {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusOK)
		out.begin, begun = func() {}, true
	}
	if err = write(&out); err == nil {
		out.begin() // an empty file
	}
	return begun, err
}

// downloadWriter begins the answer with the first write, and moves the write deadline
// forward with every one.
type downloadWriter struct {
	io.Writer
	control *http.ResponseController
	begin   func()
}

func (w *downloadWriter) Write(p []byte) (int, error) {
	w.begin()
	_ = w.control.SetWriteDeadline(time.Now().Add(downloadPause)) // a writer without a connection has none
	return w.Writer.Write(p)
}
