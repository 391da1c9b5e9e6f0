package webhooks

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
)

// MailDisabled is the job that tells one person that the platform has disabled an endpoint.
type MailDisabled struct {
	EndpointID stoa.WebhookID `json:"endpointId"`
	UserID     stoa.UserID    `json:"userId"`
	Version    int64          `json:"version"` // of the endpoint when it was disabled
}

// Kind implements jobs.Args.
func (MailDisabled) Kind() string { return "webhooks.mail_disabled" }

// disabledMails limits the mails to one person about one endpoint, which can be enabled, and
// fail, without limit.
var disabledMails = mail.Allowance{Name: "webhook-disabled", Burst: 5, Every: 24 * time.Hour}

// enqueueNotices enqueues the mails about an endpoint that was disabled: to the owners of the
// store, and for an endpoint of the platform to the operator who made it.
func (s *Service) enqueueNotices(ctx context.Context, tx *masterdb.Tx, id stoa.WebhookID, store *stoa.StoreID) error {
	var of struct {
		CreatedBy stoa.UserID
		Version   int64
	}
	if err := tx.Get(ctx, &of, `SELECT created_by, version FROM webhook_endpoints WHERE id = $1`, id); err != nil {
		return err
	}
	to := []stoa.UserID{of.CreatedBy}
	if store != nil {
		owners, err := authz.Owners(ctx, tx, *store)
		if err != nil {
			return err
		}
		to = nil
		for _, owner := range owners {
			to = append(to, owner.UserID)
		}
	}
	for _, user := range to {
		wait, err := disabledMails.Take(ctx, tx, id.String()+" "+user.String())
		if err != nil {
			return err
		}
		if wait > 0 {
			continue
		}
		if err := s.queue.Enqueue(ctx, tx, MailDisabled{EndpointID: id, UserID: user, Version: of.Version}); err != nil {
			return err
		}
	}
	return nil
}

// MailDisabled runs the job. Nobody is told of an endpoint that is enabled again meanwhile.
func (s *Service) MailDisabled(ctx context.Context, job MailDisabled) error {
	var of struct {
		StoreID        *stoa.StoreID
		URL            string
		DisabledReason string
		Name           *string // of the store
		authz.Person
	}
	err := s.db.Get(ctx, &of, `SELECT w.store_id, w.url, w.disabled_reason, s.name, u.id AS user_id, u.email, u.first_name, u.last_name
		FROM webhook_endpoints w JOIN users u ON u.id = $2 LEFT JOIN stores s ON s.id = w.store_id
		WHERE w.id = $1 AND w.version = $3 AND w.state = 'disabled' AND u.deleted_at IS NULL`, job.EndpointID, job.UserID, job.Version)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	name, page := "the platform", s.opts.URL+"/console/platform/webhooks"
	if of.Name != nil {
		name, page = mail.Plain(*of.Name, mail.MaxName), s.opts.URL+"/console/stores/"+of.StoreID.String()+"/webhooks"
	}
	err = s.opts.Mail.Send(ctx, disabledMessage(job, of.Person, name, hostOf(of.URL), of.DisabledReason, page))
	if mail.IsFinal(err) {
		return jobs.Cancel(err)
	}
	return err
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

func disabledMessage(job MailDisabled, to authz.Person, store, host, reason, page string) mail.Message {
	var text strings.Builder
	fmt.Fprintf(&text, "Hello %s,\n\n", mail.Plain(to.FirstName, mail.MaxName))
	why := "has accepted nothing for three days"
	if reason == Gone {
		why = "answered that it is gone (410)"
	}
	fmt.Fprintf(&text, "the webhook endpoint of %s at %s %s. It is disabled: it receives no more events.\n\n", store, mail.Plain(host, mail.MaxName), why)
	fmt.Fprintf(&text, "See what it answered, and enable it, at\n%s\nIt then receives what it has missed of the last 30 days, unless you choose otherwise.\n\nStoa\n", page)
	return mail.Message{
		ID:      fmt.Sprintf("webhook-%s-%d-%s", job.EndpointID, job.Version, job.UserID),
		To:      mail.Address{Name: strings.TrimSpace(to.FirstName + " " + to.LastName), Email: to.Email},
		Subject: "A webhook endpoint is disabled: " + store,
		Text:    text.String(),
	}
}
