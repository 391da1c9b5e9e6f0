package masterdb_test

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestOpenErrorNamesEachCauseOnce opens a master at a port where nobody listens: the driver
// tries each address with TLS and without.
func TestOpenErrorNamesEachCauseOnce(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	address := l.Addr().String()
	testkit.Must(t, l.Close())
	_, err = masterdb.Open(t.Context(), "postgres://u:p@"+address+"/db")
	if err == nil || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("got %v, want a refused connection", err)
	}
	if text := err.Error(); strings.ContainsAny(text, "\n\t") || strings.Count(text, "dial tcp "+address) != 1 {
		t.Errorf("%q does not name the cause once, on one line", text)
	}
}
