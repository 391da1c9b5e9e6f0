package app_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// residentMiB returns this process's resident memory.
func residentMiB(t *testing.T) float64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("needs Linux's /proc")
	}
	var kib float64
	_, rest, _ := bytes.Cut(status, []byte("VmRSS:"))
	if _, err := fmt.Sscan(string(rest), &kib); err != nil {
		t.Fatal(err)
	}
	return kib / 1024
}

// heapMiB returns the heap in use after a garbage collection.
func heapMiB() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse) / (1 << 20)
}

// askWithoutReading sends a shopper's request over TCP and does not read the answer.
func (b badStore) askWithoutReading(path string) net.Conn {
	b.t.Helper()
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		_ = raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10) })
		return err
	}}
	conn, err := d.DialContext(b.t.Context(), "tcp", b.s.Listener.Addr().String())
	testkit.Must(b.t, err)
	b.t.Cleanup(func() { _ = conn.Close() })
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, b.host)
	testkit.Must(b.t, err)
	return conn
}

// TestUnreadResponsesStayCounted checks that a response which its client does not read waits
// in the process, where its memory is counted, and not in the operating system's buffers, and
// that it stays counted after the client has left. On loopback these buffers have 4 MiB.
func TestUnreadResponsesStayCounted(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux limits what a connection's buffers keep")
	}
	s := startServer(t, testConfig(t, masterdb.SQLite))
	long := newBadStore(t, s, credential.SQLite, "long@example.com")
	for i := range 30 {
		_, err := storedata.AddProduct(t.Context(), long.db, storedata.NewProduct{Name: "P", Slug: fmt.Sprintf("p%d", i), Currency: "EUR"})
		testkit.Must(t, err)
	}
	long.exec("UPDATE products SET description = replace(hex(zeroblob(2500)), '0', char(1))")
	const path = "/api/storefront/products?limit=100"
	size := len(long.front(path).want(http.StatusOK).raw)
	testkit.Eventually(t, testkit.Timeout, "memory of a response that was read", func() bool { return s.Memory.Stats().Used == 0 })
	conn := long.askWithoutReading(path)
	_, err := conn.Read(make([]byte, 1)) // the response has begun
	testkit.Must(t, err)
	for range 20 {
		<-time.After(10 * time.Millisecond)
		if used := s.Memory.Stats().Used; used < int64(size) {
			t.Fatalf("%d bytes are counted of a response that waits, want %d", used, size)
		}
	}
	testkit.Must(t, conn.Close())
	for range 20 {
		<-time.After(10 * time.Millisecond)
		long.front("/api/storefront/store").want(http.StatusOK)
		if used := s.Memory.Stats().Used; used < int64(size) {
			t.Fatalf("%d bytes are counted after the client has left, want %d", used, size)
		}
	}
}

// TestMemoryUnderSlowReaders checks that a column of 60 MB and the longest pages of
// products, requested by clients that do not read, use no more memory than the budget,
// and that another store is served meanwhile. It is not parallel, because it measures
// the whole process.
func TestMemoryUnderSlowReaders(t *testing.T) { //nolint:paralleltest // see above
	if os.Getenv(tenantdbtest.PostgresEnv) == "" {
		t.Skip("needs PostgreSQL")
	}
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	cfg.AnswerMemory = 64
	s := startServer(t, cfg)
	huge := newBadStore(t, s, credential.PostgreSQL, "huge@example.com")
	huge.write(badValue{table: "products", column: "description", value: "repeat('x', 60000000)"}, badWrite{typ: "text"})
	long := newBadStore(t, s, credential.PostgreSQL, "long@example.com")
	for i := range 99 {
		_, err := storedata.AddProduct(t.Context(), long.db, storedata.NewProduct{Name: "P", Slug: fmt.Sprintf("p%d", i), Currency: "EUR", ImageURL: "https://example.com/"})
		testkit.Must(t, err)
	}
	// JSON encodes this character in six, so a page exceeds the kernel's buffers.
	long.exec("UPDATE products SET name = repeat(chr(1), 200), description = repeat(chr(1), 5000)", "UPDATE product_images SET url = repeat(chr(1), 2048)")
	other := newBadStore(t, s, credential.SQLite, "other@example.com")
	const path = "/api/storefront/products?limit=100"
	size := len(long.front(path).want(http.StatusOK).raw)
	calm := heapMiB()
	resident := residentMiB(t)

	peak, held := calm, int64(0)
	for range 38 {
		huge.askWithoutReading(path)
		long.askWithoutReading(path)
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		other.front(path).want(http.StatusOK)
		other.front("/").want(http.StatusOK)
		peak, held = max(peak, heapMiB()), max(held, s.Memory.Stats().Used)
	}
	stats := s.Memory.Stats()
	t.Logf("a page of %d bytes: the heap has %.0f MiB before, %.0f MiB at most; resident %.0f MiB before, %.0f MiB at the end; counted %.1f MiB at most, refused %d times",
		size, calm, peak, resident, residentMiB(t), float64(held)/(1<<20), stats.Refused)
	if grown := peak - calm; grown > 100 { // with as much garbage, the process grows by 200 MiB
		t.Errorf("the heap has grown by %.0f MiB", grown)
	}
	if held > 16<<20+1<<20 {
		t.Errorf("one store has %d bytes", held)
	}
	if stats.Refused == 0 {
		t.Error("nobody was refused")
	}
	if a := long.front(path).want(http.StatusServiceUnavailable); a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}
