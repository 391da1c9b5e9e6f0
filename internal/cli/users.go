package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/masterdb"
)

type usersCmd struct {
	List    usersListCmd    `cmd:"" help:"List the users, newest first."`
	Verify  usersVerifyCmd  `cmd:"" help:"Take a user's e-mail address as proven."`
	Promote usersPromoteCmd `cmd:"" help:"Make a user an operator of the platform."`
	Demote  usersDemoteCmd  `cmd:"" help:"Make an operator an ordinary user again."`
	Quota   usersQuotaCmd   `cmd:"" help:"Set how many stores and managed databases one user may have."`
}

type usersListCmd struct {
	listFlags
	Operators bool `help:"Only operators of the platform."`
}

type oneUser struct {
	User string `arg:"" help:"Their e-mail address or id." placeholder:"USER"`
	JSON bool   `help:"Print the user as JSON."`
}

type usersVerifyCmd struct{ oneUser }

// Help is shown by 'stoa users verify --help'.
func (usersVerifyCmd) Help() string {
	return "For a platform without mail, or a user whom no mail reaches. Until their address is proven users have no second factor, API keys and invitations. " +
		"Be sure that whoever registered the address is its owner: all that the account holds stays."
}

type usersPromoteCmd struct{ oneUser }

// Help is shown by 'stoa users promote --help'.
func (usersPromoteCmd) Help() string {
	return "An operator sees and manages every store through the API, but for spending and buying its credits and making its keys; all of it is " +
		"written to the store's audit log. With a reason they can act as a user for 15 minutes. It holds at once and may be repeated. " +
		"Their address must be proven: anybody can register one that is not theirs."
}

type usersDemoteCmd struct{ oneUser }

// Help is shown by 'stoa users demote --help'.
func (usersDemoteCmd) Help() string {
	return "It holds at once: sessions in which they act as others end. Their own go on."
}

// userRecord is a user in the output. Its field names are those of the API.
type userRecord struct {
	ID            stoa.UserID `json:"id"`
	Email         string      `json:"email"`
	FirstName     string      `json:"firstName"`
	LastName      string      `json:"lastName"`
	Role          string      `json:"role"`
	EmailVerified bool        `json:"emailVerified"`
	CreatedAt     time.Time   `json:"createdAt"`
}

func (cmd usersListCmd) Run(e *Env) error {
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	role := ""
	if cmd.Operators {
		role = "admin"
	}
	read := func(after stoa.UserID, limit int) ([]userRecord, error) {
		users, err := accounts.ListUsers(e.Ctx, master, role, after, limit)
		records := make([]userRecord, len(users))
		for i, u := range users {
			records[i] = userRecord(u)
		}
		return records, err
	}
	return printList(e, cmd.listFlags, read, func(u userRecord) stoa.UserID { return u.ID }, printUsers)
}

func printUsers(w io.Writer, list []userRecord, first bool) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if first {
		Printf(table, "ID\tEMAIL\tNAME\tROLE\tVERIFIED\tSINCE\n")
	}
	for _, u := range list {
		Printf(table, "%s\t%s\t%s %s\t%s\t%t\t%s\n", u.ID, u.Email, u.FirstName, u.LastName, u.Role, u.EmailVerified, u.CreatedAt.UTC().Format(time.DateOnly))
	}
	return table.Flush()
}

func (cmd usersVerifyCmd) Run(e *Env) error {
	return cmd.change(e, "has a proven address", accounts.ConfirmEmail)
}

func (cmd usersPromoteCmd) Run(e *Env) error {
	return cmd.change(e, "is an operator of the platform", roleSetter("admin"))
}

func (cmd usersDemoteCmd) Run(e *Env) error {
	return cmd.change(e, "is an ordinary user", roleSetter("user"))
}

func roleSetter(role string) func(context.Context, *masterdb.DB, authz.Principal, string) (accounts.User, error) {
	return func(ctx context.Context, db *masterdb.DB, by authz.Principal, name string) (accounts.User, error) {
		return accounts.SetPlatformRole(ctx, db, by, name, role)
	}
}

func (cmd oneUser) change(e *Env, done string, change func(context.Context, *masterdb.DB, authz.Principal, string) (accounts.User, error)) error {
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	user, err := change(e.Ctx, master, e.by, cmd.User)
	switch {
	case stoa.CodeOf(err) == stoa.EmailUnverified:
		return fmt.Errorf("%w Its owner does so with the mail they got, or you with 'stoa users verify'", plain(err))
	case err != nil:
		return plain(err)
	}
	if cmd.JSON {
		return json.NewEncoder(e.Stdout).Encode(userRecord(user))
	}
	Printf(e.Stdout, "%s %s.\n", user.Email, done)
	return nil
}

type usersQuotaCmd struct {
	oneUser
	Stores           *int `help:"Stores that the user may create; 0 is no limit. Without it, the platform's quota." placeholder:"N"`
	ManagedDatabases *int `help:"Managed databases in those stores; 0 is no limit. Without it, the platform's quota." placeholder:"N"`
}

// Help is shown by 'stoa users quota --help'.
func (usersQuotaCmd) Help() string {
	return "It holds at once, whether or not the user's address is verified, and replaces both limits that were set before: " +
		"without a flag the platform's quota holds again. What the user has already stays."
}

// Validate is called by kong after it has read the flags.
func (cmd usersQuotaCmd) Validate() error {
	for _, limit := range []*int{cmd.Stores, cmd.ManagedDatabases} {
		if limit != nil && (*limit < 0 || *limit > config.MaxQuota) {
			return fmt.Errorf("a quota must be between 0, which is no limit, and %d", config.MaxQuota)
		}
	}
	return nil
}

func (cmd usersQuotaCmd) Run(e *Env) error {
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	user, err := accounts.SetQuotas(e.Ctx, master, e.by, cmd.User, accounts.UserQuotas{Stores: cmd.Stores, ManagedDatabases: cmd.ManagedDatabases})
	if err != nil {
		return plain(err)
	}
	if cmd.JSON {
		return json.NewEncoder(e.Stdout).Encode(userRecord(user))
	}
	Printf(e.Stdout, "The quotas of %s are set: stores %s, managed databases %s.\n", user.Email, quotaText(cmd.Stores), quotaText(cmd.ManagedDatabases))
	return nil
}

func quotaText(limit *int) string {
	switch {
	case limit == nil:
		return "as for everybody"
	case *limit == 0:
		return "without limit"
	}
	return strconv.Itoa(*limit)
}
