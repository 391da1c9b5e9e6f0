package stores

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Health is what is known of a store's database and of its shoppers' requests.
type Health string

// The states of health. Slow and Failing are of the requests in this hour and the one
// before.
const (
	Healthy     Health = "ok"          // the last use of the database succeeded
	Unreachable Health = "unreachable" // it failed
	Untried     Health = "unknown"     // there was none
	Slow        Health = "slow"        // requests took half a second or more on average
	Failing     Health = "failing"     // at least one request failed
)

// Healths lists the states of health.
var Healths = []Health{Unreachable, Failing, Slow, Healthy, Untried}

// ListOrder is the order of a list of stores.
type ListOrder string

// The orders.
const (
	Newest ListOrder = "newest"
	BySlug ListOrder = "slug"
)

// ListFilter selects stores of every owner. Empty fields select all.
type ListFilter struct {
	// Search is a store's id, a hostname, an owner's e-mail address, or the beginning of a
	// slug or name. Stores found by the beginning are listed by slug.
	Search string
	Status Status
	Engine credential.EngineName
	Health Health
	Schema int64  // the version of the database's schema
	Behind bool   // the schema is older than that of this process
	Server string // host:port of the database server, or EmbeddedServer

	Order  ListOrder // default: Newest
	Limit  int       // 1 to page.MaxLimit, or 0 for page.DefaultLimit
	Cursor string    // FleetPage.Older or FleetPage.Newer
	Newer  bool      // Cursor is FleetPage.Newer
}

// EmbeddedServer is the name of the embedded databases in ListFilter.Server.
const EmbeddedServer = "embedded"

// FleetPage is a page of the stores of all owners.
type FleetPage struct {
	Stores []Store
	Newer  *string // cursor of the page before, if there is one
	Older  *string // cursor of the page after
	// Partial: the page ends because the list was searched as far as one call searches.
	// Older continues.
	Partial bool
}

const (
	// maxSearched is the number of stores that one call compares with the filter when no
	// index finds them.
	maxSearched = 2000
	// maxNameMatches is the number of stores that one search finds by their name.
	maxNameMatches = 200
	// slowMS is the mean duration of requests from which a store is slow. Indexes of
	// store_traffic contain it.
	slowMS = "500"
	// maxSearchLength is the length of an e-mail address.
	maxSearchLength = 254
)

// ListForOperator lists the stores of every owner that the filter selects, as List does.
// The work of one call is bounded whatever the number of stores. The caller must be an
// operator of the platform. It fails with invalid_request.
func (r *Registry) ListForOperator(ctx context.Context, p authz.Principal, f ListFilter) (FleetPage, error) {
	q, err := r.newListQuery(ctx, f)
	if err != nil {
		return FleetPage{}, err
	}
	var found candidates
	if err := authz.CheckOperatorWith(ctx, r.db, p, authz.ReadStore, q.queries(&found)...); err != nil {
		return FleetPage{}, err
	}
	return r.fleetPage(ctx, q, found)
}

// NamesForOperator returns the stores with these ids that exist, with no details but name,
// slug and status. The caller must be an operator of the platform.
func (r *Registry) NamesForOperator(ctx context.Context, p authz.Principal, ids []stoa.StoreID) (list []Store, err error) {
	if err := authz.CheckOperator(ctx, r.db, p, authz.ReadStore); err != nil || len(ids) == 0 {
		return nil, err
	}
	args, places := make([]any, len(ids)), make([]string, len(ids))
	for i, id := range ids {
		args[i], places[i] = id, "$"+strconv.Itoa(i+1)
	}
	err = r.db.Select(ctx, &list, selectStore+` WHERE s.id IN (`+strings.Join(places, ", ")+`) ORDER BY s.slug`, args...)
	return list, err
}

// Select returns the next ids that the filter selects, newest first, for work on many
// stores, and the cursor that continues; nil at the end. It checks no permissions.
func (r *Registry) Select(ctx context.Context, f ListFilter) (ids []stoa.StoreID, next *string, err error) {
	q, err := r.newListQuery(ctx, f)
	if err != nil {
		return nil, nil, err
	}
	var found candidates
	if err := r.db.Batch(ctx, q.queries(&found)...); err != nil {
		return nil, nil, err
	}
	list, next, _ := q.page(found)
	for _, s := range list {
		ids = append(ids, s.ID)
	}
	return ids, next, nil
}

// fleetPage returns what the query has found, with details.
func (r *Registry) fleetPage(ctx context.Context, q *listQuery, found candidates) (FleetPage, error) {
	list, next, partial := q.page(found)
	result := FleetPage{Stores: list, Older: next, Partial: partial}
	if q.Newer {
		slices.Reverse(list)
		result.Newer, result.Older = next, nil
		if len(list) > 0 {
			result.Older = q.cursorOf(list[len(list)-1])
		} else {
			result.Older = &q.Cursor
		}
	} else if q.Cursor != "" {
		result.Newer = &q.Cursor
		if len(list) > 0 {
			result.Newer = q.cursorOf(list[0])
		}
	}
	for i := range list {
		list[i].Role = authz.Operator
	}
	if err := addDetailsOf(ctx, r.db, list); err != nil {
		return FleetPage{}, err
	}
	r.addUnreachable(list)
	return result, nil
}

// candidates are the stores that a listQuery has found.
type candidates struct {
	page []Store // one more than its limit, if there are as many
	last []Store // the last one that was searched, if there may be others after it
}

// queries returns those that fill found in.
func (q *listQuery) queries(found *candidates) []masterdb.Query {
	if q.impossible {
		return nil
	}
	list := []masterdb.Query{masterdb.All(&found.page, q.text(), q.args...)}
	if q.searches() {
		list = append(list, masterdb.All(&found.last, q.lastText(), q.args[:q.candidateArgs]...))
	}
	return list
}

// page returns the stores of the page without details, in the direction of the query,
// and the cursor of the next page in that direction.
func (q *listQuery) page(found candidates) (list []Store, next *string, partial bool) {
	switch {
	case len(found.page) > q.limit:
		list = found.page[:q.limit]
		return list, q.cursorOf(list[q.limit-1]), false
	case len(found.last) > 0:
		return found.page, q.cursorOf(found.last[0]), true
	}
	return found.page, nil, false
}

// listQuery builds the statement of one page. It has two parts: the candidates, which an
// index returns in the order of the list, and the conditions that each of them is compared
// with.
type listQuery struct {
	ListFilter
	db     *masterdb.DB
	limit  int
	port   int // of Server
	host   string
	byPart bool // Search is the beginning of a slug or name

	args       []any
	candidates string
	// candidateArgs is the number of arguments that the candidates need.
	candidateArgs int
	conditions    []string
	impossible    bool // no store can match
}

func (r *Registry) newListQuery(ctx context.Context, f ListFilter) (*listQuery, error) {
	var faults stoa.Invalid
	q := &listQuery{ListFilter: f, db: r.db}
	q.Search = strings.TrimSpace(q.Search)
	q.byPart = q.Search != "" && (!strings.ContainsAny(q.Search, "@.") || strings.Contains(q.Search, " ")) && !isStoreID(q.Search)
	if q.Order == "" {
		q.Order = Newest
	}
	if q.byPart {
		q.Order = BySlug
	}
	if !utf8.ValidString(q.Search) || strings.ContainsRune(q.Search, 0) || utf8.RuneCountInString(q.Search) > maxSearchLength {
		faults.Add("search", "must be at most %d characters of text", maxSearchLength)
	}
	if q.Order != Newest && q.Order != BySlug {
		faults.Add("sort", "must be newest or slug")
	}
	if q.Status != "" && !slices.Contains(Statuses, q.Status) {
		faults.Add("status", "is not a state of stores")
	}
	if q.Health != "" && !slices.Contains(Healths, q.Health) {
		faults.Add("health", "is not a state of health")
	}
	if q.Engine != "" && !slices.Contains(credential.Engines, q.Engine) {
		faults.Add("engine", "is not a database engine")
	}
	q.parseServer(&faults)
	q.limit = page.ByID[stoa.StoreID](f.Limit, "", &faults).Limit
	q.checkCursor(&faults)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	return q, q.plan(ctx, r)
}

// Statuses lists the states of stores.
var Statuses = []Status{PendingDatabase, Provisioning, Active, Suspended, Deleting, Deleted}

func isStoreID(s string) bool {
	_, err := stoa.ParseID[stoa.StoreID](s)
	return err == nil
}

func (q *listQuery) parseServer(faults *stoa.Invalid) {
	if q.Server == "" || q.Server == EmbeddedServer {
		return
	}
	host, port, err := net.SplitHostPort(q.Server)
	number, portErr := strconv.Atoi(port)
	if err != nil || portErr != nil || number < 0 || number > 65535 || len(host) > 253 || !utf8.ValidString(host) || strings.ContainsRune(host, 0) {
		faults.Add("server", "must be host:port, or embedded")
		return
	}
	q.host, q.port = host, number
}

func (q *listQuery) checkCursor(faults *stoa.Invalid) {
	if q.Cursor == "" {
		q.Newer = false
		return
	}
	if q.Order == Newest {
		page.ByID[stoa.StoreID](1, q.Cursor, faults)
	} else if !slugPattern.MatchString(q.Cursor) {
		faults.Add("cursor", "is not a cursor of this list; begin again without one")
	}
}

func (q *listQuery) cursorOf(s Store) *string {
	c := s.Slug
	if q.Order == Newest {
		c = s.ID.String()
	}
	return &c
}

// arg adds an argument and returns its placeholder.
func (q *listQuery) arg(v any) string {
	q.args = append(q.args, v)
	return "$" + strconv.Itoa(len(q.args))
}

// binary returns a text expression that is compared byte by byte.
func (q *listQuery) binary(expression string) string {
	if q.db.Engine == masterdb.Postgres {
		return expression + ` COLLATE "C"`
	}
	return expression
}

// from returns the condition and the order of a page by key, the column with the id or
// slug.
func (q *listQuery) from(key string) (after, order string) {
	descending := (q.Order == Newest) != q.Newer
	sign, order := " > ", " ORDER BY "+key
	if descending {
		sign, order = " < ", " ORDER BY "+key+" DESC"
	}
	if q.Cursor == "" {
		return "", order
	}
	var cursor any = q.Cursor
	if q.Order == Newest {
		cursor, _ = stoa.ParseID[stoa.StoreID](q.Cursor) // checkCursor has parsed it
	}
	return " AND " + key + sign + q.arg(cursor), order
}

// searches reports whether there are conditions that the candidates may not fulfil.
func (q *listQuery) searches() bool { return len(q.conditions) > 0 }

// text returns the statement of the page.
func (q *listQuery) text() string {
	_, order := (&listQuery{ListFilter: ListFilter{Order: q.Order, Newer: q.Newer}}).from(q.outerKey())
	where := ""
	if q.searches() {
		where = " WHERE " + strings.Join(q.conditions, " AND ")
	}
	return `SELECT s.id, s.name, s.slug, s.status, s.created_at, s.updated_at, s.delete_after, s.held FROM (` + q.candidates + q.bound() + `) c
		JOIN stores s ON s.id = c.id LEFT JOIN store_databases x ON x.store_id = s.id` + where + order + ` LIMIT ` + strconv.Itoa(q.limit+1)
}

// lastText returns the statement for the last candidate, if there are as many as one call
// compares.
func (q *listQuery) lastText() string {
	return `SELECT s.id, s.slug FROM (SELECT c.id FROM (` + q.candidates + `) c LIMIT 1 OFFSET ` + strconv.Itoa(maxSearched-1) + `) c JOIN stores s ON s.id = c.id`
}

func (q *listQuery) bound() string {
	if q.searches() || q.Status != "" || q.Engine != "" || q.Health != "" || q.Schema > 0 || q.Behind || q.Server != "" {
		return ` LIMIT ` + strconv.Itoa(maxSearched)
	}
	return ` LIMIT ` + strconv.Itoa(q.limit+1)
}

func (q *listQuery) outerKey() string {
	if q.Order == Newest {
		return "s.id"
	}
	return q.binary("s.slug")
}

// hours returns the beginnings of this hour and of the one before.
func (q *listQuery) hours() (this, before time.Time) {
	this = q.db.Now().UTC().Truncate(time.Hour)
	return this, this.Add(-time.Hour)
}

// addDetailsOf adds the details of any set of stores.
func addDetailsOf(ctx context.Context, q masterdb.Querier, list []Store) error {
	if len(list) == 0 {
		return nil
	}
	args, places := make([]any, len(list)), make([]string, len(list))
	for i, s := range list {
		args[i], places[i] = s.ID, "$"+strconv.Itoa(i+1)
	}
	return addDetails(ctx, q, list, ` WHERE x.store_id IN (`+strings.Join(places, ", ")+`)`, args...)
}

// normalHostname returns a hostname as it is stored, or the text itself.
func normalHostname(s string) string {
	if name, err := hostnames.Normalize(s); err == nil {
		return name
	}
	return strings.ToLower(s)
}

// versions returns the schemas of stores' databases, as last counted, that match.
func (r *Registry) versions(ctx context.Context, matches func(tenantdb.Schema) bool) ([]tenantdb.Schema, error) {
	counts, err := r.readCounts(ctx)
	if err != nil {
		return nil, err
	}
	var list []tenantdb.Schema
	for _, v := range counts.Versions {
		if matches(v.Schema) {
			list = append(list, v.Schema)
		}
	}
	return list, nil
}
