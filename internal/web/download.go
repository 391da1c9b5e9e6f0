package web

import (
	"io"
	"net/http"
	"time"
)

// downloadPause is how long the client of a download may read nothing.
const downloadPause = 20 * time.Second

// Download sends a file that is written while it is sent. It returns the error of
// write: a part has been sent by then, so the caller aborts the connection.
func Download(w http.ResponseWriter, name, contentType string, write func(io.Writer) error) error {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // the request's deadline would end the connection
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	return write(downloadWriter{w, control})
}

// downloadWriter moves the write deadline forward with every write.
type downloadWriter struct {
	io.Writer
	control *http.ResponseController
}

func (w downloadWriter) Write(p []byte) (int, error) {
	_ = w.control.SetWriteDeadline(time.Now().Add(downloadPause)) // a writer without a connection has none
	return w.Writer.Write(p)
}
