package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// keysName is the file in the data directory in which the platform keeps generated keys.
const keysName = "keys.env"

func (p *platform) data() string { return filepath.Join(p.folder, "data") }

// environment returns the environment variables that tell the binary where its files are.
func (p *platform) environment(data string) []string {
	return append(os.Environ(), "MASTER_DB_URL="+p.master, "STOA_DATA_DIR="+data)
}

// command runs one of the binary's commands to its end, with the given data directory, and
// returns its output.
func (p *platform) command(ctx context.Context, data string, args ...string) ([]byte, error) {
	var out, fault bytes.Buffer
	cmd := exec.CommandContext(ctx, p.binary, args...) //nolint:gosec // built by this program
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = p.folder, &out, &fault, p.environment(data)
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("stoa %s %s: %w: %s", args[0], args[1], err, bytes.TrimSpace(fault.Bytes()))
	}
	return out.Bytes(), nil
}

// migration is the output of 'stoa tenants migrate --json'.
type migration struct {
	lagging, migrated int
	took              []time.Duration // the duration for each store
}

// readMigration reads one object per store and then the summary.
func readMigration(lines []byte) (migration, error) {
	var m migration
	ended := false
	for d := json.NewDecoder(bytes.NewReader(lines)); d.More(); {
		var line struct {
			State      string
			DurationMs int64
			Summary    *struct{ Lagging, Migrated int }
		}
		if err := d.Decode(&line); err != nil {
			return m, err
		}
		if line.Summary != nil {
			m.lagging, m.migrated, ended = line.Summary.Lagging, line.Summary.Migrated, true
			continue
		}
		if line.State != "migrated" {
			return m, fmt.Errorf("a store is %s", line.State)
		}
		m.took = append(m.took, time.Duration(line.DurationMs)*time.Millisecond)
	}
	if !ended || len(m.took) != m.migrated {
		return m, errors.New("the command printed no summary that fits its stores")
	}
	return m, nil
}
