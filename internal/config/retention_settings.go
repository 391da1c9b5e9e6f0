package config

import (
	"time"

	"github.com/stoahq/stoa/internal/audit"
)

// Retention holds the settings of how long records are kept.
type Retention struct {
	AuditRetention *time.Duration `name:"audit-retention" env:"STOA_AUDIT_RETENTION" help:"How long entries of the audit log are kept; 0s keeps them for ever. The master database remembers it. Unless told, as it has it: 9600h (400 days) at first." placeholder:"TIME" group:"config"`
	EventRetention time.Duration  `name:"event-retention" env:"STOA_EVENT_RETENTION" default:"2160h" help:"How long applied events of Stripe, earlier provisioning runs and announced low balances are kept; 0s keeps them for ever." placeholder:"TIME" group:"config"`
}

// minEventRetention is longer than the 30 days for which Stripe lists events
// that it could not deliver.
const minEventRetention = 31 * 24 * time.Hour

func (r *Retention) check(fault func(name, format string, args ...any)) {
	for name, c := range map[string]struct {
		set *time.Duration
		min time.Duration
	}{
		"STOA_AUDIT_RETENTION": {r.AuditRetention, audit.MinRetention},
		"STOA_EVENT_RETENTION": {&r.EventRetention, minEventRetention},
	} {
		if c.set != nil && *c.set != 0 && (*c.set < c.min || *c.set > audit.MaxRetention) {
			fault(name, "must be between %.0fh and %.0fh, or 0s for ever", c.min.Hours(), audit.MaxRetention.Hours())
		}
	}
}
