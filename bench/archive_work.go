package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"

	"filippo.io/age"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
)

// archiveWorkCmd writes or loads one archive, in a process of its own whose memory is that
// of this work. It reads its job from its input.
type archiveWorkCmd struct {
	Profile string `help:"File for a CPU profile."`
}

// archiveJob describes what archiveWorkCmd does with one database.
type archiveJob struct {
	Load    bool                  `json:"load"` // the archive into the database; otherwise the other way
	Engine  credential.EngineName `json:"engine"`
	Address string                `json:"address"` // of a server's database; otherwise Store names a file in Folder
	Folder  string                `json:"folder"`
	Store   stoa.StoreID          `json:"store"`
	File    string                `json:"file"`
	Key     string                `json:"key"`
}

// archiveWork is what a job took. The heap is counted above that of the idle process.
type archiveWork struct {
	Rows      int64         `json:"rows"`
	Bytes     int64         `json:"bytes"`    // of the encoded rows
	Compared  time.Duration `json:"compared"` // from the last row loaded to the end
	HeapBytes int64         `json:"heapBytes"`
	Resident  int64         `json:"resident"` // bytes, at most

	took time.Duration // of the whole process
}

// runArchiveJob starts the process and waits for it. The time is that of the whole process,
// as it is of the tools.
func runArchiveJob(ctx context.Context, j archiveJob, profile string) (w archiveWork, err error) {
	self, err := os.Executable()
	if err != nil {
		return w, err
	}
	cmd := exec.CommandContext(ctx, self, "archive-work", "--profile="+profile) //nolint:gosec // this program
	in, err := cmd.StdinPipe()
	if err != nil {
		return w, err
	}
	cmd.Stderr = os.Stderr
	go func() {
		_ = json.NewEncoder(in).Encode(j) // the process reports what is missing
		_ = in.Close()
	}()
	begin := time.Now()
	out, err := cmd.Output()
	w.took = time.Since(begin)
	if err != nil {
		return w, fmt.Errorf("archive of %s: %w", j.Engine, err)
	}
	return w, json.Unmarshal(out, &w)
}

func (cmd archiveWorkCmd) Run(ctx context.Context) (err error) {
	var j archiveJob
	if err := json.NewDecoder(bufio.NewReader(os.Stdin)).Decode(&j); err != nil {
		return err
	}
	if cmd.Profile != "" {
		f, err := os.Create(cmd.Profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer func() {
			pprof.StopCPUProfile()
			_ = f.Close() // an incomplete profile is of no harm
		}()
	}
	key, err := age.ParseX25519Identity(j.Key)
	if err != nil {
		return err
	}
	db, err := j.open()
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // the process ends
	peak := watchHeap()
	var w archiveWork
	if j.Load {
		w, err = j.load(ctx, db, key)
	} else {
		w, err = j.write(ctx, db, key)
	}
	w.HeapBytes = peak()
	if err != nil {
		return err
	}
	resident, err := readMemory(os.Getpid())
	if err != nil {
		return err
	}
	w.Resident = int64(resident.peak * (1 << 20))
	return json.NewEncoder(os.Stdout).Encode(w)
}

func (j archiveJob) open() (*tenantdb.DB, error) {
	c := credential.ManagedSQLite(j.Store)
	if j.Engine != credential.SQLite {
		var err error
		if c, err = credential.ParseConnectionString(j.Engine, keyring.NewSecret(j.Address)); err != nil {
			return nil, err
		}
	}
	return tenantdb.NewManager(nil, nil, tenantdb.Options{DataDir: j.Folder, Dialer: dial.Dialer{Allow: dial.Loopback}}).OpenUnleased(c)
}

func (j archiveJob) write(ctx context.Context, db *tenantdb.DB, key *age.X25519Identity) (w archiveWork, err error) {
	f, err := os.Create(j.File)
	if err != nil {
		return w, err
	}
	_, sum, err := archive.Write(ctx, db, j.Store, f, archive.WriteOptions{}, key.Recipient())
	w.Rows, w.Bytes = sum.Rows, sum.Bytes
	return w, errors.Join(err, f.Close())
}

func (j archiveJob) load(ctx context.Context, db *tenantdb.DB, key *age.X25519Identity) (w archiveWork, err error) {
	f, err := os.Open(j.File)
	if err != nil {
		return w, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	r, err := archive.NewReader(f, archive.ReadOptions{}, key)
	if err != nil {
		return w, err
	}
	defer r.Close()
	last := time.Now()
	err = archive.Load(ctx, db, r, archive.LoadOptions{OnTable: func(archive.Summary) error {
		last = time.Now()
		return nil
	}})
	w.Compared, w.Rows, w.Bytes = time.Since(last), r.Summary().Rows, r.Summary().Bytes
	return w, err
}

// watchHeap samples the heap in use. The returned function ends that and returns how far it
// grew.
func watchHeap() (stop func() int64) {
	read := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse) //nolint:gosec // far below the limit
	}
	runtime.GC()
	base, done := read(), make(chan struct{})
	most := base
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				most = max(most, read())
			}
		}
	})
	return func() int64 {
		close(done)
		running.Wait()
		return max(most, read()) - base
	}
}
