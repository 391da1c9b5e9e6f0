package archive

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// heapPeak records the largest heap at the calls of sample.
type heapPeak struct{ base, most uint64 }

func (p *heapPeak) sample() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	p.most = max(p.most, m.HeapAlloc)
}

// samplingWriter samples the heap at each write of about 64 KiB.
type samplingWriter struct {
	io.Writer
	peak *heapPeak
}

func (s samplingWriter) Write(p []byte) (int, error) {
	s.peak.sample()
	return s.Writer.Write(p)
}

// samplingReader samples the heap at each read.
type samplingReader struct {
	io.Reader
	peak *heapPeak
}

func (s samplingReader) Read(p []byte) (int, error) {
	s.peak.sample()
	return s.Reader.Read(p)
}

// fillLarge gives a database about 96 MB of pages that do not compress much.
func fillLarge(t *testing.T, db *tenantdb.DB) {
	t.Helper()
	now := time.Now().UTC()
	const insert = `INSERT INTO pages (id, slug, title, body, published, created_at, updated_at) `
	series := map[credential.EngineName]string{
		credential.SQLite: `WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 12000) ` + insert +
			`SELECT printf('018f2b6c-7d1e-7c3a-9f00-%012x', n), 'p' || n, 't', hex(randomblob(4000)), true, ?, ? FROM g`,
		credential.PostgreSQL: insert + `SELECT ('018f2b6c-7d1e-7c3a-9f00-' || lpad(to_hex(n), 12, '0'))::uuid, 'p' || n, 't',
			(SELECT string_agg(md5(n::text || i::text), '') FROM generate_series(1, 250) i), true, ?::timestamptz, ?::timestamptz FROM generate_series(1, 12000) n`,
		credential.MySQL: insert + `SELECT concat('018f2b6c-7d1e-7c3a-9f00-', lpad(lower(hex(a.n * 1000 + b.n)), 12, '0')), concat('p', a.n * 1000 + b.n), 't',
			concat(repeat(md5(a.n * 1000 + b.n), 50), repeat(md5(rand()), 50), repeat(md5(rand()), 150)), true, ?, ?
			FROM (SELECT d.n * 10 + e.n AS n FROM digits d CROSS JOIN (SELECT n FROM digits) e WHERE d.n * 10 + e.n < 12) a
			CROSS JOIN (SELECT d.n * 100 + e.n * 10 + f.n AS n FROM digits d CROSS JOIN (SELECT n FROM digits) e CROSS JOIN (SELECT n FROM digits) f) b`,
	}
	if db.Engine == credential.MySQL {
		exec(t, db, `CREATE TABLE digits (n integer)`)
		exec(t, db, `INSERT INTO digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)`)
	}
	exec(t, db, series[db.Engine], now, now)
}

// TestMemoryDoesNotGrowWithTheStore archives and loads a table that is much larger than the
// memory that may be used for it.
func TestMemoryDoesNotGrowWithTheStore(t *testing.T) { //nolint:paralleltest // it measures the heap of the whole process
	const most = 48 << 20
	// What waits for the collector depends on how busy the machine is, and is no matter here.
	defer debug.SetGCPercent(debug.SetGCPercent(25))
	for _, engine := range tenantdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) { //nolint:paralleltest // as above
			db := migrated(t, engine)
			fillLarge(t, db)
			id := newIdentity(t)
			path := filepath.Join(t.TempDir(), "archive")
			file, err := os.Create(path)
			testkit.Must(t, err)
			defer file.Close() //nolint:errcheck // it is only read afterwards
			debug.FreeOSMemory()
			var peak heapPeak
			peak.sample()
			peak.base = peak.most
			_, want, err := Write(t.Context(), db, stoa.NewID[stoa.StoreID](), samplingWriter{file, &peak}, WriteOptions{}, id.Recipient())
			testkit.Must(t, err)
			if want.Bytes < 80<<20 {
				t.Fatalf("the store has only %d bytes", want.Bytes)
			}
			report(t, "writing", peak, most)
			_, err = file.Seek(0, io.SeekStart)
			testkit.Must(t, err)
			peak.most = 0
			r, err := NewReader(samplingReader{file, &peak}, ReadOptions{}, id)
			testkit.Must(t, err)
			defer r.Close()
			target := tenantdbtest.Open(t, tenantdbtest.Create(t, engine))
			l := loader{db: target, head: r.Head}
			defer l.stop()
			testkit.Must(t, l.prepare(t.Context()))
			testkit.Must(t, l.parts(t.Context(), r))
			testkit.Must(t, l.finish(t.Context()))
			report(t, "loading", peak, most)
		})
	}
}

func report(t *testing.T, what string, p heapPeak, most uint64) {
	t.Helper()
	used := fmt.Sprintf("%s: the heap grows from %d to %d MiB", what, p.base>>20, p.most>>20)
	t.Log(used)
	if p.most > p.base+most {
		t.Error(used)
	}
}
