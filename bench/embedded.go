package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// These are the limits of the platform's process while it serves many more embedded stores
// than it keeps open.
const (
	embeddedTargetMemory = 300 // MiB
	embeddedOpen         = 200 // database files; the default of STOA_EMBEDDED_OPEN
)

const (
	sideMany = "many"
	sideFew  = "few"
)

// embeddedCmd measures stores on SQLite files, of which only some are open at once, and
// compares them with few stores that are all open.
type embeddedCmd struct {
	common
	Stores   int           `default:"5000" help:"Stores, each with a SQLite file."`
	Few      int           `default:"100" help:"How many of them the other side asks for."`
	Rounds   int           `default:"5" help:"How often each side is measured, in turns."`
	Duration time.Duration `default:"4s" help:"Length of one round of one side."`
	WarmUp   time.Duration `default:"10s" help:"Load on each side before it is measured, once each store was asked for."`
}

func (cmd embeddedCmd) Run(ctx context.Context) (err error) {
	open := embeddedOpen
	if cmd.Quick {
		cmd.Stores, cmd.Few, cmd.Rounds, cmd.Duration, cmd.WarmUp, open = 50, 10, 2, time.Second, time.Second, 20
	}
	settings := []string{"STOA_EMBEDDED_OPEN=" + strconv.Itoa(open)}
	if _, err := readMemory(os.Getpid()); err != nil {
		return fmt.Errorf("this measurement reads /proc, as Linux has it: %w", err)
	}
	f, err := startFleet(ctx, cmd.Postgres, fleetPlan{stores: cmd.Stores, open: openEmbedded, settings: settings})
	if f != nil {
		defer func() { err = f.stop(ctx, err) }()
	}
	if err != nil {
		return err
	}
	setUp, err := readMemory(f.process.pid())
	if err != nil {
		return err
	}
	if err := f.restart(ctx, settings); err != nil {
		return err
	}
	r, err := cmd.measure(ctx, f, open)
	if err != nil {
		return err
	}
	r.tell("resident memory at its peak, while the stores were made", figure{Value: setUp.peak, Unit: " MiB"})
	return r.finish(cmd.JSON)
}

func (cmd embeddedCmd) measure(ctx context.Context, f *fleet, open int) (*report, error) {
	sides := []side{
		cmd.side(sideFew, f, f.shops[:cmd.Few]),
		cmd.side(sideMany, f, f.shops),
	}
	stop := watch(ctx, func(context.Context) (map[string]int, error) { return openDatabaseFiles(f.process.pid()) })
	defer stop() //nolint:errcheck // an earlier error is returned
	if err := warmUp(ctx, sides); err != nil {
		return nil, err
	}
	rounds, err := takeTurns(ctx, cmd.Rounds, sides, runSide)
	if err != nil {
		return nil, err
	}
	seen, err := stop()
	if err != nil {
		return nil, err
	}
	memory, err := readMemory(f.process.pid())
	if err != nil {
		return nil, err
	}
	r := newReport("embedded", sides, rounds)
	r.About = about(cmd.Stores, uniform, cmd.Connections, cmd.Rounds, cmd.Duration) + fmt.Sprintf(", %d open", open)
	r.atMost("resident memory of the server at its peak", figure{Value: memory.peak, Unit: " MiB"}, embeddedTargetMemory)
	r.tell("resident memory of the server at the end", figure{Value: memory.now, Unit: " MiB"})
	r.atMost("database files open at once", figure{Value: float64(seen[databaseFiles])}, float64(open))
	r.tell(fmt.Sprintf("throughput, of the %d stores", cmd.Few), r.throughput(sideMany, sideFew))
	r.tell("p99, to the same", r.p99(sideMany, sideFew))
	return r, nil
}

// side returns a side whose turns begin with a time that does not count. In it the platform
// opens the side's stores in place of the other side's.
func (cmd embeddedCmd) side(name string, f *fleet, shops []shop) side {
	j := cmd.load(f.address, shops, uniform, cmd.Duration)
	j.Settle = cmd.Duration / 4
	return side{name: name, label: fmt.Sprintf("stoa, %d stores", len(shops)), warm: cmd.WarmUp, job: j}
}

// memory is the resident set size of a process, in MiB.
type memory struct{ now, peak float64 }

func readMemory(pid int) (memory, error) {
	var m memory
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 64)
		switch {
		case name == "VmRSS" && err == nil:
			m.now = kib / 1024
		case name == "VmHWM" && err == nil:
			m.peak = kib / 1024
		}
	}
	if m.now == 0 || m.peak == 0 {
		return m, errors.New("the process's status does not tell its memory")
	}
	return m, nil
}

const databaseFiles = "database files"

// openDatabaseFiles counts the stores' files that the process has open; a file that is open
// twice counts once. The process is stopped meanwhile: otherwise a file that is closed and
// one that is opened in its place could both be counted.
func openDatabaseFiles(pid int) (map[string]int, error) {
	if err := standStill(pid); err != nil {
		return nil, err
	}
	defer syscall.Kill(pid, syscall.SIGCONT) //nolint:errcheck // the process has ended, or later requests detect that it hangs
	folder := fmt.Sprintf("/proc/%d/fd", pid)
	links, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	files := map[string]bool{}
	for _, link := range links {
		if name, err := os.Readlink(filepath.Join(folder, link.Name())); err == nil && filepath.Ext(name) == ".db" {
			files[name] = true
		}
	}
	return map[string]int{databaseFiles: len(files)}, nil
}

// standStill stops the process and returns when all its threads have stopped.
func standStill(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	threads := fmt.Sprintf("/proc/%d/task/*/stat", pid)
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		stats, err := filepath.Glob(threads)
		if err != nil {
			return err
		}
		if len(stats) > 0 && !slices.ContainsFunc(stats, isRunning) {
			return nil
		}
	}
	_ = syscall.Kill(pid, syscall.SIGCONT)
	return errors.New("the server does not stand still for its files to be counted")
}

// isRunning reads the state of a thread, which follows its name in parentheses.
func isRunning(stat string) bool {
	line, err := os.ReadFile(stat) //nolint:gosec // below /proc
	if err != nil {
		return false // the thread has ended
	}
	_, state, _ := strings.Cut(string(line), ") ")
	return !strings.HasPrefix(state, "T")
}
