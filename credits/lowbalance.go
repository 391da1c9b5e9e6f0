package credits

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/mail"
	"github.com/stoahq/stoa/masterdb"
)

// Settings are what a store's owners have chosen for its account.
type Settings struct {
	// LowBalance has the owners told by mail each time that what is available
	// falls from at least this much to less. Nil: never.
	LowBalance *Amount
}

// Settings returns the settings of the store's account. It fails with
// store_not_found for anyone but a member.
func (l *Ledger) Settings(ctx context.Context, p access.Principal, store stoa.StoreID) (Settings, error) {
	if _, err := access.Check(ctx, l.db, p, store, access.ReadCredits); err != nil {
		return Settings{}, err
	}
	var s Settings
	err := l.db.Get(ctx, &s, `SELECT low_balance FROM credit_balances WHERE store_id = $1`, store)
	return s, err
}

// SetSettings changes them. Whoever may buy credits may do so. It fails with
// invalid_request. A threshold above what is available causes no mail: the
// next fall below it does.
func (l *Ledger) SetSettings(ctx context.Context, p access.Principal, store stoa.StoreID, s Settings) error {
	if s.LowBalance != nil && *s.LowBalance <= 0 {
		var faults stoa.Invalid
		faults.Add("lowBalanceThreshold", "must be above 0, or null for no mail")
		return faults.Err()
	}
	return l.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := access.Check(ctx, tx, p, store, access.PurchaseCredits); err != nil {
			return err
		}
		var before Settings
		if err := tx.Get(ctx, &before, `SELECT low_balance FROM credit_balances WHERE store_id = $1`+tx.ForUpdate(), store); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE credit_balances SET low_balance = $2 WHERE store_id = $1`, store, s.LowBalance); err != nil {
			return err
		}
		return access.Record(ctx, tx, p, access.Event{Action: access.CreditSettings, Store: store, Details: map[string]string{
			"oldLowBalance": before.lowBalance(), "newLowBalance": s.lowBalance(),
		}})
	})
}

// lowBalance is the threshold as the audit log has it.
func (s Settings) lowBalance() string {
	if s.LowBalance == nil {
		return "none"
	}
	return s.LowBalance.String()
}

// Warner tells owners that credits run low. The master's own trigger notes each
// fall below the threshold (credit_crossings): from there one job per store
// makes one job per owner, and that one sends the mail.
type Warner struct {
	ledger *Ledger
	queue  *jobs.Queue
	mail   *mail.Sender
	url    string // of the platform
}

// NewWarner returns a warner that follows feed.
func NewWarner(l *Ledger, feed *Feed, queue *jobs.Queue, sender *mail.Sender, platformURL string) *Warner {
	feed.Follow(Follower{
		Behind: `WHERE EXISTS (SELECT 1 FROM credit_crossings c WHERE c.store_id = b.store_id AND c.announced_at IS NULL)`,
		Job:    func(store stoa.StoreID) jobs.Args { return AnnounceLow{store} },
	})
	return &Warner{ledger: l, queue: queue, mail: sender, url: platformURL}
}

// AnnounceLow is the job that has the store's owners told.
type AnnounceLow struct {
	StoreID stoa.StoreID `json:"storeId"`
}

// Kind implements jobs.Args.
func (AnnounceLow) Kind() string { return "credits.announce_low" }

// Announce runs the job: once for each fall, whoever else tries.
func (w *Warner) Announce(ctx context.Context, job AnnounceLow) error {
	return w.ledger.db.Tx(ctx, func(tx *masterdb.Tx) error {
		var versions []int64
		err := tx.Select(ctx, &versions, `
			UPDATE credit_crossings SET announced_at = $2 WHERE store_id = $1 AND announced_at IS NULL RETURNING version`, job.StoreID, tx.Now)
		if err != nil {
			return err
		}
		owners, err := access.Owners(ctx, tx, job.StoreID)
		if err != nil {
			return err
		}
		for _, version := range versions {
			for _, owner := range owners {
				if err := w.enqueue(ctx, tx, MailLow{job.StoreID, version, owner.UserID}); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// lowMails bounds the mails to one owner about one store: members can make its
// credits fall and rise as often as they like.
var lowMails = mail.Allowance{Name: "low-balance", Burst: 10, Every: time.Hour}

func (w *Warner) enqueue(ctx context.Context, tx *masterdb.Tx, job MailLow) error {
	wait, err := lowMails.Take(ctx, tx, job.StoreID.String()+" "+job.UserID.String())
	if err != nil || wait > 0 {
		return err
	}
	return w.queue.Enqueue(ctx, tx, job)
}

// MailLow is the job that tells one owner of one fall.
type MailLow struct {
	StoreID stoa.StoreID `json:"storeId"`
	Version int64        `json:"version"` // of the balance that fell
	UserID  stoa.UserID  `json:"userId"`
}

// Kind implements jobs.Args.
func (MailLow) Kind() string { return "credits.mail_low" }

// Mail runs the job. Who is no owner any more gets none.
func (w *Warner) Mail(ctx context.Context, job MailLow) error {
	owner, err := access.OwnerByID(ctx, w.ledger.db, job.StoreID, job.UserID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var low lowBalance
	err = w.ledger.db.Get(ctx, &low, `
		SELECT s.name, c.threshold, c.available, c.crossed_at, b.balance - b.reserved AS present
		FROM credit_crossings c JOIN stores s ON s.id = c.store_id JOIN credit_balances b ON b.store_id = c.store_id
		WHERE c.store_id = $1 AND c.version = $2`, job.StoreID, job.Version)
	if err != nil {
		return err
	}
	err = w.mail.Send(ctx, low.message(job, owner, w.url))
	if mail.IsFinal(err) {
		return jobs.Cancel(err)
	}
	return err
}

// lowBalance is one fall.
type lowBalance struct {
	Name      string // of the store
	Threshold Amount
	Available Amount // after it
	CrossedAt time.Time
	Present   Amount // what is available now
}

func (b lowBalance) message(job MailLow, to access.Person, url string) mail.Message {
	var text strings.Builder
	name := mail.Plain(b.Name, mail.MaxName)
	fmt.Fprintf(&text, "Hello %s,\n\n", mail.Plain(to.FirstName, mail.MaxName))
	fmt.Fprintf(&text, "the credits of %s fell to %s on %s. You asked to be told below %s.\n\n",
		name, b.Available, b.CrossedAt.UTC().Format("2 January 2006 at 15:04 UTC"), b.Threshold)
	if b.Present != b.Available {
		fmt.Fprintf(&text, "Now there are %s.\n\n", b.Present)
	}
	fmt.Fprintf(&text, "Without credits, what the store pays with them stops. Buy more, or change when you are told, at\n%s\n\nStoa\n", url)
	return mail.Message{
		ID:      fmt.Sprintf("low-%s-%d-%s", job.StoreID, job.Version, job.UserID),
		To:      mail.Address{Name: strings.TrimSpace(to.FirstName + " " + to.LastName), Email: to.Email},
		Subject: "Credits run low: " + name,
		Text:    text.String(),
	}
}

// CrossingsExpiry is the rule by which falls are deleted that owners were told
// of.
func CrossingsExpiry(keep time.Duration) masterdb.Expiry {
	return masterdb.Expiry{Table: "credit_crossings", Key: []string{"store_id", "version"}, Age: "announced_at", Keep: keep}
}
