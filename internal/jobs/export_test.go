package jobs

import "time"

// LatestMigration is the number that this release records as River's last migration.
const LatestMigration = latestMigration

// WakeAt calls wakeAt.
func (q *Queue) WakeAt(queue string, at time.Time) bool { return q.wakeAt(queue, at) }

// CountQueries returns the statements that count jobs, by name.
func CountQueries() map[string]string {
	return map[string]string{"kinds": countKindsSQL("available"), "queues": countQueuesSQL(), "the oldest": oldestSQL()}
}
