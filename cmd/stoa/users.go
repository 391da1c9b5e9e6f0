package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/accounts"
)

type usersCmd struct {
	List    usersListCmd    `cmd:"" help:"List the users, newest first."`
	Promote usersPromoteCmd `cmd:"" help:"Make a user an operator of the platform."`
	Demote  usersDemoteCmd  `cmd:"" help:"Make an operator an ordinary user again."`
}

type usersListCmd struct {
	Operators bool `help:"Only operators of the platform."`
	JSON      bool `help:"Print JSON."`
}

type oneUser struct {
	User string `arg:"" help:"Their e-mail address or id." placeholder:"USER"`
	JSON bool   `help:"Print the user as JSON."`
}

type usersPromoteCmd struct{ oneUser }

// Help is shown by 'stoa users promote --help'.
func (usersPromoteCmd) Help() string {
	return "An operator sees and manages every store through the API, but for spending and buying its credits and making its keys; all of it is " +
		"written to the store's audit log. With a reason they can act as a user for 15 minutes. It holds at once and may be repeated."
}

type usersDemoteCmd struct{ oneUser }

// Help is shown by 'stoa users demote --help'.
func (usersDemoteCmd) Help() string {
	return "It holds at once: sessions in which they act as others end. Their own go on."
}

// userRecord is a user as printed; its names are the API's.
type userRecord struct {
	ID            stoa.UserID `json:"id"`
	Email         string      `json:"email"`
	FirstName     string      `json:"firstName"`
	LastName      string      `json:"lastName"`
	Role          string      `json:"role"`
	EmailVerified bool        `json:"emailVerified"`
	CreatedAt     time.Time   `json:"createdAt"`
}

func (cmd usersListCmd) Run(e *env) error {
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	role := ""
	if cmd.Operators {
		role = "admin"
	}
	records := []userRecord{}
	const page = 500
	for before := (stoa.UserID{}); ; {
		users, err := accounts.ListUsers(e.ctx, master, role, before, page)
		if err != nil {
			return err
		}
		for _, u := range users {
			records = append(records, userRecord(u))
		}
		if len(users) < page {
			break
		}
		before = users[page-1].ID
	}
	if cmd.JSON {
		return json.NewEncoder(e.stdout).Encode(records)
	}
	table := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tEMAIL\tNAME\tROLE\tVERIFIED\tSINCE")
	for _, u := range records {
		fmt.Fprintf(table, "%s\t%s\t%s %s\t%s\t%t\t%s\n", u.ID, u.Email, u.FirstName, u.LastName, u.Role, u.EmailVerified, u.CreatedAt.UTC().Format(time.DateOnly))
	}
	return table.Flush()
}

func (cmd usersPromoteCmd) Run(e *env) error {
	return cmd.set(e, "admin", "is an operator of the platform")
}
func (cmd usersDemoteCmd) Run(e *env) error { return cmd.set(e, "user", "is an ordinary user") }

func (cmd oneUser) set(e *env, role, done string) error {
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	user, err := accounts.SetPlatformRole(e.ctx, master, e.by, cmd.User, role)
	if err != nil {
		return plain(err)
	}
	if cmd.JSON {
		return json.NewEncoder(e.stdout).Encode(userRecord(user))
	}
	_, err = fmt.Fprintf(e.stdout, "%s %s.\n", user.Email, done)
	return err
}
