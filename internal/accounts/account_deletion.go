package accounts

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/apikeys"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/supabase/link"
)

type deletionKind struct{}

// deletionID identifies the deletion of an account.
type deletionID = stoa.ID[deletionKind]

// DeleteAccount deletes the caller's account: memberships, sessions, API keys, second
// factor, open invitations, links and connections to Supabase end at once. The row of
// the user stays without anything about the person, because stores, purchases, the
// ledger and the audit log refer to it by its id. A mail confirms the deletion to a
// verified address, which is free for another account from then on.
//
// The caller proves who they are as for RequestEmailChange. It fails with forbidden for
// an operator of the platform, who is to be demoted first, and while stores have no
// other owner (stores.EndMemberships).
func (a *Accounts) DeleteAccount(ctx context.Context, p authz.Principal, password keyring.Secret) error {
	if err := a.confirmCaller(ctx, p, password, audit.AccountDeleted); err != nil {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		// The row is locked from here on: what makes something for the user waits, and
		// then finds no account (quotas.LockUser, authz.CheckVerified, lockCaller).
		user, err := lockCaller(ctx, tx, p)
		if err != nil {
			return err
		}
		if user.IsOperator() {
			return stoa.Errorf(stoa.Forbidden, "You are an operator of the platform. Have that role taken from you first, then delete your account.")
		}
		if err := a.endMemberships(ctx, tx, p); err != nil {
			return err
		}
		if user.EmailVerified {
			if err := a.requestDeletionMail(ctx, tx, user.Email); err != nil {
				return err
			}
		}
		if err := a.endEverything(ctx, tx, p, user); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.AccountDeleted})
	})
}

// endMemberships ends the caller's memberships and records that in each store's log.
func (a *Accounts) endMemberships(ctx context.Context, tx *masterdb.Tx, p authz.Principal) error {
	ended, err := a.stores.EndMemberships(ctx, tx, p.UserID)
	if err != nil {
		return err
	}
	for _, m := range ended {
		err := audit.Record(ctx, tx, p, audit.Event{Action: audit.MemberRemoved, Store: m.StoreID,
			Details: map[string]string{"user": m.UserID.String(), "role": string(m.Role), "reason": "deleted their account"}})
		if err != nil {
			return err
		}
	}
	return nil
}

// endEverything ends what belongs to an account and removes the person's data from its
// row. The order of the locks is that of a sign-in: the user's row comes first.
func (a *Accounts) endEverything(ctx context.Context, tx *masterdb.Tx, p authz.Principal, user User) error {
	if err := apikeys.RevokeOfUser(ctx, tx, user.ID); err != nil {
		return err
	}
	if err := link.ForgetUser(ctx, tx, p); err != nil {
		return err
	}
	for _, statement := range []struct {
		sql string
		arg any
	}{
		{`UPDATE one_time_tokens SET spent_at = $2 WHERE spent_at IS NULL AND invitation_id IN (SELECT id FROM invitations WHERE invited_by = $1)`, tx.Now},
		{`UPDATE invitations SET revoked_at = $2 WHERE invited_by = $1` + openCondition, tx.Now},
		{`UPDATE users SET email = $2, first_name = '', last_name = '', email_verified = false,
			quota_stores = NULL, quota_managed_databases = NULL WHERE id = $1`, deletedEmail(user.ID)},
		{`UPDATE users SET password_hash = $2 WHERE id = $1`, a.passwords.unmatchable},
		{`UPDATE users SET deleted_at = $2, updated_at = $2 WHERE id = $1`, tx.Now},
	} {
		if _, err := tx.Exec(ctx, statement.sql, user.ID, statement.arg); err != nil {
			return err
		}
	}
	for _, table := range []string{"one_time_tokens", "email_changes", "second_factors", "recovery_codes", "passkeys", "passkey_challenges", "sessions"} {
		if _, err := tx.Exec(ctx, `DELETE FROM `+table+` WHERE user_id = $1`, user.ID); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `DELETE FROM email_requests WHERE email = $1`, user.Email)
	return err
}

// deletedEmail returns what stands for the address of a deleted account. It is no
// e-mail address: nobody can register it or sign in with it.
func deletedEmail(id stoa.UserID) string { return "deleted:" + id.String() }

// MailAccountDeleted is the job that confirms the deletion of an account.
type MailAccountDeleted struct {
	DeletionID deletionID `json:"deletionId"`
}

// Kind implements jobs.Args.
func (MailAccountDeleted) Kind() string { return "accounts.mail_account_deleted" }

// requestDeletionMail enqueues the mail that confirms a deletion. Its row holds the
// address, which the account has no more, until the mail is sent.
func (a *Accounts) requestDeletionMail(ctx context.Context, tx *masterdb.Tx, email string) error {
	id := stoa.NewID[deletionID]()
	if _, err := tx.Exec(ctx, `INSERT INTO account_deletions (id, email, created_at) VALUES ($1, $2, $3)`, id, email, tx.Now); err != nil {
		return err
	}
	return a.opts.Queue.Enqueue(ctx, tx, MailAccountDeleted{DeletionID: id})
}

func (a *Accounts) mailAccountDeleted(ctx context.Context, job MailAccountDeleted) error {
	var row struct {
		Email     string
		CreatedAt time.Time
	}
	err := a.db.Get(ctx, &row, `SELECT email, created_at FROM account_deletions WHERE id = $1`, job.DeletionID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil // the mail was sent
	}
	if err != nil {
		return err
	}
	err = a.send(ctx, User{Email: row.Email}, "account-deleted-"+job.DeletionID.String(), accountDeletedMail,
		a.opts.BaseURL, row.CreatedAt.UTC().Format("2 January 2006 at 15:04 UTC"))
	if err != nil {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM account_deletions WHERE id = $1`, job.DeletionID)
		return err
	})
}

var accountDeletedMail = mailTemplate{subject: "Your account is deleted", text: "your account at %s was deleted on %s, as you asked. " +
	"Your name, address, password, sessions, API keys and memberships are gone. Purchases, credits and the audit log of stores stay, without your name.\n\n" +
	"If this was not you, write to the operator of the platform at once."}
