package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// singleStatement is bareSpend in pgbench's language, for a random store.
const singleStatement = `\set n random(1, %d)
WITH paid AS (
	UPDATE credit_balances SET balance = balance - 10000, lifetime_spent = lifetime_spent + 10000, seq = seq + 1, updated_at = now()
	WHERE store_id = ('00000000-0000-7000-8000-' || lpad(:n::text, 12, '0'))::uuid AND balance - reserved >= 10000
	RETURNING store_id, seq, balance
)
INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, created_at)
SELECT gen_random_uuid(), store_id, seq, 'spend', -10000, balance, now() FROM paid;
`

var (
	tpsLine     = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)
	latencyLine = regexp.MustCompile(`(?m)^latency average = ([0-9.]+) ms`)
)

// pgbench runs PostgreSQL's own load generator. It reports only the average latency.
func pgbench(ctx context.Context, databaseURL string, clients, stores int, duration time.Duration) (result, error) {
	binary, err := findPgbench()
	if err != nil {
		return result{}, err
	}
	cmd := exec.CommandContext(ctx, binary, "--no-vacuum", "--protocol=prepared", "--file=-", //nolint:gosec // found among PostgreSQL's programs
		"--client="+strconv.Itoa(clients), "--jobs="+strconv.Itoa(min(clients, 2)),
		"--time="+strconv.Itoa(int(math.Ceil(duration.Seconds()))), databaseURL)
	cmd.Stdin, cmd.Stderr = strings.NewReader(fmt.Sprintf(singleStatement, stores)), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return result{}, fmt.Errorf("pgbench: %w", err)
	}
	tps, latency := tpsLine.FindSubmatch(out), latencyLine.FindSubmatch(out)
	if tps == nil || latency == nil {
		return result{}, fmt.Errorf("pgbench said:\n%s", out)
	}
	perSecond, err := strconv.ParseFloat(string(tps[1]), 64)
	if err != nil {
		return result{}, err
	}
	average, err := strconv.ParseFloat(string(latency[1]), 64)
	took := time.Duration(average * float64(time.Millisecond))
	return result{Requests: int(perSecond * duration.Seconds()), Throughput: perSecond, P50: took, P99: took, Slowest: took}, err
}

// findPgbench finds the program where Debian installs it, which is not in PATH.
func findPgbench() (string, error) {
	if path, err := exec.LookPath("pgbench"); err == nil {
		return path, nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench") // the pattern is valid
	if len(found) == 0 {
		return "", fmt.Errorf("pgbench, which comes with PostgreSQL, is not installed")
	}
	return found[len(found)-1], nil
}
