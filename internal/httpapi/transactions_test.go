package httpapi

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/web"
)

const csvRows = 500

func TestEscapeFormula(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "", "plain": "plain", "1=1": "1=1", "'=1": "'=1", "ümlaut": "ümlaut",
		"=HYPERLINK(1)": "'=HYPERLINK(1)", "+1": "'+1", "-1": "'-1", "@SUM(A1)": "'@SUM(A1)", "\t=1": "'\t=1", "\r=1": "'\r=1", "\n=1": "'\n=1", "＝1": "'＝1",
	} {
		if got := web.EscapeFormula(text); got != want {
			t.Errorf("web.EscapeFormula(%q) = %q, want %q", text, got, want)
		}
	}
}

// TestFailedCSVExportAborts checks that a client can distinguish an incomplete export
// from a complete one.
func TestFailedCSVExportAborts(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]error{"whole": nil, "failed": errors.New("master database unavailable")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &api{Config: Config{Log: slog.New(slog.DiscardHandler)}}
			rows := func(yield func(credits.Transaction, error) bool) {
				for i := range 3 * csvRows {
					if !yield(credits.Transaction{Sequence: int64(i), Description: "a, \"b\"\nc"}, nil) {
						return
					}
				}
				if fault != nil {
					yield(credits.Transaction{}, fault)
				}
			}
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				writeCSV(a, humago.NewContext(&huma.Operation{}, r, w), "credits", transactionHeader, transactionRow, rows)
			}))
			defer server.Close()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			raw, err := io.ReadAll(bufio.NewReader(res.Body))
			if (err != nil) != (fault != nil) {
				t.Fatalf("%d bytes and %v", len(raw), err)
			}
			if fault != nil {
				return
			}
			if bytes.Count(raw, []byte("\n")) != bytes.Count(raw, []byte("\r\n")) {
				t.Error("lines do not end with CRLF")
			}
			records, err := csv.NewReader(bytes.NewReader(raw)).ReadAll()
			if err != nil || len(records) != 3*csvRows+1 || records[1][10] != "a, \"b\"\nc" {
				t.Errorf("%d records, %v", len(records), err)
			}
			if got := res.Header.Get("Content-Disposition"); !strings.HasPrefix(got, `attachment; filename="credits-`) {
				t.Errorf("Content-Disposition %q", got)
			}
		})
	}
}
