package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/stores"
)

type storesHostnamesCmd struct {
	Store string `arg:"" help:"Its id, slug or hostname." placeholder:"STORE"`
	JSON  bool   `help:"Print JSON."`
}

// Help is shown by 'stoa stores hostnames --help'.
func (storesHostnamesCmd) Help() string {
	return "A hostname of the owner's own is served once a TXT record at _stoa.<hostname> proves it; until then the store has a claim to it. " +
		"Shows the record and what the last look for it met. It reads the master database and asks no name server."
}

// StoreHostnameProof is a hostname in the output. Its field names are those of the API.
type StoreHostnameProof struct {
	storeHostname
	CreatedAt     time.Time                   `json:"createdAt"`
	RecordName    string                      `json:"recordName,omitempty"`
	RecordValue   string                      `json:"recordValue,omitempty"`
	ExpiresAt     *time.Time                  `json:"expiresAt,omitempty"`
	LastCheckedAt *time.Time                  `json:"lastCheckedAt,omitempty"`
	LastError     hostnames.VerificationFault `json:"lastError,omitempty"`
	Misses        int                         `json:"misses"`
}

func (cmd storesHostnamesCmd) Run(e *Env) error {
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	s, err := stores.Find(e.Ctx, master, cmd.Store)
	if err != nil {
		return err
	}
	list, err := hostnames.ReadDetails(e.Ctx, master, s.ID, e.Cfg.BaseDomain)
	if err != nil {
		return err
	}
	records := []StoreHostnameProof{}
	for _, h := range list {
		r := StoreHostnameProof{
			storeHostname: storeHostname{Hostname: h.Hostname.Hostname, Primary: h.Primary, Custom: h.Custom, Verified: h.VerifiedAt != nil}, CreatedAt: h.CreatedAt,
		}
		if p := h.Verification; p != nil {
			r.RecordName, r.RecordValue = h.RecordName(), h.RecordValue()
			r.ExpiresAt, r.LastCheckedAt, r.LastError, r.Misses = p.ExpiresAt, p.CheckedAt, p.Fault, p.Misses
		}
		records = append(records, r)
	}
	if cmd.JSON {
		return json.NewEncoder(e.Stdout).Encode(records)
	}
	return printHostnames(e.Stdout, records)
}

func printHostnames(w io.Writer, records []StoreHostnameProof) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	Printf(table, "HOSTNAME\tSTATE\tLAST CHECK\tTXT RECORD\n")
	for _, h := range records {
		state, check, record := "verified", "-", "-"
		switch {
		case h.Primary:
			state = "primary"
		case !h.Verified && h.ExpiresAt != nil:
			state = "claimed until " + h.ExpiresAt.Format(time.DateOnly)
		}
		if h.LastCheckedAt != nil {
			check = h.LastCheckedAt.Format(time.RFC3339) + " " + checkOutcome(h)
		}
		if h.RecordName != "" {
			record = h.RecordName + " " + h.RecordValue
		}
		Printf(table, "%s\t%s\t%s\t%s\n", h.Hostname, state, check, record)
	}
	return table.Flush()
}

func checkOutcome(h StoreHostnameProof) string {
	switch {
	case h.LastError == "":
		return "found"
	case h.Misses > 0:
		return fmt.Sprintf("%s (%d in a row)", h.LastError, h.Misses)
	}
	return string(h.LastError)
}
