package web

import (
	"encoding/csv"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// CSVType is the media type of CSV.
const CSVType = "text/csv"

const (
	csvFlushRows = 500 // rows between two flushes
	csvWrite     = 20 * time.Second
)

// ServeCSV streams rows as a file, name with the date of today. When an error ends the
// rows, it logs the error and aborts the connection: the status has been sent, and the
// client must not take a part for the whole. The caller escapes with EscapeFormula what
// users have written.
func ServeCSV[T any](w http.ResponseWriter, r *http.Request, log *slog.Logger, name string, header []string, row func(T) []string, rows iter.Seq2[T, error]) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // the request's deadline would end the connection
	w.Header().Set("Content-Type", CSVType+"; charset=utf-8; header=present")
	w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s-%s.csv"`, name, time.Now().UTC().Format(time.DateOnly)))
	w.Header().Set("Vary", "Accept")
	w.WriteHeader(http.StatusOK)
	out := csv.NewWriter(w)
	out.UseCRLF = true
	_ = out.Write(header) // out.Error returns its error
	n := 0
	for t, err := range rows {
		if err != nil {
			log.ErrorContext(r.Context(), "CSV export ended early", "err", err)
			panic(http.ErrAbortHandler)
		}
		_ = out.Write(row(t))
		if n++; n%csvFlushRows == 0 {
			out.Flush()
			_ = control.SetWriteDeadline(time.Now().Add(csvWrite))
			if out.Error() != nil {
				return // the client has gone
			}
		}
	}
	out.Flush()
}

// EscapeFormula prefixes a text that a spreadsheet would run as a formula (OWASP,
// CSV Injection). The full-width characters are the same signs in East Asian scripts.
func EscapeFormula(text string) string {
	if strings.IndexAny(text, "=+-@\t\r\n＝＋－＠") == 0 {
		return "'" + text
	}
	return text
}
