package backups

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/quotas"
	"github.com/stoahq/stoa/internal/version"
)

// Schedule says how often archives are made, and which are kept: the newest one of each of
// the last hours, days, weeks and months, as many as given. Archives are made as often as
// the shortest of these needs. The zero Schedule makes none. Periods begin in UTC.
type Schedule struct {
	Hourly, Daily, Weekly, Monthly int
}

// DefaultSchedule is the schedule of an installation without another.
var DefaultSchedule = Schedule{Daily: 7, Weekly: 4, Monthly: 6}

// maxKept limits each number of a schedule.
const maxKept = 1000

// Interval returns the time between two archives. It is 0 if none are made.
func (s Schedule) Interval() time.Duration {
	const day = 24 * time.Hour
	switch {
	case s.Hourly > 0:
		return time.Hour
	case s.Daily > 0:
		return day
	case s.Weekly > 0:
		return 7 * day
	case s.Monthly > 0:
		return 30 * day
	}
	return 0
}

// String returns the schedule in the form that ParseSchedule reads.
func (s Schedule) String() string {
	var parts []string
	for _, t := range s.tiers() {
		if t.count > 0 {
			parts = append(parts, t.name+"="+strconv.Itoa(t.count))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ",")
}

// ParseSchedule reads a schedule such as daily=7,weekly=4 or none.
func ParseSchedule(text string) (Schedule, error) {
	var s Schedule
	if text == "none" {
		return s, nil
	}
	fields := map[string]*int{"hourly": &s.Hourly, "daily": &s.Daily, "weekly": &s.Weekly, "monthly": &s.Monthly}
	for part := range strings.SplitSeq(text, ",") {
		name, number, _ := strings.Cut(strings.TrimSpace(part), "=")
		field := fields[name]
		if field == nil {
			return s, errors.New("is a list such as hourly=24,daily=7,weekly=4,monthly=6, or none")
		}
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 || n > maxKept {
			return s, fmt.Errorf("the number of %s archives is between 0 and %d", name, maxKept)
		}
		*field = n
		delete(fields, name)
	}
	return s, nil
}

// Validate fails with invalid_request for a number that is out of range.
func (s Schedule) Validate() error {
	var faults stoa.Invalid
	for _, t := range s.tiers() {
		if t.count < 0 || t.count > maxKept {
			faults.Add(t.name, "must be between 0 and %d", maxKept)
		}
	}
	return faults.Err()
}

// tier keeps the newest archive of each of the last periods.
type tier struct {
	name   string
	count  int
	period func(time.Time) string
}

func (s Schedule) tiers() []tier {
	return []tier{
		{"hourly", s.Hourly, func(t time.Time) string { return t.Format("2006-01-02T15") }},
		{"daily", s.Daily, func(t time.Time) string { return t.Format("2006-01-02") }},
		{"weekly", s.Weekly, func(t time.Time) string {
			year, week := t.ISOWeek()
			return fmt.Sprintf("%d-%d", year, week)
		}},
		{"monthly", s.Monthly, func(t time.Time) string { return t.Format("2006-01") }},
	}
}

// Keeps reports which of the archives are kept, which were made at these times, the newest
// first. The newest one is always kept.
func (s Schedule) Keeps(made []time.Time) []bool {
	keep := make([]bool, len(made))
	for _, t := range s.tiers() {
		last, left := "", t.count
		for i, at := range made {
			if left == 0 {
				break
			}
			if period := t.period(at.UTC()); period != last {
				keep[i], last = true, period
				left--
			}
		}
	}
	if len(keep) > 0 {
		keep[0] = true
	}
	return keep
}

// StoreSchedule is the schedule of one store.
type StoreSchedule struct {
	Schedule
	Own    bool       // the store's own, as opposed to that of the platform
	NextAt *time.Time // nil: none is due
}

// Version identifies the schedule, for SetSchedule.
func (s StoreSchedule) Version() string {
	s.NextAt = nil
	return version.Of(s)
}

type scheduleRow struct {
	NextAt                         time.Time
	Own                            bool
	Hourly, Daily, Weekly, Monthly int
}

// Schedule returns the schedule of the store.
func (s *Service) Schedule(ctx context.Context, p authz.Principal, store stoa.StoreID) (StoreSchedule, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ReadBackups); err != nil {
		return StoreSchedule{}, err
	}
	return s.schedule(ctx, s.db, store)
}

func (s *Service) schedule(ctx context.Context, q masterdb.Querier, store stoa.StoreID) (StoreSchedule, error) {
	var r scheduleRow
	err := q.Get(ctx, &r, `SELECT next_at, own, hourly, daily, weekly, monthly FROM backup_schedules WHERE store_id = $1`, store)
	if errors.Is(err, masterdb.ErrNotFound) { // it is yet to be added
		return StoreSchedule{Schedule: s.opts.Schedule}, nil
	}
	if err != nil {
		return StoreSchedule{}, err
	}
	out := StoreSchedule{Schedule: s.of(r), Own: r.Own}
	if out.Interval() > 0 {
		out.NextAt = &r.NextAt
	}
	return out, nil
}

func (s *Service) of(r scheduleRow) Schedule {
	if r.Own {
		return Schedule{Hourly: r.Hourly, Daily: r.Daily, Weekly: r.Weekly, Monthly: r.Monthly}
	}
	return s.opts.Schedule
}

// SetSchedule gives the store a schedule of its own, or with nil that of the platform. What
// a shorter schedule does not keep is deleted after the next archive. It fails with
// invalid_request.
func (s *Service) SetSchedule(ctx context.Context, p authz.Principal, store stoa.StoreID, own *Schedule, match version.Match) (StoreSchedule, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ManageBackups); err != nil {
		return StoreSchedule{}, err
	}
	set, text := s.opts.Schedule, "platform"
	if own != nil {
		if err := own.Validate(); err != nil {
			return StoreSchedule{}, err
		}
		set, text = *own, own.String()
	}
	var out StoreSchedule
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if match != nil {
			if err := quotas.LockStore(ctx, tx, store); err != nil {
				return err
			}
			present, err := s.schedule(ctx, tx, store)
			if err != nil {
				return err
			}
			if err := match.Check(present.Version()); err != nil {
				return err
			}
		}
		// The next archive is due within one interval: a longer wait of before is cut.
		next := tx.Now.Add(set.Interval())
		_, err := tx.Exec(ctx, `INSERT INTO backup_schedules (store_id, next_at, own, hourly, daily, weekly, monthly) VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (store_id) DO UPDATE SET next_at = CASE WHEN backup_schedules.next_at < excluded.next_at THEN backup_schedules.next_at ELSE excluded.next_at END,
				own = excluded.own, hourly = excluded.hourly, daily = excluded.daily, weekly = excluded.weekly, monthly = excluded.monthly`,
			store, next, own != nil, set.Hourly, set.Daily, set.Weekly, set.Monthly)
		if err != nil {
			return err
		}
		if err := audit.Record(ctx, tx, p, audit.Event{Action: audit.BackupScheduled, Store: store, Details: map[string]string{"schedule": text}}); err != nil {
			return err
		}
		out, err = s.schedule(ctx, tx, store)
		return err
	})
	return out, err
}

// firstDue returns when the first archive of a store is made: not for all at once.
func firstDue(now time.Time, interval time.Duration) time.Time {
	return now.Add(time.Duration(rand.Int64N(int64(interval)))) //nolint:gosec // to spread the load needs no secure random numbers
}
