package webhooks

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
)

// verdict is what the results of a round say of the endpoint.
type verdict struct {
	success, fault, gone bool
	slow                 bool
	after                time.Duration // the endpoint asks not to be called before
}

func (v *verdict) add(r *result) {
	v.success = v.success || r.fault == ""
	v.fault = v.fault || r.endpoint
	v.gone = v.gone || r.gone
	v.slow = v.slow || r.took >= slowAfter
	v.after = max(v.after, r.retryAfter)
}

// wakeWithin is how soon an endpoint must be due again for a timer: polls are enough for later
// ones.
const wakeWithin = 5 * time.Minute

// health is the part of an endpoint's state that results change.
type health struct {
	failures     int
	failingSince *time.Time
	reason       string    // why it is to be disabled; "": it is not
	notBefore    time.Time // the pause before the next round
}

// after returns the endpoint's health after a round.
func (c *claimed) after(v verdict, sent bool, now time.Time) health {
	h := health{failures: c.row.Failures, failingSince: c.row.FailingSince}
	switch {
	case v.success:
		h.failures, h.failingSince = 0, nil
	case sent && h.failingSince == nil:
		h.failingSince = &now
	}
	if v.fault && !v.success {
		h.failures++
		h.notBefore = now.Add(c.s.backoff(h.failures))
	}
	if asked := now.Add(v.after); v.after > 0 && asked.After(h.notBefore) {
		h.notBefore = asked
	}
	switch {
	case v.gone:
		h.reason = Gone
	case h.failingSince != nil && now.Sub(*h.failingSince) >= c.s.opts.Schedule.DisableAfter:
		h.reason = Failing
	}
	return h
}

// update stores the endpoint's state and gives it back, unless more is due now.
func (c *claimed) update(ctx context.Context, tx *masterdb.Tx, at cursors, v verdict, sent bool, retry *time.Time) (more bool, err error) {
	h := c.after(v, sent, tx.Now)
	var now struct { // others may have changed these since they were read
		State        State
		LastPosition int64
		ReplayUntil  int64
	}
	err = tx.Get(ctx, &now, `UPDATE webhook_endpoints SET position = CASE WHEN position > $3 THEN position ELSE $3 END,
			replay_position = CASE WHEN replay_position <> $4 THEN replay_position ELSE $5 END, failures = $6, failing_since = $7, slow = $8,
			old_secret = CASE WHEN old_until <= $9 THEN NULL ELSE old_secret END
		WHERE id = $1 AND claimed_by = $2 RETURNING state, last_position, replay_until`,
		c.id, string(c.lease.Owner), at.position, c.row.ReplayPosition, at.replay, h.failures, h.failingSince, v.slow, tx.Now)
	if errors.Is(err, masterdb.ErrNotFound) {
		return false, lease.ErrLost
	}
	if err != nil {
		return false, err
	}
	if h.reason != "" && now.State == Enabled {
		return false, c.disable(ctx, tx, h.reason)
	}
	next := retry
	if now.LastPosition > at.position || now.ReplayUntil > at.replay {
		next = &tx.Now
	}
	if next != nil && next.Before(h.notBefore) {
		next = &h.notBefore
	}
	if next == nil || next.After(tx.Now) || v.slow != c.lane.slow || c.last {
		if next != nil && next.Sub(tx.Now) < wakeWithin {
			wait := next.Sub(tx.Now)
			tx.AfterCommit(func() { time.AfterFunc(wait, c.s.signals.wake) })
		}
		_, err = tx.Exec(ctx, `UPDATE webhook_endpoints SET next_at = $2, claimed_by = NULL, claimed_until = NULL WHERE id = $1`, c.id, next)
		return false, err
	}
	return true, c.lease.Renew(ctx, tx)
}

// disable ends sending to the endpoint and has its owners told.
func (c *claimed) disable(ctx context.Context, tx *masterdb.Tx, reason string) error {
	_, err := tx.Exec(ctx, `UPDATE webhook_endpoints SET state = 'disabled', disabled_reason = $2, next_at = NULL, claimed_by = NULL, claimed_until = NULL,
		version = version + 1, updated_at = $3 WHERE id = $1`, c.id, reason, tx.Now)
	if err != nil {
		return err
	}
	e := Endpoint{ID: c.id, URL: c.row.URL}
	details := e.details()
	details["reason"] = reason
	var store stoa.StoreID
	if c.row.StoreID != nil {
		store = *c.row.StoreID
	}
	if err := audit.Record(ctx, tx, authz.Principal{}, audit.Event{Action: audit.WebhookDisabled, Store: store, Details: details}); err != nil {
		return err
	}
	tx.AfterCommit(func() { c.s.metrics.disabled.WithLabelValues(reason).Inc() })
	return c.s.enqueueNotices(ctx, tx, c.id, c.row.StoreID)
}

// backoff returns the pause of an endpoint after that many rounds without a success.
func (s *Service) backoff(failures int) time.Duration {
	pauses := s.opts.Schedule.Backoffs
	return jitter(pauses[min(max(failures, 1), len(pauses))-1])
}

// jitter returns d ± 20 %.
func jitter(d time.Duration) time.Duration {
	return d - d/5 + rand.N(max(d*2/5, 1)) //nolint:gosec // it spreads load, and protects nothing
}
