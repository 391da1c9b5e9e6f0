package stores

import (
	"context"
	"strconv"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// plan chooses the candidates: what the most selective field of the filter finds by an
// index in the order of the list. The other fields become conditions.
func (q *listQuery) plan(ctx context.Context, r *Registry) error {
	used := ""
	switch {
	case q.Search != "":
		q.planSearch()
	case q.Order == BySlug:
		after, order := q.from(q.binary("slug"))
		q.candidates = `SELECT id, slug FROM stores WHERE true` + after + order
	default:
		var err error
		if used, err = q.planNewest(ctx, r); err != nil {
			return err
		}
	}
	q.candidateArgs = len(q.args)
	q.addConditions(used, r.tenants.Expected())
	return nil
}

// planSearch makes the stores that the search finds the candidates.
func (q *listQuery) planSearch() {
	switch {
	case q.byPart:
		q.planBeginning()
		return
	case isStoreID(q.Search):
		id, _ := stoa.ParseID[stoa.StoreID](q.Search)
		q.candidates = `SELECT s.id, s.slug FROM stores s WHERE s.id = ` + q.arg(id)
	case strings.Contains(q.Search, "@"):
		q.candidates = `SELECT s.id, s.slug FROM users u JOIN store_members m ON m.user_id = u.id JOIN stores s ON s.id = m.store_id
			WHERE m.role = 'owner' AND u.email = ` + q.arg(strings.ToLower(q.Search))
	default:
		q.candidates = `SELECT s.id, s.slug FROM store_hostnames h JOIN stores s ON s.id = h.store_id WHERE h.hostname = ` + q.arg(normalHostname(q.Search))
	}
	after, order := q.from(q.outerKey())
	q.candidates += after + order
}

// planBeginning makes the stores whose slug or name begins with the search the
// candidates. Those found by name are few, so that they can be sorted by slug.
func (q *listQuery) planBeginning() {
	const last = "\U0010FFFF" // sorts after every character that follows the beginning
	slug, name := strings.ToLower(q.Search), q.arg(q.Search)
	lower := q.binary("lower(name)")
	after, order := q.from(q.binary("slug"))
	begin, end := q.arg(slug), q.arg(slug+last)
	afterName, orderName := q.from(q.binary("c.slug"))
	q.candidates = `SELECT id, slug FROM (
		SELECT id, slug FROM (SELECT id, slug FROM stores WHERE ` + q.binary("slug") + ` >= ` + begin + ` AND ` + q.binary("slug") + ` < ` + end +
		after + order + q.bound() + `) a
		UNION
		SELECT id, slug FROM (SELECT id, slug FROM (SELECT id, slug FROM stores WHERE ` + lower + ` >= lower(` + name + `) AND ` +
		lower + ` < lower(` + name + `) || '` + last + `' ORDER BY ` + lower + `, id LIMIT ` + strconv.Itoa(maxNameMatches) + `) c WHERE true` +
		afterName + orderName + q.bound() + `) b
	) c` + orderName
}

// planNewest makes the stores that one field finds the candidates, newest first, and
// returns the name of that field.
func (q *listQuery) planNewest(ctx context.Context, r *Registry) (used string, err error) {
	databases := func(condition string) string {
		after, order := q.from("x.store_id")
		return `SELECT x.store_id AS id FROM store_databases x WHERE ` + condition + after + order
	}
	switch {
	case q.Server != "":
		used, q.candidates = "server", databases(q.serverCondition())
	case q.Health == Slow || q.Health == Failing:
		used = "health"
		this, before := q.hours()
		q.union([]string{q.trafficOf(q.arg(this)), q.trafficOf(q.arg(before))})
	case q.Health == Unreachable:
		used, q.candidates = "health", databases(q.healthCondition())
	case q.Behind || q.Schema > 0:
		used = "version"
		err = q.planVersions(ctx, r)
	case q.Status != "":
		used = "status"
		after, order := q.from("s.id")
		q.candidates = `SELECT s.id FROM stores s WHERE s.status = ` + q.arg(string(q.Status)) + after + order
	case q.Health != "":
		used, q.candidates = "health", databases(q.healthCondition())
	case q.Engine != "":
		used, q.candidates = "engine", databases(`x.engine = `+q.arg(string(q.Engine)))
	default:
		after, order := q.from("s.id")
		q.candidates = `SELECT s.id FROM stores s WHERE true` + after + order
	}
	return used, err
}

// planVersions makes the databases at the versions that match the candidates.
func (q *listQuery) planVersions(ctx context.Context, r *Registry) error {
	expected := r.tenants.Expected()
	found, err := r.versions(ctx, func(s tenantdb.Schema) bool {
		return (q.Schema == 0 || s.Version == q.Schema) && (!q.Behind || s.Version < expected.Version || s.Own < expected.Own)
	})
	if err != nil {
		return err
	}
	q.impossible = len(found) == 0
	var parts []string
	for _, v := range found {
		after, order := q.from("x.store_id")
		parts = append(parts, `SELECT x.store_id AS id FROM store_databases x WHERE x.schema_version = `+q.arg(v.Version)+
			` AND x.own_version = `+q.arg(v.Own)+after+order+` LIMIT `+strconv.Itoa(maxSearched))
	}
	q.union(parts)
	return nil
}

// trafficOf selects the stores that were slow or failed in an hour.
func (q *listQuery) trafficOf(hour string) string {
	after, order := q.from("t.store_id")
	return `SELECT t.store_id AS id FROM store_traffic t WHERE t.hour = ` + hour + ` AND ` + q.trafficCondition() + after + order + ` LIMIT ` + strconv.Itoa(maxSearched)
}

func (q *listQuery) trafficCondition() string {
	if q.Health == Slow {
		return `t.total_ms >= ` + slowMS + ` * t.requests`
	}
	return `t.errors > 0`
}

// union makes the union of sorted statements the candidates.
func (q *listQuery) union(parts []string) {
	for i, part := range parts {
		parts[i] = `SELECT id FROM (` + part + `) p` + strconv.Itoa(i)
	}
	_, order := (&listQuery{ListFilter: ListFilter{Order: q.Order, Newer: q.Newer}}).from("u.id")
	q.candidates = `SELECT u.id FROM (` + strings.Join(parts, " UNION ") + `) u` + order
}

func (q *listQuery) serverCondition() string {
	return `x.host = ` + q.arg(q.host) + ` AND x.port = ` + q.arg(q.port)
}

func (q *listQuery) healthCondition() string {
	status := map[Health]tenantdb.Status{Healthy: tenantdb.StatusOK, Unreachable: tenantdb.StatusFailed, Untried: tenantdb.StatusUnknown}[q.Health]
	return `x.status = ` + q.arg(string(status))
}

// addConditions adds the fields of the filter that the candidates may not fulfil.
func (q *listQuery) addConditions(used string, expected tenantdb.Schema) {
	add := func(condition string) { q.conditions = append(q.conditions, condition) }
	if q.Status != "" && used != "status" {
		add(`s.status = ` + q.arg(string(q.Status)))
	}
	if q.Engine != "" && used != "engine" {
		add(`x.engine = ` + q.arg(string(q.Engine)))
	}
	if q.Server != "" && used != "server" {
		add(q.serverCondition())
	}
	if q.Schema > 0 && used != "version" {
		add(`x.schema_version = ` + q.arg(q.Schema))
	}
	if q.Behind {
		add(`s.status IN ('active', 'suspended')`)
		if used != "version" {
			add(`(x.schema_version < ` + q.arg(expected.Version) + ` OR x.own_version < ` + q.arg(expected.Own) + `)`)
		}
	}
	if q.Health == "" || used == "health" {
		return
	}
	if q.Health == Slow || q.Health == Failing {
		_, before := q.hours()
		add(`EXISTS (SELECT 1 FROM store_traffic t WHERE t.store_id = s.id AND t.hour >= ` + q.arg(before) + ` AND ` + q.trafficCondition() + `)`)
		return
	}
	add(q.healthCondition())
}
