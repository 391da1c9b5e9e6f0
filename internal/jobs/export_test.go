package jobs

import (
	"regexp"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
)

// LatestMigration is the number that this release records as River's last migration.
const LatestMigration = latestMigration

// WakeAt calls wakeAt.
func (q *Queue) WakeAt(queue string, at time.Time) bool { return q.wakeAt(queue, at) }

// Remembered counts the recorded attempts whose outcome is not stored yet.
func (q *Queue) Remembered() (n int) {
	q.ended.Range(func(any, any) bool { n++; return true })
	return n
}

// CountQueries returns the statements that count jobs, by name.
func CountQueries() map[string]string {
	return map[string]string{"kinds": countKindsSQL("available"), "queues": countQueuesSQL(), "the oldest": oldestSQL()}
}

// ListQuery is a statement of List with its arguments, and the index that it reads.
type ListQuery struct {
	SQL  string
	Args []any
	Plan *regexp.Regexp // what its plan contains: an index, and the conditions that bound it
}

// ListQueries are the statements that List sends, by what they select.
func ListQueries(engine masterdb.Engine) map[string]ListQuery {
	return map[string]ListQuery{
		"the kinds":  {kindsSQL, nil, regexp.MustCompile(`river_job_kind`)},
		"two kinds":  {listIDsSQL(engine, "completed", 2), []any{int64(1 << 40), 21, "done", "seldom"}, regexp.MustCompile(listIndex + `.*(\(state=\? AND kind=\? AND id<\?\)|\n.*Index Cond:.*ROW\(kind, id\) <)`)},
		"unfinished": {`SELECT id FROM river_job WHERE kind = $1 AND ` + isUnfinished, []any{"done"}, regexp.MustCompile(listIndex)},
	}
}
