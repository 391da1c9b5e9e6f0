package accounts

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
)

type requestKind struct{}

// requestID identifies a request for a mail.
type requestID = stoa.ID[requestKind]

// MailTimeout limits one attempt to send a mail.
const MailTimeout = time.Minute

// mailPause is the minimum time between two mails of one purpose to an account.
const mailPause = time.Minute

// MailAccount is the job that sends the link of a request. Like the other mails,
// it is rendered when it is sent: the token is issued then, so that no job
// contains it and only its hash is stored.
type MailAccount struct {
	RequestID requestID `json:"requestId"`
}

// Kind implements jobs.Args.
func (MailAccount) Kind() string { return "accounts.mail_account" }

// MailSignIn is the job that notifies a user of a sign-in from an unknown device.
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

// The limits of mails to one address.
var (
	// After a burst of five, one link is sent per lifetime of a link, so that
	// flooding a mailbox does not keep its owner from using the last link.
	requestLimits = map[purpose]mail.Allowance{
		verifyEmail:   {Name: "verify-email", Burst: 5, Every: 6 * time.Hour},
		resetPassword: {Name: "reset-password", Burst: 5, Every: lifetimes[resetPassword]},
	}
	signInNotices = mail.Allowance{Name: "sign-in-notice", Burst: 10, Every: 2 * time.Hour}
)

// HandleMails registers the workers of the mail jobs.
func (a *Accounts) HandleMails(q *jobs.Queue) {
	jobs.Handle(q, MailTimeout, a.mailAccount)
	jobs.Handle(q, MailTimeout, a.mailSignIn)
	jobs.Handle(q, MailTimeout, a.mailInvitation)
	jobs.Handle(q, MailTimeout, a.mailOldAddress)
	jobs.Handle(q, MailTimeout, a.mailNewAddress)
	jobs.Handle(q, MailTimeout, a.mailEmailChanged)
	jobs.Handle(q, MailTimeout, a.mailAccountDeleted)
	jobs.Handle(q, MailTimeout, a.mailSuspension)
}

// requestMail enqueues a mail to an address, in the same way whether or not the
// address has an account: the job reads that.
func (a *Accounts) requestMail(ctx context.Context, tx *masterdb.Tx, p purpose, email string) error {
	id := stoa.NewID[requestID]()
	err := tx.ExecLater(ctx, `INSERT INTO email_requests (id, purpose, email, created_at) VALUES ($1, $2, $3, $4)`, id, string(p), email, tx.Now)
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
		return nil // no account has that address
	}
	if err != nil || request.Purpose == verifyEmail && request.EmailVerified {
		return err
	}
	token, err := a.tokenFor(ctx, job.RequestID, request.Purpose, request.User)
	if err != nil || token.IsZero() {
		return err
	}
	id, link := string(request.Purpose)+"-"+job.RequestID.String(), a.link(request.Purpose, token)
	switch {
	case request.EmailVerified: // a new password
		return a.send(ctx, request.User, id, resetMail, link)
	case request.Purpose == resetPassword:
		return a.send(ctx, request.User, id, takeOverMail, link)
	}
	return a.send(ctx, request.User, id, verifyMail, a.opts.BaseURL, link, a.opts.BaseURL+"/forgot")
}

// tokenFor issues the request's token. It returns the zero Secret when the account
// had such a mail within the last minute, or many.
func (a *Accounts) tokenFor(ctx context.Context, id requestID, p purpose, user User) (token keyring.Secret, err error) {
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		token = keyring.Secret{}
		var found struct{ Recent, Again int }
		err := tx.Get(ctx, &found, `
			SELECT count(CASE WHEN created_at > $3 AND request_id <> $4 THEN 1 END) AS recent,
				count(CASE WHEN request_id = $4 THEN 1 END) AS again
			FROM one_time_tokens WHERE user_id = $1 AND purpose = $2`, user.ID, string(p), tx.Now.Add(-mailPause), id)
		if err != nil || found.Recent > 0 {
			return err
		}
		if found.Again == 0 { // an earlier attempt at the same mail has been counted
			if wait, err := requestLimits[p].Take(ctx, tx, user.Email); err != nil || wait > 0 {
				return err
			}
		}
		token, err = issueToken(ctx, tx, p, oneTime{UserID: &user.ID, RequestID: &id, ExpiresAt: tx.Now.Add(lifetimes[p])})
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
		FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.id = $1 AND u.email_verified`, job.SessionID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil // the session is deleted, or the address is not verified
	}
	if err != nil {
		return err
	}
	return a.send(ctx, s.User, "signin-"+job.SessionID.String(), signInMail,
		s.SessionAt.UTC().Format("2 January 2006 at 15:04 UTC"), mail.Plain(s.Address, maxAddress), mail.Plain(s.UserAgent, maxUserAgent), a.opts.BaseURL)
}

func (a *Accounts) mailInvitation(ctx context.Context, job MailInvitation) error {
	var to struct {
		Email     string
		Role      string
		Store     string
		Sender    string // the address of the inviter
		FirstName string // of the inviter
		LastName  string
		SentAt    time.Time
		ExpiresAt time.Time
	}
	err := a.db.Get(ctx, &to, `
		SELECT i.email, i.role, s.name AS store, u.email AS sender, u.first_name, u.last_name, i.sent_at, i.expires_at
		FROM invitations i JOIN stores s ON s.id = i.store_id JOIN users u ON u.id = i.invited_by
		WHERE i.id = $1 AND i.accepted_at IS NULL AND i.revoked_at IS NULL AND s.status <> 'deleted' AND u.email_verified AND u.suspended_at IS NULL`, job.InvitationID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil // the invitation is not open any more
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
	return a.send(ctx, User{Email: to.Email}, id, invitationMail, mail.Plain(to.FirstName+" "+to.LastName, mail.MaxName), to.Sender,
		to.Role, mail.Plain(to.Store, mail.MaxName), a.opts.BaseURL, to.ExpiresAt.UTC().Format("2 January 2006"), a.link(invitation, token))
}

// link returns the URL of the page where a token is used.
func (a *Accounts) link(p purpose, token keyring.Secret) string {
	page := map[purpose]string{verifyEmail: "/verify", resetPassword: "/reset", invitation: "/invitations/accept",
		changeEmail: "/account/email/confirm"}[p]
	return a.opts.BaseURL + page + "?token=" + url.QueryEscape(token.Reveal())
}

// mailTemplate is the subject and the text of a mail, with format verbs for its values.
type mailTemplate struct{ subject, text string }

var (
	verifyMail = mailTemplate{subject: "Confirm your e-mail address", text: "somebody, probably you, has opened an account at %s with this address. Please confirm that it is yours, with the password you chose:\n\n%s\n\n" +
		"The link is good for two days and for one use.\n\n" +
		"If you have opened no account, do not confirm. Nothing that lasts can be done with the account in your name until you do. " +
		"You can take it over by setting a password of your own, which ends what others made in it:\n\n%s"}
	resetMail = mailTemplate{subject: "Set a new password", text: "somebody, probably you, has asked for a new password. Set it here:\n\n%s\n\n" +
		"The link is good for an hour and for one use. If it was not you, do nothing: your password stays as it is."}
	// takeOverMail is sent to an address that is not verified.
	takeOverMail = mailTemplate{subject: "Set a new password", text: "somebody, probably you, has asked for a new password. Set it here:\n\n%s\n\n" +
		"The link is good for an hour and for one use. If it was not you, do nothing: nothing changes.\n\n" +
		"This address has not been confirmed before, so the account may have been opened by somebody else. A new password makes it yours: " +
		"its stores stay, and all else that was made in it ends: sessions, second factors, API keys, invitations and other members. " +
		"If you have opened it and know its password, confirm the address instead, and nothing ends."}
	signInMail = mailTemplate{subject: "New sign-in to your account", text: "somebody has signed in to your account on %s, from %s (%s), where you have not been before.\n\n" +
		"If it was not you, change your password at once, which ends all other sessions:\n\n%s"}
	invitationMail = mailTemplate{subject: "Invitation to a store", text: "%s (%s) invites you to be %s of the store \"%s\" at %s. The names are as they wrote them; only their address is confirmed.\n\n" +
		"If you know them, accept until %s, signed in with this address:\n\n%s\n\nIf you do not, do nothing: nothing happens without you."}
)

// send renders and sends the mail. A permanent failure cancels the job.
func (a *Accounts) send(ctx context.Context, to User, id string, l mailTemplate, about ...any) error {
	if !to.EmailVerified {
		to.FirstName, to.LastName = "", "" // they may have been chosen by somebody else
	}
	hello := "Hello,"
	if to.FirstName != "" {
		hello = "Hello " + mail.Plain(to.FirstName, mail.MaxName) + ","
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
