package tenantdb_test

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb"
)

// TestDialWithoutFiles checks that if no file can be opened, unused databases
// are closed and the connection is retried, and that other errors are returned.
func TestDialWithoutFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		err          error
		fails        int
		calls, spare int
		succeeds     bool
	}{
		{"too many files of the process", syscall.EMFILE, 3, 4, 3, true},
		{"too many files of the machine", syscall.ENFILE, 1, 2, 1, true},
		{"for ever", syscall.EMFILE, 1000, 50, 49, false},
		{"refused", syscall.ECONNREFUSED, 1, 1, 0, false},
	} {
		calls, spared := 0, 0
		dial := tenantdb.SparingFiles(func() { spared++ }, func(context.Context, string, string) (net.Conn, error) {
			if calls++; calls <= c.fails {
				return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", c.err)}
			}
			ours, theirs := net.Pipe()
			_ = theirs.Close()
			return ours, nil
		})
		conn, err := dial(t.Context(), "tcp", "server")
		if conn != nil {
			_ = conn.Close()
		}
		if calls != c.calls || spared != c.spare || (err == nil) != c.succeeds || err != nil && !errors.Is(err, c.err) {
			t.Errorf("%s: %d calls, spared %d times, %v", c.name, calls, spared, err)
		}
	}
}
