package jobs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/riverqueue/river"

	"github.com/stoahq/stoa/internal/masterdb"
)

// MaxCounted is how many jobs of one state are counted. There may be millions; a count
// reads at most so many rows, by River's index of states and queues.
const MaxCounted = 1000

// Count is the number of jobs of one kind in one state.
type Count struct {
	Kind  string
	State string
	Jobs  int64
	// More is set when there are more jobs in the state than MaxCounted: Jobs is then the
	// number among those that were counted.
	More bool
}

// uncounted are the states of jobs that Counts leaves out: there are as many as the
// platform has completed in a day.
var uncounted = []string{"completed"}

// fetchOrder is the order of River's index of the jobs that it fetches next.
const fetchOrder = ` ORDER BY queue, priority, scheduled_at, id`

// Counts counts the jobs that have not ended well, by kind and state.
func Counts(ctx context.Context, q masterdb.Querier) ([]Count, error) {
	var out []Count
	for _, state := range append([]string{"pending"}, States...) {
		if slices.Contains(uncounted, state) {
			continue
		}
		var rows []Count
		if err := q.Select(ctx, &rows, countKindsSQL(state)); err != nil {
			return nil, err
		}
		var all int64
		for _, row := range rows {
			all += row.Jobs
		}
		for _, row := range rows {
			row.More = all > MaxCounted
			out = append(out, row)
		}
	}
	slices.SortFunc(out, func(a, b Count) int {
		return strings.Compare(a.Kind+" "+a.State, b.Kind+" "+b.State)
	})
	return out, nil
}

func countKindsSQL(state string) string {
	return fmt.Sprintf(`SELECT kind, '%[1]s' AS state, count(*) AS jobs
		FROM (SELECT kind FROM river_job WHERE state = '%[1]s'%[2]s LIMIT %[3]d) c GROUP BY kind`, state, fetchOrder, MaxCounted+1)
}

// Total adds up the jobs in some states. More is set when there are more than n.
func Total(counts []Count, states ...string) (n int64, more bool) {
	byState := map[string]int64{}
	for _, c := range counts {
		if slices.Contains(states, c.State) {
			byState[c.State] += c.Jobs
			more = more || c.More
		}
	}
	for _, jobs := range byState {
		n += min(jobs, MaxCounted)
	}
	return n, more
}

// QueueState says whether the jobs of one queue are worked off.
type QueueState struct {
	Queue   string
	Waiting int64 // jobs that are due and have not started; MaxCounted + 1 means more than MaxCounted
	Running int64 // in all processes
	// Oldest is when the job became due that waits for the longest time; nil when none
	// waits.
	Oldest *time.Time
}

// Age returns how long the oldest job waits.
func (s QueueState) Age(now time.Time) time.Duration {
	if s.Oldest == nil {
		return 0
	}
	return max(now.Sub(*s.Oldest), 0)
}

// queues are the queues that processes work on.
var queues = []string{river.QueueDefault, tenantQueue, newTenantQueue}

// maxPriority is the last of River's priorities, which begin at 1.
const maxPriority = 4

// dueStates are the states of a job that may be due. River makes those that are scheduled
// or to be retried available when their time has come; if no process leads, none does.
var dueStates = []string{"available", "scheduled", "retryable"}

// QueueStates returns the state of every queue at a time of the master's clock. What it
// reads does not grow with the number of jobs.
func QueueStates(ctx context.Context, q masterdb.Querier, now time.Time) ([]QueueState, error) {
	var out []QueueState
	if err := q.Select(ctx, &out, countQueuesSQL()); err != nil {
		return nil, err
	}
	var due []struct {
		Queue       string
		ScheduledAt time.Time
	}
	if err := q.Select(ctx, &due, oldestSQL()); err != nil {
		return nil, err
	}
	for i := range out {
		for _, job := range due {
			if job.Queue == out[i].Queue && !job.ScheduledAt.After(now) && (out[i].Oldest == nil || job.ScheduledAt.Before(*out[i].Oldest)) {
				out[i].Oldest = &job.ScheduledAt
			}
		}
	}
	return out, nil
}

func countQueuesSQL() string {
	var parts []string
	count := func(queue, state string) string {
		return fmt.Sprintf(`(SELECT count(*) FROM (SELECT 1 AS one FROM river_job WHERE state = '%s' AND queue = '%s'%s LIMIT %d) c)`,
			state, queue, fetchOrder, MaxCounted+1)
	}
	for _, queue := range queues {
		parts = append(parts, fmt.Sprintf(`SELECT '%s' AS queue, %s AS waiting, %s AS running`, queue, count(queue, "available"), count(queue, "running")))
	}
	return strings.Join(parts, " UNION ALL ")
}

// oldestSQL selects the first job of every state, queue and priority in River's index.
func oldestSQL() string {
	var parts []string
	for _, state := range dueStates {
		for _, queue := range queues {
			for priority := 1; priority <= maxPriority; priority++ {
				parts = append(parts, fmt.Sprintf(`SELECT id FROM (SELECT id FROM river_job WHERE state = '%s' AND queue = '%s' AND priority = %d ORDER BY scheduled_at, id LIMIT 1) c`,
					state, queue, priority))
			}
		}
	}
	return `SELECT queue, scheduled_at FROM river_job WHERE id IN (` + strings.Join(parts, " UNION ALL ") + `)`
}

// Kinds returns the kinds of jobs that have a handler.
func (q *Queue) Kinds() []string { return slices.Sorted(slices.Values(q.kinds)) }
