package accounts

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/mail"
	"github.com/stoahq/stoa/masterdb"
)

type requestKind struct{}

// requestID names a wish for a mail.
type requestID = stoa.ID[requestKind]

// MailTimeout bounds one attempt at a mail.
const MailTimeout = time.Minute

// mailPause is how long after a mail an account gets no other one of its
// purpose: nobody's mailbox can be filled from here.
const mailPause = time.Minute

// MailAccount is the job that sends the link which a request asked for. Like
// the other mails, it is rendered when it is sent: a token is made then, and is
// in no job and, but for its hash, in no table.
type MailAccount struct {
	RequestID requestID `json:"requestId"`
}

// Kind implements jobs.Args.
func (MailAccount) Kind() string { return "accounts.mail_account" }

// MailSignIn is the job that tells a user of a sign-in from a place that is new.
type MailSignIn struct {
	SessionID stoa.SessionID `json:"sessionId"`
}

// Kind implements jobs.Args.
func (MailSignIn) Kind() string { return "accounts.mail_sign_in" }

// MailInvitation is the job that sends an invitation.
type MailInvitation struct {
	InvitationID stoa.InvitationID `json:"invitationId"`
}

// Kind implements jobs.Args.
func (MailInvitation) Kind() string { return "accounts.mail_invitation" }

// HandleMails registers the jobs.
func (a *Accounts) HandleMails(q *jobs.Queue) {
	jobs.Handle(q, MailTimeout, a.mailAccount)
	jobs.Handle(q, MailTimeout, a.mailSignIn)
	jobs.Handle(q, MailTimeout, a.mailInvitation)
}

// requestMail asks for a mail to an address, in the same way whether or not it
// has an account: the job finds out.
func (a *Accounts) requestMail(ctx context.Context, tx *masterdb.Tx, p purpose, email string) error {
	id := stoa.NewID[requestID]()
	_, err := tx.Exec(ctx, `INSERT INTO email_requests (id, purpose, email, created_at) VALUES ($1, $2, $3, $4)`, id, string(p), email, tx.Now)
	if err != nil {
		return err
	}
	return a.opts.Queue.Enqueue(ctx, tx, MailAccount{RequestID: id})
}

func (a *Accounts) mailAccount(ctx context.Context, job MailAccount) error {
	var request struct {
		Purpose purpose
		User
	}
	err := a.db.Get(ctx, &request, `
		SELECT r.purpose, u.id, u.email, u.first_name, u.last_name, u.role, u.email_verified, u.created_at
		FROM email_requests r JOIN users u ON u.email = r.email WHERE r.id = $1`, job.RequestID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil // nobody has that address
	}
	if err != nil || request.Purpose == verifyEmail && request.EmailVerified {
		return err
	}
	token, err := a.tokenFor(ctx, job.RequestID, request.Purpose, request.ID)
	if err != nil || token.IsZero() {
		return err
	}
	m := verifyMail
	if request.Purpose == resetPassword {
		m = resetMail
	}
	return a.send(ctx, request.User, string(request.Purpose)+"-"+job.RequestID.String(), m, a.link(request.Purpose, token))
}

// tokenFor makes the request's token; the zero one when the account has had
// such a mail a moment ago.
func (a *Accounts) tokenFor(ctx context.Context, id requestID, p purpose, user stoa.UserID) (token keyring.Secret, err error) {
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		token = keyring.Secret{}
		var recent int
		err := tx.Get(ctx, &recent, `
			SELECT count(*) FROM one_time_tokens WHERE user_id = $1 AND purpose = $2 AND created_at > $3 AND request_id <> $4`,
			user, string(p), tx.Now.Add(-mailPause), id)
		if err != nil || recent > 0 {
			return err
		}
		token, err = issueToken(ctx, tx, p, oneTime{UserID: &user, RequestID: &id, ExpiresAt: tx.Now.Add(lifetimes[p])})
		return err
	})
	return token, err
}

func (a *Accounts) mailSignIn(ctx context.Context, job MailSignIn) error {
	var s struct {
		User
		Address   string
		UserAgent string
		SessionAt time.Time
	}
	err := a.db.Get(ctx, &s, `
		SELECT u.id, u.email, u.first_name, u.last_name, u.role, u.email_verified, u.created_at,
			s.address, s.user_agent, s.created_at AS session_at
		FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.id = $1`, job.SessionID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil // it is gone already
	}
	if err != nil {
		return err
	}
	return a.send(ctx, s.User, "signin-"+job.SessionID.String(), signInMail,
		s.SessionAt.UTC().Format("2 January 2006 at 15:04 UTC"), s.Address, s.UserAgent, a.opts.BaseURL)
}

func (a *Accounts) mailInvitation(ctx context.Context, job MailInvitation) error {
	var to struct {
		Email     string
		Role      string
		Store     string
		FirstName string // of who invites
		LastName  string
		SentAt    time.Time
		ExpiresAt time.Time
	}
	err := a.db.Get(ctx, &to, `
		SELECT i.email, i.role, s.name AS store, u.first_name, u.last_name, i.sent_at, i.expires_at
		FROM invitations i JOIN stores s ON s.id = i.store_id JOIN users u ON u.id = i.invited_by
		WHERE i.id = $1 AND i.accepted_at IS NULL AND i.revoked_at IS NULL AND s.status <> 'deleted'`, job.InvitationID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil // it is none any more
	}
	if err != nil {
		return err
	}
	var token keyring.Secret
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		token, err = issueToken(ctx, tx, invitation, oneTime{InvitationID: &job.InvitationID, ExpiresAt: to.ExpiresAt})
		return err
	})
	if err != nil {
		return err
	}
	id := fmt.Sprintf("invitation-%s-%d", job.InvitationID, to.SentAt.Unix())
	return a.send(ctx, User{Email: to.Email}, id, invitationMail,
		to.FirstName+" "+to.LastName, to.Role, to.Store, to.ExpiresAt.UTC().Format("2 January 2006"), a.link(invitation, token))
}

// link leads to the page where a token is used.
func (a *Accounts) link(p purpose, token keyring.Secret) string {
	page := map[purpose]string{verifyEmail: "/verify-email", resetPassword: "/reset-password", invitation: "/accept-invitation"}[p]
	return a.opts.BaseURL + page + "?token=" + url.QueryEscape(token.Reveal())
}

// letter is a mail to be: a subject and a text with room for what it is about.
type letter struct{ subject, text string }

var (
	verifyMail = letter{"Confirm your e-mail address",
		"please confirm that this is your address:\n\n%s\n\nThe link is good for two days and for one use. If you have opened no account, do nothing."}
	resetMail = letter{"Set a new password",
		"somebody, probably you, has asked for a new password. Set it here:\n\n%s\n\n" +
			"The link is good for an hour and for one use. If it was not you, do nothing: your password stays as it is."}
	signInMail = letter{"New sign-in to your account",
		"somebody has signed in to your account on %s, from %s (%s), where you have not been before.\n\n" +
			"If it was not you, change your password at once, which ends all other sessions:\n\n%s"}
	invitationMail = letter{"Invitation to a store",
		"%s invites you to be %s of the store %s.\n\nUntil %s you can accept, signed in with this address:\n\n%s\n\nIf you do not know the store, do nothing."}
)

// send renders the mail and sends it. What the server refuses for good is not
// tried again.
func (a *Accounts) send(ctx context.Context, to User, id string, l letter, about ...any) error {
	hello := "Hello,"
	if to.FirstName != "" {
		hello = "Hello " + to.FirstName + ","
	}
	err := a.opts.Mail.Send(ctx, mail.Message{
		ID: strings.ReplaceAll(id, "_", "-"), To: mail.Address{Name: strings.TrimSpace(to.FirstName + " " + to.LastName), Email: to.Email},
		Subject: l.subject, Text: hello + "\n\n" + fmt.Sprintf(l.text, about...) + "\n\nStoa\n",
	})
	if mail.IsFinal(err) {
		return jobs.Cancel(err)
	}
	return err
}
