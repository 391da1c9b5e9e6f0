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

// keysName is where the platform keeps keys that it made, in its data directory.
const keysName = "keys.env"

func (p *platform) data() string { return filepath.Join(p.folder, "data") }

// environment tells the binary where its things are.
func (p *platform) environment(data string) []string {
	return append(os.Environ(), "MASTER_DB_URL="+p.master, "STOA_DATA_DIR="+data)
}

// command runs one of the binary's commands to its end, with the data
// directory as told, and returns what it printed.
func (p *platform) command(ctx context.Context, data string, args ...string) ([]byte, error) {
	var out, fault bytes.Buffer
	cmd := exec.CommandContext(ctx, p.binary, args...) //nolint:gosec // just built
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = p.folder, &out, &fault, p.environment(data)
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("stoa %s %s: %w: %s", args[0], args[1], err, bytes.TrimSpace(fault.Bytes()))
	}
	return out.Bytes(), nil
}

// migration is what 'stoa tenants migrate --json' printed.
type migration struct {
	lagging, migrated int
	took              []time.Duration // by each store
}

// readMigration reads an object per store and, last, the summary.
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
