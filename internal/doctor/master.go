package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
)

// CheckSchema checks the condition under which a server starts: the schemas of the master
// and of its job queue are those of this binary, or a newer release has created them and
// states that this one may run on them.
func CheckSchema(ctx context.Context, master *masterdb.DB) (string, error) {
	schema, err := master.Schema(ctx)
	if err == nil {
		err = schema.Check()
	}
	if err == nil {
		err = jobs.CheckSchema(ctx, master)
	}
	if err != nil {
		return "", err
	}
	detail := fmt.Sprintf("version %d on %s", schema.Version, master.Engine)
	if schema.Newer() {
		detail += fmt.Sprintf(", of a newer release; this one (%d) may run on it", schema.Binary)
	}
	return detail, nil
}

// CheckQueue checks the tables of the job queue and its jobs that wait.
func CheckQueue(ctx context.Context, master *masterdb.DB) (string, error) {
	stats, err := jobs.ReadStats(ctx, master)
	if err != nil {
		return "", err
	}
	more := ""
	if stats.More {
		more = fmt.Sprintf(" or more: a state is counted up to %d", jobs.MaxCounted)
	}
	if stats.Discarded > 0 {
		return "", fmt.Errorf("%d jobs were discarded (%d waiting, %d to be retried%s)", stats.Discarded, stats.Waiting, stats.Retrying, more)
	}
	return fmt.Sprintf("%d waiting, %d to be retried%s", stats.Waiting, stats.Retrying, more), nil
}

// CheckClock compares this machine's clock with that of the master's server. It
// returns an error from masterdb.WarnSkew on.
func CheckClock(ctx context.Context, master *masterdb.DB) (string, error) {
	ahead, err := master.MeasureSkew(ctx)
	if err != nil {
		return "", err
	}
	where := "ahead of"
	if ahead < 0 {
		where = "behind"
	}
	text := fmt.Sprintf("this machine's clock is %s %s the master database's", ahead.Abs().Round(time.Millisecond), where)
	if ahead.Abs() >= masterdb.WarnSkew {
		return "", errors.New(text)
	}
	return text, nil
}
