package link

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/supabase"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// WaitReporter receives the cause of each wait of Prepare.
type WaitReporter interface {
	// ReportWait is called each time the cause of a wait changes. An error ends
	// Prepare.
	ReportWait(ctx context.Context, cause error) error
}

// Prepare executes the store's plan: it creates the project if there is none, waits until
// it is ready, and creates a role and a schema for the store in its database. It returns
// the credentials of that role. After an interruption it completes the steps that were
// started.
func (s *Service) Prepare(ctx context.Context, store stoa.StoreID, reporter WaitReporter) (credential.Credentials, error) {
	var none credential.Credentials
	if err := s.configured(); err != nil {
		return none, err
	}
	plan, err := s.readPlan(ctx, store)
	if err != nil {
		return none, err
	}
	w := s.newPreparation(store, plan, reporter)
	if plan.Ref == nil {
		if err := w.makeProject(ctx); err != nil {
			return none, err
		}
	}
	return w.makeAccess(ctx, *w.plan.Ref, keyring.NewSecret(plan.secrets.Role))
}

// PrepareProject does for an existing project of the connected account what Prepare does for
// the planned one, with this password of the store's role. The store may use a database
// elsewhere meanwhile. It can be repeated.
func (s *Service) PrepareProject(ctx context.Context, store stoa.StoreID, ref string, password keyring.Secret, reporter WaitReporter) (credential.Credentials, error) {
	if err := s.configured(); err != nil {
		return credential.Credentials{}, err
	}
	return s.newPreparation(store, plan{}, reporter).makeAccess(ctx, ref, password)
}

// makeAccess waits until the project is ready and makes the store's role and schema there.
func (w *preparation) makeAccess(ctx context.Context, ref string, password keyring.Secret) (none credential.Credentials, err error) {
	if err := w.awaitReady(ctx, ref); err != nil {
		return none, err
	}
	pooler, err := w.pooler(ctx, ref)
	if err != nil {
		return none, err
	}
	role := tenantdb.SupabaseRole(w.store)
	c, err := w.tenants.NewSupabase(ref, pooler.Host, pooler.Database, role, password)
	if err != nil {
		return none, err
	}
	if err := w.makeRole(ctx, ref, role, password); err != nil {
		return none, err
	}
	w.addKeys(ctx, ref, &c)
	return c, w.tenants.Validate(&c)
}

func (s *Service) newPreparation(store stoa.StoreID, p plan, reporter WaitReporter) *preparation {
	return &preparation{Service: s, store: store, plan: p, reporter: reporter, until: time.Now().Add(s.opts.ReadyTimeout), pause: s.opts.Poll}
}

// preparation is one execution of a store's plan.
type preparation struct {
	*Service
	store    stoa.StoreID
	plan     plan
	reporter WaitReporter
	reported stoa.Code // code of the last reported cause
	until    time.Time // end of the wait
	pause    time.Duration
}

// call calls fn with a token, and again after a transient fault, such as an exhausted
// rate limit or no answer from Supabase. The call must be safe to repeat.
func (w *preparation) call(ctx context.Context, fn func(token keyring.Secret) error) error {
	for {
		err := w.withToken(ctx, w.store, fn)
		switch stoa.CodeOf(err) {
		case stoa.RateLimited, stoa.SupabaseUnavailable:
			if err := w.wait(ctx, err); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// maxPause bounds the pause between two checks.
const maxPause = 10 * time.Second

// wait reports the cause and pauses. It returns the cause after ReadyTimeout.
func (w *preparation) wait(ctx context.Context, why error) error {
	pause := w.pause
	var known *stoa.Error
	if errors.As(why, &known) {
		pause = max(pause, known.RetryAfter)
	}
	if time.Now().Add(pause).After(w.until) {
		return why
	}
	if code := stoa.CodeOf(why); code != w.reported {
		w.reported = code
		if err := w.reporter.ReportWait(ctx, why); err != nil {
			return err
		}
	}
	w.pause = min(w.pause*3/2, max(maxPause, w.opts.Poll))
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// creationGrace is how long Prepare looks for a project after a creation without an
// answer, before it creates the project again.
const creationGrace = 20 * time.Second

// makeProject finds the store's project and creates it when there is none. After a
// creation without an answer it looks for the project before it repeats the call.
func (w *preparation) makeProject(ctx context.Context) error {
	for {
		found, err := w.findProject(ctx)
		if err != nil {
			return w.explainOrganization(ctx, w.store, w.plan.Organization, err)
		}
		if found != nil {
			return w.saveRef(ctx, found.Ref)
		}
		why := projectFault(stoa.SupabaseProjectStarting)
		if at := w.plan.RequestedAt; at == nil || w.db.Now().Sub(*at) > min(creationGrace, 10*w.opts.Poll) {
			ref, err := w.request(ctx)
			if err == nil {
				return w.saveRef(ctx, ref)
			}
			if why = err; w.plan.RequestedAt == nil && stoa.CodeOf(err) != stoa.RateLimited {
				return w.explainOrganization(ctx, w.store, w.plan.Organization, err) // Supabase has refused the creation: there is no project
			}
		}
		if err := w.wait(ctx, why); err != nil {
			return err
		}
	}
}

// findProject returns the project with the store's marker, or nil. It ignores a project
// that is being removed.
func (w *preparation) findProject(ctx context.Context) (found *supabase.Project, err error) {
	suffix := marker(w.store)
	err = w.call(ctx, func(token keyring.Secret) error {
		all, err := w.opts.API.Projects(ctx, token, w.plan.Organization, suffix[1:])
		i := slices.IndexFunc(all, func(p supabase.Project) bool {
			return strings.HasSuffix(p.Name, suffix) && supabase.IsRef(p.Ref) && p.Status != supabase.Removed && p.Status != supabase.GoingDown
		})
		if found = nil; i >= 0 {
			found = &all[i]
		}
		return err
	})
	return found, err
}

// request creates the project. The request is recorded before the call, and is
// deleted when the project was certainly not created.
func (w *preparation) request(ctx context.Context) (ref string, err error) {
	region, _ := supabase.FindRegion(w.plan.Region)
	if err := w.recordRequest(ctx, true); err != nil {
		return "", err
	}
	err = w.withToken(ctx, w.store, func(token keyring.Secret) error {
		p, err := w.opts.API.CreateProject(ctx, token, supabase.NewProject{
			Name: w.plan.Name, Organization: w.plan.Organization, Region: region, Password: keyring.NewSecret(w.plan.secrets.Database),
		})
		ref = p.Ref
		return err
	})
	if err != nil && (supabase.StatusOf(err)/100 == 4 || stoa.CodeOf(err) == stoa.RateLimited) {
		if err := w.recordRequest(ctx, false); err != nil {
			return "", err
		}
	}
	return ref, err
}

func (w *preparation) recordRequest(ctx context.Context, begun bool) error {
	return w.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if w.plan.RequestedAt = nil; begun {
			w.plan.RequestedAt = &tx.Now
		}
		_, err := tx.Exec(ctx, `UPDATE supabase_projects SET requested_at = $2 WHERE store_id = $1`, w.store, w.plan.RequestedAt)
		return err
	})
}

func (w *preparation) saveRef(ctx context.Context, ref string) error {
	w.plan.Ref = &ref
	w.forget(w.store)
	return w.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE supabase_projects SET ref = $2, requested_at = NULL WHERE store_id = $1`, w.store, ref)
		return err
	})
}

// awaitReady waits until the project's database and pooler are healthy. It fails at once
// when the project's status means that they will not become healthy.
func (w *preparation) awaitReady(ctx context.Context, ref string) error {
	for {
		var health []supabase.Health
		err := w.call(ctx, func(token keyring.Secret) (err error) {
			health, err = w.opts.API.Health(ctx, token, ref)
			return err
		})
		if err == nil && healthy(health) {
			return nil
		}
		if err != nil && supabase.StatusOf(err)/100 != 4 {
			return err
		}
		why := w.status(ctx, ref)
		switch stoa.CodeOf(why) {
		case stoa.SupabaseProjectStarting:
		case "":
			if why = err; err == nil { // the project is active, but not all of its services are
				why = projectFault(stoa.SupabaseProjectStarting)
			}
		default:
			return why
		}
		if err := w.wait(ctx, why); err != nil {
			return err
		}
	}
}

// healthy reports whether all services of the list are healthy. The list contains only
// the database and the pooler.
func healthy(list []supabase.Health) bool {
	return len(list) > 0 && !slices.ContainsFunc(list, func(h supabase.Health) bool { return h.Status != string(supabase.ActiveHealthy) })
}

func (w *preparation) status(ctx context.Context, ref string) error {
	var all []supabase.Project
	err := w.call(ctx, func(token keyring.Secret) (err error) {
		all, err = w.opts.API.AllProjects(ctx, token)
		return err
	})
	if err != nil {
		return err
	}
	return faultAmong(all, ref)
}

// pooler returns the pooler of the project's primary database. It fails when the
// pooler is another project's.
func (w *preparation) pooler(ctx context.Context, ref string) (supabase.Pooler, error) {
	var all []supabase.Pooler
	err := w.call(ctx, func(token keyring.Secret) (err error) {
		all, err = w.opts.API.Poolers(ctx, token, ref)
		return err
	})
	if err != nil {
		return supabase.Pooler{}, err
	}
	i := slices.IndexFunc(all, func(p supabase.Pooler) bool { return p.Type == "PRIMARY" })
	if i < 0 {
		return supabase.Pooler{}, stoa.Errorf(stoa.SupabaseProjectFailed, "Supabase names no pooler for this project. Look at its database settings at Supabase.")
	}
	if !strings.HasSuffix(all[i].User, "."+ref) {
		return supabase.Pooler{}, stoa.Errorf(stoa.DatabaseHostForbidden, "The pooler that is named for this project is another project's. Nothing was sent there; tell the operator.")
	}
	return all[i], nil
}

// addKeys adds the project's API keys to the credentials, for the store's own use, if
// the connection may read them.
func (w *preparation) addKeys(ctx context.Context, ref string, c *credential.Credentials) {
	var keys []supabase.Key
	err := w.withToken(ctx, w.store, func(token keyring.Secret) (err error) {
		keys, err = w.opts.API.Keys(ctx, token, ref)
		return err
	})
	if err != nil {
		w.opts.Log.InfoContext(ctx, "API keys of a project not read", "store", w.store.String(), "err", err)
		return
	}
	for _, k := range keys {
		switch {
		case k.Type == "legacy" && (k.ID == "anon" || k.Name == "anon"), k.Type == "publishable" && c.AnonKey.IsZero():
			c.AnonKey = k.Secret
		case k.Type == "legacy" && (k.ID == "service_role" || k.Name == "service_role"), k.Type == "secret" && c.ServiceRoleKey.IsZero():
			c.ServiceRoleKey = k.Secret
		}
	}
	if bare := *c; w.tenants.Validate(&bare) != nil { // malformed keys must not prevent the store from opening
		c.AnonKey, c.ServiceRoleKey = keyring.Secret{}, keyring.Secret{}
	}
}

// makeRole creates the store's role; see tenantdb.RoleStatement.
func (w *preparation) makeRole(ctx context.Context, ref, role string, password keyring.Secret) error {
	statement, err := tenantdb.RoleStatement(role, password)
	if err != nil {
		return err
	}
	err = w.call(ctx, func(token keyring.Secret) error { return w.opts.API.Query(ctx, token, ref, statement) })
	if supabase.StatusOf(err) != http.StatusBadRequest {
		return err
	}
	return w.roleFault(ctx, ref, err)
}

// roleFault explains why the statement that creates the store's role failed, from the
// state of the project or from the SQLSTATE. Source: PostgreSQL manual, appendix A.
func (w *preparation) roleFault(ctx context.Context, ref string, refusal error) error {
	switch state := supabase.SQLStateOf(refusal); state {
	case "": // the statement has not reached the database
		if why := w.status(ctx, ref); why != nil {
			return why
		}
		return stoa.Errorf(stoa.SupabaseUnavailable, "Supabase does not reach the project's database at the moment. Try again shortly.").WithCause(refusal)
	case "25006", "53100": // read_only_sql_transaction, disk_full
		return stoa.Errorf(stoa.DatabaseUnreachable, "The project's database takes no changes: it is read-only, as Supabase makes it when its disk is full. "+
			"Look at the project's page at Supabase, and try again.").WithCause(refusal)
	case "42501": // insufficient_privilege
	default:
		return stoa.Errorf(stoa.DatabaseUnreachable, "No role for the store could be made in the project's database: it answers with the error %s. "+
			"The project's logs at Supabase say more.", state).WithCause(refusal)
	}
	return stoa.Errorf(stoa.DatabasePermissionDenied, "No role for the store could be made in the project's database. "+
		"Its role postgres must be allowed to make roles and schemas, as it is unless somebody changed it.").WithCause(refusal)
}
