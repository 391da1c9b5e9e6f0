package feed

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
)

// LowBalanceNotifier sends mails to owners whose credits are low. A trigger in the master
// database records each fall below the threshold in credit_crossings. One job per store
// then enqueues one job per owner, which sends the mail.
type LowBalanceNotifier struct {
	db    *masterdb.DB
	queue *jobs.Queue
	mail  *mail.Sender
	url   string // of the platform
}

// NewLowBalanceNotifier returns a notifier that follows f. The caller registers
// Announce and Mail with the queue.
func NewLowBalanceNotifier(db *masterdb.DB, f *Feed, queue *jobs.Queue, sender *mail.Sender, platformURL string) *LowBalanceNotifier {
	f.Follow(Follower{
		Pending: `WHERE EXISTS (SELECT 1 FROM credit_crossings c WHERE c.store_id = b.store_id AND c.announced_at IS NULL)`,
		Job:     func(store stoa.StoreID) jobs.Args { return AnnounceLowBalance{StoreID: store} },
	})
	return &LowBalanceNotifier{db: db, queue: queue, mail: sender, url: platformURL}
}

// AnnounceLowBalance is the job that enqueues the mails to the store's owners.
type AnnounceLowBalance struct {
	StoreID stoa.StoreID `json:"storeId"`
}

// Kind implements jobs.Args.
func (AnnounceLowBalance) Kind() string { return "credits.announce_low" }

// Announce runs AnnounceLowBalance. Each fall is announced once, also when
// several processes run the job.
func (n *LowBalanceNotifier) Announce(ctx context.Context, job AnnounceLowBalance) error {
	return n.db.Tx(ctx, func(tx *masterdb.Tx) error {
		var falls []struct {
			Version              int64
			Threshold, Available credits.Amount
		}
		err := tx.Select(ctx, &falls, `
			UPDATE credit_crossings SET announced_at = $2 WHERE store_id = $1 AND announced_at IS NULL RETURNING version, threshold, available`, job.StoreID, tx.Now)
		if err != nil {
			return err
		}
		owners, err := authz.Owners(ctx, tx, job.StoreID)
		if err != nil {
			return err
		}
		for _, fall := range falls {
			data := map[string]string{"threshold": fall.Threshold.String(), "available": fall.Available.String()}
			if err := events.Record(ctx, tx, events.CreditsLow, job.StoreID, stoa.UserID{}, data); err != nil {
				return err
			}
			for _, owner := range owners {
				if err := n.enqueue(ctx, tx, MailLowBalance{StoreID: job.StoreID, Version: fall.Version, UserID: owner.UserID}); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// lowBalanceMails limits the mails to one owner about one store, since its members can
// make its credits fall and rise without limit.
var lowBalanceMails = mail.Allowance{Name: "low-balance", Burst: 10, Every: time.Hour}

func (n *LowBalanceNotifier) enqueue(ctx context.Context, tx *masterdb.Tx, job MailLowBalance) error {
	wait, err := lowBalanceMails.Take(ctx, tx, job.StoreID.String()+" "+job.UserID.String())
	if err != nil || wait > 0 {
		return err
	}
	return n.queue.Enqueue(ctx, tx, job)
}

// MailLowBalance is the job that mails one owner about one fall.
type MailLowBalance struct {
	StoreID stoa.StoreID `json:"storeId"`
	Version int64        `json:"version"` // of the balance that fell
	UserID  stoa.UserID  `json:"userId"`
}

// Kind implements jobs.Args.
func (MailLowBalance) Kind() string { return "credits.mail_low" }

// Mail runs MailLowBalance. A user who is no longer an owner gets no mail.
func (n *LowBalanceNotifier) Mail(ctx context.Context, job MailLowBalance) error {
	owner, err := authz.OwnerByID(ctx, n.db, job.StoreID, job.UserID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var low crossing
	err = n.db.Get(ctx, &low, `
		SELECT s.name, c.threshold, c.available, c.crossed_at, b.balance - b.reserved AS present
		FROM credit_crossings c JOIN stores s ON s.id = c.store_id JOIN credit_balances b ON b.store_id = c.store_id
		WHERE c.store_id = $1 AND c.version = $2`, job.StoreID, job.Version)
	if err != nil {
		return err
	}
	err = n.mail.Send(ctx, low.message(job, owner, n.url))
	if mail.IsFinal(err) {
		return jobs.Cancel(err)
	}
	return err
}

// crossing is one fall below the threshold.
type crossing struct {
	Name      string // of the store
	Threshold credits.Amount
	Available credits.Amount // after it
	CrossedAt time.Time
	Present   credits.Amount // what is available now
}

func (c crossing) message(job MailLowBalance, to authz.Person, url string) mail.Message {
	var text strings.Builder
	name := mail.Plain(c.Name, mail.MaxName)
	fmt.Fprintf(&text, "Hello %s,\n\n", mail.Plain(to.FirstName, mail.MaxName))
	fmt.Fprintf(&text, "the credits of %s fell to %s on %s. You asked to be told below %s.\n\n",
		name, c.Available, c.CrossedAt.UTC().Format("2 January 2006 at 15:04 UTC"), c.Threshold)
	if c.Present != c.Available {
		fmt.Fprintf(&text, "Now there are %s.\n\n", c.Present)
	}
	fmt.Fprintf(&text, "Without credits, what the store pays with them stops. Buy more, or change when you are told, at\n%s\n\nStoa\n", url)
	return mail.Message{
		ID:      fmt.Sprintf("low-%s-%d-%s", job.StoreID, job.Version, job.UserID),
		To:      mail.Address{Name: strings.TrimSpace(to.FirstName + " " + to.LastName), Email: to.Email},
		Subject: "Credits run low: " + name,
		Text:    text.String(),
	}
}

// LowBalanceExpiry returns the rule by which announced falls are deleted.
func LowBalanceExpiry(keep time.Duration) masterdb.Expiry {
	return masterdb.Expiry{Table: "credit_crossings", Key: []string{"store_id", "version"}, Age: "announced_at", Keep: keep}
}
