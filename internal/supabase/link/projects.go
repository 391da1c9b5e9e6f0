package link

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
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/supabase"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Organizations lists the organisations of the connected account.
func (s *Service) Organizations(ctx context.Context, p authz.Principal, store stoa.StoreID) ([]supabase.Organization, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ConnectDatabase); err != nil {
		return nil, err
	}
	return s.listOrganizations(ctx, store)
}

// listOrganizations returns the organisations of the connected account, from the cache if
// it contains them.
func (s *Service) listOrganizations(ctx context.Context, store stoa.StoreID) ([]supabase.Organization, error) {
	if known, ok := s.organizations.GetIfPresent(store); ok {
		return known, nil
	}
	var list []supabase.Organization
	err := s.withToken(ctx, store, func(token keyring.Secret) (err error) {
		list, err = s.opts.API.Organizations(ctx, token)
		return err
	})
	if err == nil {
		s.organizations.Set(store, list)
	}
	return list, err
}

// Projects lists the projects of the connected account, or of one organisation unless
// organization is "".
func (s *Service) Projects(ctx context.Context, p authz.Principal, store stoa.StoreID, organization string) ([]supabase.Project, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ConnectDatabase); err != nil {
		return nil, err
	}
	all, err := s.listProjects(ctx, store)
	if err != nil || organization == "" {
		return all, err
	}
	return slices.DeleteFunc(slices.Clone(all), func(p supabase.Project) bool { return p.Organization != organization }), nil
}

// Regions lists the regions in which a project can be created.
func (s *Service) Regions(ctx context.Context, p authz.Principal, store stoa.StoreID) ([]supabase.Region, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ConnectDatabase); err != nil {
		return nil, err
	}
	return supabase.Regions(), s.configured()
}

// listProjects returns all projects of the connected account, from the cache if it
// contains them.
func (s *Service) listProjects(ctx context.Context, store stoa.StoreID) ([]supabase.Project, error) {
	if known, ok := s.projects.GetIfPresent(store); ok {
		return known, nil
	}
	var list []supabase.Project
	err := s.withToken(ctx, store, func(token keyring.Secret) (err error) {
		list, err = s.opts.API.AllProjects(ctx, token)
		return err
	})
	if err == nil {
		s.projects.Set(store, list)
	}
	return list, err
}

// Choice is the project for a store's database: an existing one or a new one.
type Choice struct {
	Ref string // of an existing project; "" for a new one

	Organization string // slug
	Region       string // code of a supabase.Region
	Name         string
}

const maxName = 60

// Check fails when the choice is not valid.
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
			faults.Add("region", "must be the code of one of Supabase's regions, such as emea or eu-central-1")
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
	all, err := s.listProjects(ctx, store)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(p supabase.Project) bool { return p.Ref == c.Ref })
	if i < 0 {
		faults.Add("projectRef", "%s", unknownProject(all))
		return faults.Err()
	}
	return statusFault(all[i].Status)
}

// checkOrganization fails for an organisation that is not the connected account's. It
// succeeds while the organisations cannot be listed, such as with an exhausted rate
// limit: the run checks later, and waits.
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
	faults.Add("organization", "%s", unknownOrganization(all))
	return faults.Err()
}

// unknownOrganization returns the message that there is no such organisation, with a list
// of those that exist.
func unknownOrganization(all []supabase.Organization) string {
	if len(all) == 0 {
		return "the connected account shows this platform no organisation; connect again, and choose one"
	}
	var known []string
	for _, o := range all {
		known = append(known, quoteName(o.Slug, o.Name))
	}
	return "the connected account has no organisation of that slug; yours are: " + listFirst(known)
}

// unknownProject returns the message that there is no such project, with a list of those
// that exist.
func unknownProject(all []supabase.Project) string {
	if len(all) == 0 {
		return "the connected account has no project; make one at Supabase, or choose an organisation to have one made in"
	}
	var known []string
	for _, p := range all {
		known = append(known, quoteName(p.Ref, p.Name))
	}
	return "is not one of the connected account's projects; yours are: " + listFirst(known)
}

// quoteName quotes an id and a name from Supabase. Names are chosen by the owner and
// may contain anything.
func quoteName(id, name string) string { return fmt.Sprintf("%.100q (%.60q)", id, name) }

// listFirst formats the first entries of a list.
func listFirst(known []string) string {
	const few = 10
	text := strings.Join(known[:min(few, len(known))], ", ")
	if more := len(known) - few; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// explainOrganization replaces a refusal that a wrong organisation has caused. Supabase
// refuses a wrong organisation as it does a missing permission.
func (s *Service) explainOrganization(ctx context.Context, store stoa.StoreID, slug string, refusal error) error {
	if status := supabase.StatusOf(refusal); status != http.StatusForbidden && status != http.StatusNotFound {
		return refusal
	}
	all, err := s.listOrganizations(ctx, store)
	if err != nil || slices.ContainsFunc(all, func(o supabase.Organization) bool { return o.Slug == slug }) {
		return refusal
	}
	return stoa.Errorf(stoa.SupabaseRefused, "No project can be made in %.100q: %s.", slug, unknownOrganization(all)).WithCause(refusal)
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

// secrets are created before anything else, so that an interrupted preparation can be
// completed.
type secrets struct {
	Role     string `json:"role"`     // password of the store's role
	Database string `json:"database"` // password of the role postgres, of a new project only
}

func planOwner(store string) string { return "supabase_projects/" + store }

// Plan records the choice with all passwords that it needs, in the transaction that
// begins a run.
func (s *Service) Plan(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, c Choice) error {
	made := secrets{Role: credential.NewPassword().Reveal()}
	name := ""
	if c.Ref == "" {
		made.Database, name = credential.NewPassword().Reveal(), c.Name+marker(store)
	}
	plain, err := json.Marshal(made)
	if err != nil {
		return err
	}
	sealed, err := s.ring.Seal(plain, planOwner(store.String()))
	if err != nil {
		return err
	}
	if err := ForgetProject(ctx, tx, store); err != nil {
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

// marker returns the suffix of the name of a project that is created for the store.
// findProject finds the project by it when the answer to its creation was lost.
func marker(store stoa.StoreID) string {
	return "-" + strings.ReplaceAll(tenantdb.SupabaseRole(store), "_", "-")
}

// RecordProject records the project of a store's database whose credentials the owner has
// given. An empty ref means no project.
func RecordProject(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, ref string) error {
	if err := ForgetProject(ctx, tx, store); err != nil || ref == "" {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO supabase_projects (store_id, ref, created_at) VALUES ($1, $2, $3)`, store, ref, tx.Now)
	return err
}

// ForgetProject deletes the record of the project of a store whose database will be
// elsewhere.
func ForgetProject(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	return tx.ExecLater(ctx, `DELETE FROM supabase_projects WHERE store_id = $1`, store)
}

// CompletePlan deletes the secrets of the plan, which the store's credentials now
// contain.
func CompletePlan(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
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
	if err != nil { // the key is no longer in the ring
		return p, stoa.Errorf(stoa.DatabaseCredentialsLost, "What was planned for this store cannot be decrypted. Choose its project again.").WithCause(err)
	}
	if err := json.Unmarshal(plain, &p.secrets); err != nil {
		return p, errors.New("a plan cannot be read") // the cause would contain the plan
	}
	return p, nil
}

// faultTimeout limits the time to find out why a database is down.
const faultTimeout = 4 * time.Second

// ProjectFault returns the state of the project that explains why the store's
// database fails with cause, as one of the codes supabase_project_…. It returns nil
// when no fault of the project is known, or Supabase does not answer. When the
// account has to be connected first and the database is unreachable, it returns
// supabase_project_unknown. It calls Supabase: use it for the store's owner, never
// for a request of a shopper.
func (s *Service) ProjectFault(ctx context.Context, store stoa.StoreID, cause error) error {
	if s.configured() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, faultTimeout)
	defer cancel()
	var project struct{ Ref string }
	if err := s.db.Get(ctx, &project, `SELECT ref FROM supabase_projects WHERE store_id = $1 AND ref IS NOT NULL`, store); err != nil {
		return nil
	}
	all, err := s.listProjects(ctx, store)
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

// statusFault returns the fault that a project's status means. It returns nil for a
// status that does not explain a database that is down.
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
