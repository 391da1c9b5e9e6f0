package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/stores"
)

type creditsCmd struct {
	Grant  creditsGrantCmd  `cmd:"" help:"Give a store credits."`
	Verify creditsVerifyCmd `cmd:"" help:"Check every rule over the whole ledger."`
}

type creditsGrantCmd struct {
	Store    string         `arg:"" help:"Its id, slug or hostname." placeholder:"STORE"`
	Amount   credits.Amount `arg:"" help:"Credits, with at most 4 decimals, such as 12.5." placeholder:"AMOUNT"`
	Reason   string         `required:"" help:"Why, for the store's owner to read in the ledger." placeholder:"TEXT"`
	Type     credits.Type   `help:"adjustment, which puts something right, or bonus, which is a present. Unless told, adjustment." enum:",adjustment,bonus" default:"" placeholder:"TYPE"`
	Bonus    bool           `help:"The same as --type=bonus."`
	Expires  Expiry         `help:"When what is left of them is gone: 2027-01-31, 2027-01-31T18:00:00Z, or after a time: 720h, 30d. Unless told, never." placeholder:"TIME"`
	Priority int            `help:"From -100 to 100: lower is spent first. Within one, what expires first goes first." default:"0"`
	Key      *string        `help:"Grants once, however often the command runs. Unless told, a new one." placeholder:"KEY"`
	JSON     bool           `help:"Print JSON."`
}

// Help is shown by 'stoa credits grant --help'.
func (creditsGrantCmd) Help() string {
	return "Adds credits to the store's account and a row, with the reason, to its ledger. What the store owes is repaid from them first. " +
		"It may run beside 'stoa serve'.\n\n" +
		"The key is printed before anything happens. If the command ends without an answer, run it again with that --key: " +
		"the credits are granted once. A script should choose a key of its own, such as the number of the case."
}

// Expiry is a point in time or a duration from now. The zero value means never.
type Expiry struct {
	At    time.Time
	After time.Duration
}

// MaxAfter is the longest duration that --expires accepts: a hundred years. A longer one is
// taken for a typing error.
const MaxAfter = 100 * 365 * 24 * time.Hour

// UnmarshalText parses the forms that the help of --expires describes. A date means its
// beginning in UTC.
func (x *Expiry) UnmarshalText(text []byte) error {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, string(text)); err == nil {
			*x = Expiry{At: at.UTC()}
			return nil
		}
	}
	after, err := time.ParseDuration(string(text))
	if days, found := strings.CutSuffix(string(text), "d"); found {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		after = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || after <= 0 || after > MaxAfter {
		return errors.New("must be a date, a time such as 2027-01-31T18:00:00Z, or at most 100 years from now such as 720h or 30d")
	}
	*x = Expiry{After: after}
	return nil
}

// From returns the point in time, or nil for never.
func (x Expiry) From(now time.Time) *time.Time {
	switch {
	case x.After > 0:
		at := now.UTC().Add(x.After).Truncate(time.Second)
		return &at
	case x.At.IsZero():
		return nil
	}
	return &x.At
}

// check returns an error for input that the ledger would not reject.
func (cmd creditsGrantCmd) check() error {
	switch {
	case strings.TrimSpace(cmd.Reason) == "":
		return errors.New("--reason must not be empty")
	case cmd.Bonus && cmd.Type == credits.TypeAdjustment:
		return errors.New("--bonus and --type=adjustment cannot be used together")
	case cmd.Key != nil && (*cmd.Key == "" || len(*cmd.Key) > maxKey):
		return fmt.Errorf("--key must have 1 to %d characters", maxKey)
	case cmd.Key != nil && cmd.Expires.After > 0:
		return errors.New("with --key, give --expires as a date or time: a repetition would otherwise ask for something else")
	}
	return nil
}

func (cmd creditsGrantCmd) kind() credits.Type {
	if cmd.Bonus || cmd.Type == credits.TypeBonus {
		return credits.TypeBonus
	}
	return credits.TypeAdjustment
}

// operatorKeys is the prefix of these grants' keys in the ledger, so that no grant uses the
// key of a payment. With the prefix a key stays within the ledger's length limit.
const (
	operatorKeys = "operator:"
	maxKey       = 200
)

// Granted is the output of the command.
type Granted struct {
	Key         string             `json:"key"`
	Replayed    bool               `json:"replayed"`
	Store       stoa.StoreID       `json:"store"`
	Slug        string             `json:"slug"`
	Transaction grantedTransaction `json:"transaction"`
	Balance     grantedBalance     `json:"balance"`
}

type grantedTransaction struct {
	ID           stoa.TransactionID `json:"id"`
	Sequence     int64              `json:"sequence"`
	Type         credits.Type       `json:"type"`
	Amount       credits.Amount     `json:"amount"`
	BalanceAfter credits.Amount     `json:"balanceAfter"`
	Description  string             `json:"description"`
	ExpiresAt    *time.Time         `json:"expiresAt"`
	CreatedAt    time.Time          `json:"createdAt"`
}

type grantedBalance struct {
	Balance   credits.Amount `json:"balance"`
	Reserved  credits.Amount `json:"reserved"`
	Available credits.Amount `json:"available"`
	Debt      credits.Amount `json:"debt"`
}

func (cmd creditsGrantCmd) Run(e *Env) error {
	if err := cmd.check(); err != nil {
		return err
	}
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	s, err := stores.Find(e.Ctx, master, cmd.Store)
	if err != nil {
		return plain(err)
	}
	if s.Status == stores.Deleted {
		return fmt.Errorf("%s is deleted: nobody could spend the credits", s.Slug)
	}
	key, expires := "", cmd.Expires.From(master.Now())
	if cmd.Key != nil {
		key = *cmd.Key
	} else {
		key = rand.Text()
		again := "--key " + key
		if cmd.Expires.After > 0 {
			again += " --expires " + expires.Format(time.RFC3339)
		}
		Printf(e.Stderr, "To repeat this grant should it end without an answer: %s\n", again)
	}
	out, err := cmd.grant(e.Ctx, e.by, master, s, key, expires)
	if err != nil {
		return grantFault(err, key)
	}
	return cmd.print(e, out)
}

func (cmd creditsGrantCmd) grant(ctx context.Context, by authz.Principal, master *masterdb.DB, s stores.Store, key string, expires *time.Time) (Granted, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ledger := credits.New(master)
	var out Granted
	err := master.Tx(ctx, func(tx *masterdb.Tx) error {
		t, err := ledger.Grant(ctx, tx, s.ID, credits.Grant{
			Type: cmd.kind(), Amount: cmd.Amount, Description: cmd.Reason, IdempotencyKey: operatorKeys + key,
			ExpiresAt: expires, Priority: cmd.Priority, By: by,
		})
		if err != nil {
			return err
		}
		b, err := ledger.ReadBalance(ctx, tx, s.ID)
		out = Granted{
			Key: key, Replayed: !t.CreatedAt.Equal(tx.Now), Store: s.ID, Slug: s.Slug,
			Transaction: grantedTransaction{ID: t.ID, Sequence: t.Sequence, Type: t.Type, Amount: t.Amount, BalanceAfter: t.BalanceAfter, Description: t.Description, ExpiresAt: expires, CreatedAt: t.CreatedAt},
			Balance:     grantedBalance{Balance: b.Balance, Reserved: b.Reserved, Available: b.Available(), Debt: b.Debt},
		}
		return err
	})
	return out, err
}

// grantFault rewrites an error of the ledger for the command line. After any other error
// the outcome is unknown.
func grantFault(err error, key string) error {
	var known *stoa.Error
	switch {
	case !errors.As(err, &known):
		return fmt.Errorf("%w\nWhether the credits were granted is not known: run this again with --key %s", err, key)
	case known.Code == stoa.IdempotencyConflict:
		return fmt.Errorf("--key %s has granted something else to this store: other credits, another type, expiry or priority. Nothing was granted", key)
	case len(known.Fields) == 0:
		return errors.New(known.Message)
	}
	flags := map[string]string{
		"amount": "AMOUNT", "description": "--reason", "expiresAt": "--expires", "priority": "--priority", "idempotencyKey": "--key",
	}
	var faults []error
	for _, f := range known.Fields {
		faults = append(faults, fmt.Errorf("%s %s", flags[f.Field], f.Message))
	}
	return errors.Join(faults...)
}

func (cmd creditsGrantCmd) print(e *Env, out Granted) error {
	if cmd.JSON {
		return json.NewEncoder(e.Stdout).Encode(out)
	}
	t, b := out.Transaction, out.Balance
	until := ""
	if t.ExpiresAt != nil {
		until = ", until " + t.ExpiresAt.Format(time.RFC3339)
	}
	did := "Granted"
	if out.Replayed {
		did = fmt.Sprintf("Nothing was changed: at %s this key granted", t.CreatedAt.Format(time.RFC3339))
	}
	Printf(e.Stdout, "%s %s credits (%s%s) to %s, transaction %d.\nNow %s are available of a balance of %s%s. Key: %s\n",
		did, t.Amount, t.Type, until, out.Slug, t.Sequence, b.Available, b.Balance,
		note(b.Debt > 0, fmt.Sprintf(", and %s are owed", b.Debt)), out.Key)
	return nil
}
