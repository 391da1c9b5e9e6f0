package masterbackup

import (
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive/container"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// heapPeak records the largest heap at each write or read of about 64 KiB.
type heapPeak struct{ base, most uint64 }

func newHeapPeak() *heapPeak {
	debug.FreeOSMemory()
	p := &heapPeak{}
	p.sample()
	p.base = p.most
	return p
}

func (p *heapPeak) sample() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	p.most = max(p.most, m.HeapAlloc)
}

// Write implements io.Writer.
func (p *heapPeak) Write(b []byte) (int, error) {
	p.sample()
	return len(b), nil
}

func (p *heapPeak) report(t *testing.T, what string) {
	t.Helper()
	const most = 48 << 20
	t.Logf("%s: the heap grows from %d to %d MiB", what, p.base>>20, p.most>>20)
	if p.most > p.base+most {
		t.Errorf("%s: the heap grows from %d to %d MiB", what, p.base>>20, p.most>>20)
	}
}

// TestMemoryDoesNotGrowWithTheMaster backs up and restores a table that is much larger than
// the memory that may be used for it, one of whose rows is large.
func TestMemoryDoesNotGrowWithTheMaster(t *testing.T) { //nolint:paralleltest // it measures the heap of the whole process
	// What waits for the collector depends on how busy the machine is, and is no matter here.
	defer debug.SetGCPercent(debug.SetGCPercent(25))
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) { //nolint:paralleltest // as above
			db := masterdbtest.Open(t, masterdbtest.URL(t, engine))
			for i := range 72 { // 72 MB that do not compress to much less than half
				size := 1_000_000
				if i == 50 {
					size = 4_000_000
				}
				exec(t, db, `INSERT INTO audit_events (id, action, outcome, details, created_at) VALUES ($1, 'x', 'success', $2, $3)`, stoa.NewID[stoa.EventID](), incompressible(size), db.Now())
			}
			id := newIdentity(t)
			path := filepath.Join(t.TempDir(), "archive")
			file, err := os.Create(path)
			testkit.Must(t, err)
			defer file.Close() //nolint:errcheck // it is only read afterwards
			peak := newHeapPeak()
			written, err := Write(t.Context(), db, io.MultiWriter(file, peak), WriteOptions{}, id.Recipient())
			testkit.Must(t, err)
			if written.Total.Bytes < 68<<20 {
				t.Fatalf("the master has only %d bytes", written.Total.Bytes)
			}
			peak.report(t, "backup")
			_, err = file.Seek(0, io.SeekStart)
			testkit.Must(t, err)
			peak = newHeapPeak()
			_, err = Restore(t.Context(), emptyURL(t, engine), io.TeeReader(file, peak), RestoreOptions{OnTable: func(container.Summary, int) { peak.sample() }}, id)
			testkit.Must(t, err)
			peak.report(t, "restore")
		})
	}
}
