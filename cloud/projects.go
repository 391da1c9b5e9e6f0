package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/supabase"
	"github.com/stoahq/stoa/tenantdb"
)

// Organizations lists those of the connected account.
func (s *Service) Organizations(ctx context.Context, p access.Principal, store stoa.StoreID) ([]supabase.Organization, error) {
	if _, err := access.Check(ctx, s.db, p, store, access.ConnectDatabase); err != nil {
		return nil, err
	}
	return s.listOrganizations(ctx, store)
}

// listOrganizations returns those of the connected account, as of a moment ago.
func (s *Service) listOrganizations(ctx context.Context, store stoa.StoreID) ([]supabase.Organization, error) {
	if known, ok := s.organizations.GetIfPresent(store); ok {
		return known, nil
	}
	var list []supabase.Organization
	err := s.with(ctx, store, func(token keyring.Secret) (err error) {
		list, err = s.opts.API.Organizations(ctx, token)
		return err
	})
	if err == nil {
		s.organizations.Set(store, list)
	}
	return list, err
}

// Projects lists those of the connected account, or of one organisation of
// its when that is not "".
func (s *Service) Projects(ctx context.Context, p access.Principal, store stoa.StoreID, organization string) ([]supabase.Project, error) {
	if _, err := access.Check(ctx, s.db, p, store, access.ConnectDatabase); err != nil {
		return nil, err
	}
	all, err := s.list(ctx, store)
	if err != nil || organization == "" {
		return all, err
	}
	return slices.DeleteFunc(slices.Clone(all), func(p supabase.Project) bool { return p.Organization != organization }), nil
}

// Regions lists where a project can be made.
func (s *Service) Regions(ctx context.Context, p access.Principal, store stoa.StoreID) ([]supabase.Region, error) {
	if _, err := access.Check(ctx, s.db, p, store, access.ConnectDatabase); err != nil {
		return nil, err
	}
	return supabase.Regions(), s.configured()
}

// list returns all projects of the connected account, as of a moment ago.
func (s *Service) list(ctx context.Context, store stoa.StoreID) ([]supabase.Project, error) {
	if known, ok := s.projects.GetIfPresent(store); ok {
		return known, nil
	}
	var list []supabase.Project
	err := s.with(ctx, store, func(token keyring.Secret) (err error) {
		list, err = s.opts.API.AllProjects(ctx, token)
		return err
	})
	if err == nil {
		s.projects.Set(store, list)
	}
	return list, err
}

// Choice is the project that a store's database shall be in: one that there
// is, or one to be made.
type Choice struct {
	Ref string

	Organization string // slug
	Region       string // code of a supabase.Region
	Name         string
}

const maxName = 60

// Check says what is wrong with a choice, before anything is begun.
func (s *Service) Check(ctx context.Context, store stoa.StoreID, c Choice) error {
	if err := s.configured(); err != nil {
		return err
	}
	var faults stoa.Invalid
	if c.Ref == "" {
		if c.Organization == "" || len(c.Organization) > 100 {
			faults.Add("organization", "must be the slug of one of your organisations")
		}
		if _, known := supabase.FindRegion(c.Region); !known {
			faults.Add("region", "must be the code of a region; GET /api/stores/%s/supabase/regions lists them", store)
		}
		if len([]rune(c.Name)) > maxName || strings.ContainsFunc(c.Name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			faults.Add("name", "must be at most %d characters on one line", maxName)
		}
		if err := faults.Err(); err != nil {
			return err
		}
		return s.checkOrganization(ctx, store, c.Organization)
	}
	if !supabase.IsRef(c.Ref) {
		faults.Add("projectRef", "must be 20 small letters, such as abcdefghijklmnopqrst")
		return faults.Err()
	}
	all, err := s.list(ctx, store)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(p supabase.Project) bool { return p.Ref == c.Ref })
	if i < 0 {
		faults.Add("projectRef", "%s", noProject(all))
		return faults.Err()
	}
	return statusFault(all[i].Status)
}

// checkOrganization refuses an organisation that is not the connected account's.
// While the account's cannot be listed, as when the rate limit is spent, it leaves
// that to the run, which waits.
func (s *Service) checkOrganization(ctx context.Context, store stoa.StoreID, slug string) error {
	all, err := s.listOrganizations(ctx, store)
	switch stoa.CodeOf(err) {
	case "":
	case stoa.RateLimited, stoa.SupabaseUnavailable, stoa.SupabaseRefused:
		_, err := s.read(ctx, s.db, store)
		return err
	default:
		return err
	}
	if slices.ContainsFunc(all, func(o supabase.Organization) bool { return o.Slug == slug }) {
		return nil
	}
	var faults stoa.Invalid
	faults.Add("organization", "%s", noOrganization(all))
	return faults.Err()
}

// noOrganization says that there is no such organisation, and which there are.
func noOrganization(all []supabase.Organization) string {
	if len(all) == 0 {
		return "the connected account shows this platform no organisation; connect again, and choose one"
	}
	var known []string
	for _, o := range all {
		known = append(known, named(o.Slug, o.Name))
	}
	return "the connected account has no organisation of that slug; yours are: " + some(known)
}

// noProject says that there is no such project, and which there are.
func noProject(all []supabase.Project) string {
	if len(all) == 0 {
		return "the connected account has no project; make one at Supabase, or choose an organisation to have one made in"
	}
	var known []string
	for _, p := range all {
		known = append(known, named(p.Ref, p.Name))
	}
	return "is not one of the connected account's projects; yours are: " + some(known)
}

// named quotes an id and a name of Supabase's: names are the owner's own, and may
// be anything.
func named(id, name string) string { return fmt.Sprintf("%.100q (%.60q)", id, name) }

// some lists the first few.
func some(known []string) string {
	const few = 10
	text := strings.Join(known[:min(few, len(known))], ", ")
	if more := len(known) - few; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// explainOrganization replaces a refusal that comes of a wrong organisation, which
// Supabase refuses as it does a missing right.
func (s *Service) explainOrganization(ctx context.Context, store stoa.StoreID, slug string, refusal error) error {
	if status := supabase.StatusOf(refusal); status != http.StatusForbidden && status != http.StatusNotFound {
		return refusal
	}
	all, err := s.listOrganizations(ctx, store)
	if err != nil || slices.ContainsFunc(all, func(o supabase.Organization) bool { return o.Slug == slug }) {
		return refusal
	}
	return stoa.Errorf(stoa.SupabaseRefused, "No project can be made in %.100q: %s.", slug, noOrganization(all)).WithCause(refusal)
}

// plan is a row of supabase_projects.
type plan struct {
	Ref          *string
	Organization string
	Name         string
	Region       string
	Secrets      string
	RequestedAt  *time.Time

	secrets secrets `db:"-"`
}

// secrets are made before anything else is, so that whatever is cut off can be
// completed.
type secrets struct {
	Role     string `json:"role"`     // password of the store's role
	Database string `json:"database"` // password of the role postgres, of a new project only
}

func planOwner(store string) string { return "supabase_projects/" + store }

// Plan records the choice with all passwords that will be needed, in the
// transaction that begins a run.
func (s *Service) Plan(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, c Choice) error {
	made := secrets{Role: tenantdb.NewPassword().Reveal()}
	name := ""
	if c.Ref == "" {
		made.Database, name = tenantdb.NewPassword().Reveal(), c.Name+marker(store)
	}
	plain, err := json.Marshal(made)
	if err != nil {
		return err
	}
	sealed, err := s.ring.Seal(plain, planOwner(store.String()))
	if err != nil {
		return err
	}
	if err := Leave(ctx, tx, store); err != nil {
		return err
	}
	var ref *string
	if c.Ref != "" {
		ref = &c.Ref
	}
	_, err = tx.Exec(ctx, `INSERT INTO supabase_projects (store_id, ref, organization, name, region, secrets, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`, store, ref, c.Organization, name, c.Region, sealed, tx.Now)
	return err
}

// marker ends the name of a project that is made for the store. By it the
// project is found when the answer to its making was lost.
func marker(store stoa.StoreID) string {
	return "-" + strings.ReplaceAll(tenantdb.SupabaseRole(store), "_", "-")
}

// Note records which project a store's database is in whose credentials its
// owner has given; "" is none.
func Note(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, ref string) error {
	if err := Leave(ctx, tx, store); err != nil || ref == "" {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO supabase_projects (store_id, ref, created_at) VALUES ($1, $2, $3)`, store, ref, tx.Now)
	return err
}

// Leave forgets the project of a store whose database is to be elsewhere.
func Leave(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	_, err := tx.Exec(ctx, `DELETE FROM supabase_projects WHERE store_id = $1`, store)
	return err
}

// Settle ends the plan: the passwords are in the store's credentials now.
func Settle(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	_, err := tx.Exec(ctx, `UPDATE supabase_projects SET secrets = '', requested_at = NULL WHERE store_id = $1`, store)
	return err
}

func (s *Service) readPlan(ctx context.Context, store stoa.StoreID) (plan, error) {
	var p plan
	err := s.db.Get(ctx, &p, `SELECT ref, organization, name, region, secrets, requested_at FROM supabase_projects
		WHERE store_id = $1 AND secrets <> ''`, store)
	if errors.Is(err, masterdb.ErrNotFound) {
		return p, stoa.Errorf(stoa.NotFound, "No Supabase project was chosen for this store. Choose one and connect again.")
	}
	if err != nil {
		return p, err
	}
	plain, err := s.ring.Open(p.Secrets, planOwner(store.String()))
	if err != nil { // its key is gone
		return p, stoa.Errorf(stoa.DatabaseCredentialsLost, "What was planned for this store cannot be decrypted. Choose its project again.").WithCause(err)
	}
	if err := json.Unmarshal(plain, &p.secrets); err != nil {
		return p, errors.New("a plan cannot be read") // the cause would quote it
	}
	return p, nil
}

// faultFor is how long is spent on finding out why a database is down.
const faultFor = 4 * time.Second

// ProjectFault tells what state of the project explains that the store's
// database fails with cause: one of the codes supabase_project_…. It is nil when
// nothing is known to be wrong with the project, or Supabase does not answer. Where
// the account has to be connected first and the database cannot be reached, it is
// supabase_project_unknown. It is for the store's owner, never for a shopper's
// request.
func (s *Service) ProjectFault(ctx context.Context, store stoa.StoreID, cause error) error {
	if s.configured() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, faultFor)
	defer cancel()
	var project struct{ Ref string }
	if err := s.db.Get(ctx, &project, `SELECT ref FROM supabase_projects WHERE store_id = $1 AND ref IS NOT NULL`, store); err != nil {
		return nil
	}
	all, err := s.list(ctx, store)
	switch code := stoa.CodeOf(err); {
	case err == nil:
		return faultAmong(all, project.Ref)
	case (code == stoa.SupabaseReconnect || code == stoa.SupabaseNotConnected) && tenantdb.HealthCode(cause) == stoa.DatabaseUnreachable:
		return projectFault(stoa.SupabaseProjectUnknown)
	}
	return nil
}

func faultAmong(all []supabase.Project, ref string) error {
	for _, p := range all {
		if p.Ref == ref {
			return statusFault(p.Status)
		}
	}
	return projectFault(stoa.SupabaseProjectRemoved)
}

// statusFault: a status that says nothing of why a database would be down is
// no fault.
func statusFault(s supabase.Status) error {
	switch s {
	case supabase.Inactive, supabase.Pausing:
		return projectFault(stoa.SupabaseProjectPaused)
	case supabase.ComingUp, supabase.Restoring, supabase.Restarting, supabase.Upgrading, supabase.Resizing:
		return projectFault(stoa.SupabaseProjectStarting)
	case supabase.Removed, supabase.GoingDown:
		return projectFault(stoa.SupabaseProjectRemoved)
	case supabase.InitFailed, supabase.RestoreFailed:
		return projectFault(stoa.SupabaseProjectFailed)
	case supabase.ActiveHealthy, supabase.ActiveUnhealthy, supabase.PauseFailed:
	}
	return nil
}

func projectFault(code stoa.Code) error { return stoa.Errorf(code, "%s", tenantdb.HealthMessage(code)) }
