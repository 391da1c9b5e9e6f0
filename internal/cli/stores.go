package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

type storesCmd struct {
	List storesListCmd `cmd:"" help:"List every store, newest first."`
	Show storesShowCmd `cmd:"" help:"Show one store."`

	Suspend       storesSuspendCmd       `cmd:"" help:"Close a store to its shoppers, until you resume it."`
	Resume        storesResumeCmd        `cmd:"" help:"Open a suspended store again."`
	Delete        StoresDeleteCmd        `cmd:"" help:"Close a store and delete it after the grace period."`
	Restore       storesRestoreCmd       `cmd:"" help:"Take a deletion back within the grace period."`
	DSN           storesDSNCmd           `cmd:"" name:"dsn" help:"Print the connection string of a store's managed database."`
	Move          storesMoveCmd          `cmd:"" help:"Move a store to another database while it is in use."`
	ResetPassword storesResetPasswordCmd `cmd:"" help:"Give a store's managed database a new password."`

	Hostnames storesHostnamesCmd `cmd:"" help:"Show a store's hostnames and what proves them."`

	Import storesImportCmd `cmd:"" help:"Make the stores and the owners of a file, and their databases."`
}

type storesListCmd struct {
	listFlags
	Status string `help:"Only stores in this state." enum:",pending_database,provisioning,active,suspended,deleting,deleted" default:"" placeholder:"STATUS"`
}

// Help is shown by 'stoa stores list --help'.
func (storesListCmd) Help() string {
	return "Reads the master database and nothing else: health is what was found when a store's database was last used or tested. " +
		"It may run beside 'stoa serve'."
}

type storesShowCmd struct {
	Store string `arg:"" help:"Its id, slug or hostname." placeholder:"STORE"`
	JSON  bool   `help:"Print JSON."`
}

// Help is shown by 'stoa stores show --help'.
func (storesShowCmd) Help() string {
	return "STORE is the store's id, its slug or one of its hostnames. " +
		"Shows what the master database knows of it, never a secret. The exit status is 1 when there is no such store."
}

func (cmd storesListCmd) Run(e *Env) error {
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	read := func(after stoa.StoreID, limit int) ([]StoreRecord, error) {
		page, err := stores.ListAll(e.Ctx, master, stores.Status(cmd.Status), after, limit)
		records := make([]StoreRecord, len(page))
		for i, s := range page {
			records[i] = newStoreRecord(s)
		}
		return records, err
	}
	return printList(e, cmd.listFlags, read, func(s StoreRecord) stoa.StoreID { return s.ID }, printStores)
}

func (cmd storesShowCmd) Run(e *Env) error {
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	s, err := stores.Find(e.Ctx, master, cmd.Store)
	if err != nil {
		return err
	}
	if cmd.JSON {
		return json.NewEncoder(e.Stdout).Encode(newStoreRecord(s))
	}
	return printStore(e.Stdout, newStoreRecord(s))
}

// StoreRecord is a store in the output. Its field names are those of the API.
type StoreRecord struct {
	ID        stoa.StoreID    `json:"id"`
	Name      string          `json:"name"`
	Slug      string          `json:"slug"`
	Status    stores.Status   `json:"status"`
	Hostnames []storeHostname `json:"hostnames"`
	Database  *storeDatabase  `json:"database"`
	Balance   *credits.Amount `json:"balance"`
	Credits   *storeCredits   `json:"credits"`
	CreatedAt time.Time       `json:"createdAt"`
	UpdatedAt time.Time       `json:"updatedAt"`

	DeleteAfter *time.Time `json:"deleteAfter"`
	Held        bool       `json:"held"`
}

type storeCredits struct {
	Balance   credits.Amount `json:"balance"`
	Reserved  credits.Amount `json:"reserved"`
	Available credits.Amount `json:"available"`
	Debt      credits.Amount `json:"debt"`
}

type storeHostname struct {
	Hostname string `json:"hostname"`
	Primary  bool   `json:"primary"`
	Custom   bool   `json:"custom"`
	Verified bool   `json:"verified"`
}

type storeDatabase struct {
	Type              credential.Kind       `json:"type"`
	Engine            credential.EngineName `json:"engine"`
	Host              string                `json:"host"`
	Port              int                   `json:"port"`
	Database          string                `json:"database"`
	Status            tenantdb.Status       `json:"status"`
	LastError         *storeFault           `json:"lastError"`
	SchemaVersion     int64                 `json:"schemaVersion"`
	OwnVersion        int64                 `json:"ownVersion"`
	CredentialVersion int64                 `json:"credentialVersion"`
	LastCheckedAt     *time.Time            `json:"lastCheckedAt"`
}

type storeFault struct {
	Code    stoa.Code `json:"code"`
	Message string    `json:"message"`
}

func newStoreRecord(s stores.Store) StoreRecord {
	r := StoreRecord{
		ID: s.ID, Name: s.Name, Slug: s.Slug, Status: s.Status, Hostnames: []storeHostname{},
		CreatedAt: s.CreatedAt, UpdatedAt: s.UpdatedAt, DeleteAfter: s.DeleteAfter, Held: s.SuspendedByOperator,
	}
	for _, h := range s.Hostnames {
		r.Hostnames = append(r.Hostnames, storeHostname{Hostname: h.Hostname, Primary: h.Primary, Custom: h.Custom, Verified: h.VerifiedAt != nil})
	}
	if s.Credits != nil {
		r.Balance = &s.Credits.Balance
		r.Credits = &storeCredits{Balance: s.Credits.Balance, Reserved: s.Credits.Reserved, Available: s.Credits.Available(), Debt: s.Credits.Debt}
	}
	if d := s.Database; d != nil {
		r.Database = &storeDatabase{
			Type: d.Kind, Engine: d.Engine, Host: d.Host, Port: d.Port, Database: d.DatabaseName, Status: d.Status,
			SchemaVersion: d.SchemaVersion, OwnVersion: d.OwnVersion, CredentialVersion: d.CredentialVersion, LastCheckedAt: d.LastCheckedAt,
		}
		if d.LastError != "" {
			r.Database.LastError = &storeFault{d.LastError, tenantdb.HealthMessage(d.LastError)}
		}
	}
	return r
}

func printStores(w io.Writer, list []StoreRecord, first bool) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if first {
		Printf(table, "SLUG\tSTATUS\tDATABASE\tHEALTH\tSCHEMA\tHOSTNAME\tID\n")
	}
	for _, s := range list {
		kind, health, schema, hostname := "-", "-", "-", "-"
		if d := s.Database; d != nil {
			kind, health, schema = string(d.Type), d.health(), fmt.Sprint(d.SchemaVersion)
		}
		if len(s.Hostnames) > 0 {
			hostname = s.Hostnames[0].Hostname
		}
		Printf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Slug, s.Status, kind, health, schema, hostname, s.ID)
	}
	return table.Flush()
}

// health returns the status, or the code of the failure.
func (d *storeDatabase) health() string {
	if d.LastError != nil {
		return string(d.LastError.Code)
	}
	return string(d.Status)
}

func printStore(w io.Writer, s StoreRecord) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		Printf(table, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	line("id", "%s", s.ID)
	line("name", "%s", s.Name)
	line("slug", "%s", s.Slug)
	line("status", "%s%s", s.Status, note(s.Held, " (by the operator)"))
	if s.DeleteAfter != nil {
		line("deletion", "%s%s", s.DeleteAfter.Format(time.RFC3339),
			note(s.Status == stores.Deleted && s.Database != nil, "; its database could not be dropped yet and is tried again"))
	}
	for _, h := range s.Hostnames {
		line("hostname", "%s%s%s", h.Hostname, note(h.Primary, " (primary)"), note(!h.Verified, " (not verified)"))
	}
	if c := s.Credits; c != nil {
		line("credits", "%s%s%s", c.Balance, note(c.Reserved > 0, fmt.Sprintf(", of which %s are reserved", c.Reserved)),
			note(c.Debt > 0, fmt.Sprintf(", and %s are owed", c.Debt)))
	}
	line("created", "%s", s.CreatedAt.Format(time.RFC3339))
	if d := s.Database; d == nil {
		line("database", "none")
	} else {
		d.print(line)
	}
	return table.Flush()
}

func (d *storeDatabase) print(line func(name, format string, args ...any)) {
	line("database", "%s (%s)", d.Type, d.Engine)
	if d.Host != "" {
		line("  server", "%s port %d", d.Host, d.Port)
	}
	line("  name", "%s", d.Database)
	line("  schema version", "%d", d.SchemaVersion)
	if d.OwnVersion > 0 {
		line("  custom migrations", "%d", d.OwnVersion)
	}
	line("  credential version", "%d", d.CredentialVersion)
	line("  health", "%s", d.Status)
	if d.LastError != nil {
		line("  last error", "%s: %s", d.LastError.Code, d.LastError.Message)
	}
	if d.LastCheckedAt != nil {
		line("  last checked", "%s", d.LastCheckedAt.Format(time.RFC3339))
	}
}
