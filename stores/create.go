package stores

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/credits"
	"github.com/stoahq/stoa/masterdb"
)

// NewStore is what it takes to create a store. Without a Slug one is derived
// from the name.
type NewStore struct {
	Name           string
	Slug           string
	IdempotencyKey string
}

// Create registers a store that belongs to the caller: pending_database,
// with a zero balance. The same idempotency key with the same request
// returns the store of the first call, with another request
// idempotency_conflict.
func (r *Registry) Create(ctx context.Context, p access.Principal, n NewStore) (Store, error) {
	var id stoa.StoreID
	err := r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if n.IdempotencyKey != "" {
			earlier, err := earlierCreation(ctx, tx, p.UserID, n)
			if err != nil || !earlier.IsZero() {
				id = earlier
				return err
			}
		}
		s, err := r.create(ctx, tx, p.UserID, n)
		id = s.ID
		return err
	})
	if masterdb.IsUnique(err) && n.IdempotencyKey != "" {
		// Two calls with one key at the same moment: the other one won.
		n.Name = strings.TrimSpace(n.Name)
		if id, err = earlierCreation(ctx, r.db, p.UserID, n); err == nil && id.IsZero() {
			err = errors.New("stores: creation refused by a constraint without an earlier store")
		}
	}
	if err != nil {
		return Store{}, err
	}
	return r.read(ctx, p, id)
}

// CreateFirst registers a store for a new user, inside the transaction that
// registers the user.
func (r *Registry) CreateFirst(ctx context.Context, tx *masterdb.Tx, owner stoa.UserID, name string) (Store, error) {
	return r.create(ctx, tx, owner, NewStore{Name: name})
}

func (r *Registry) create(ctx context.Context, tx *masterdb.Tx, owner stoa.UserID, n NewStore) (Store, error) {
	hash := n.hash()
	n.Name = strings.TrimSpace(n.Name)
	if err := n.check(); err != nil {
		return Store{}, err
	}
	s := Store{
		ID: stoa.NewID[stoa.StoreID](), Name: n.Name, Status: PendingDatabase, Role: access.Owner,
		CreatedAt: tx.Now, UpdatedAt: tx.Now,
	}
	s.Credits = &credits.Balance{StoreID: s.ID, UpdatedAt: tx.Now}
	var err error
	if s.Slug, err = insertStore(ctx, tx, s, owner, n, hash); err != nil {
		return Store{}, err
	}
	if err := access.Grant(ctx, tx, s.ID, owner, access.Owner); err != nil {
		return Store{}, err
	}
	return s, r.ledger.Open(ctx, tx, s.ID)
}

// insertStore writes the row under the first slug that is free. A slug that
// the caller chose is not bargained over.
func insertStore(ctx context.Context, tx *masterdb.Tx, s Store, owner stoa.UserID, n NewStore, hash string) (slug string, err error) {
	candidates := []string{n.Slug}
	if n.Slug == "" {
		candidates = slugCandidates(n.Name)
	}
	for _, slug := range candidates {
		inserted, err := tx.Exec(ctx, `
			INSERT INTO stores (id, slug, name, status, created_by, idempotency_key, request_hash, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) ON CONFLICT (slug) DO NOTHING`,
			s.ID, slug, s.Name, string(s.Status), owner, nullable(n.IdempotencyKey), nullable(hash), tx.Now)
		if err != nil || inserted == 1 {
			return slug, err
		}
	}
	return "", slugTaken(n.Slug)
}

func slugTaken(slug string) error {
	e := stoa.Errorf(stoa.HostnameTaken, "The slug %q is taken. Choose another.", slug)
	e.Fields = []stoa.FieldError{{Field: "slug", Message: "is taken"}}
	return e
}

// hash identifies the request for idempotency.
func (n NewStore) hash() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "store.create\x00%s\x00%s", strings.TrimSpace(n.Name), n.Slug))
	return hex.EncodeToString(sum[:])
}

func earlierCreation(ctx context.Context, q masterdb.Querier, user stoa.UserID, n NewStore) (stoa.StoreID, error) {
	var row struct {
		ID          stoa.StoreID
		RequestHash string
	}
	err := q.Get(ctx, &row, `SELECT id, request_hash FROM stores WHERE created_by = $1 AND idempotency_key = $2`, user, n.IdempotencyKey)
	switch {
	case errors.Is(err, masterdb.ErrNotFound):
		return stoa.StoreID{}, nil
	case err != nil:
		return stoa.StoreID{}, err
	case row.RequestHash != n.hash():
		return stoa.StoreID{}, stoa.Errorf(stoa.IdempotencyConflict, "This Idempotency-Key was used for another request. Use a new key.")
	}
	return row.ID, nil
}

func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (n NewStore) check() error {
	var faults stoa.Invalid
	if fault := nameFault(n.Name); fault != "" {
		faults.Add("name", "%s", fault)
	}
	if n.Slug != "" {
		if fault := slugFault(n.Slug); fault != "" {
			faults.Add("slug", "%s", fault)
		}
	}
	return faults.Err()
}

func nameFault(name string) string {
	length := utf8.RuneCountInString(name)
	switch {
	case length == 0:
		return "is required"
	case length > 120:
		return "must be at most 120 characters"
	case !utf8.ValidString(name) || strings.IndexFunc(name, unicode.IsControl) >= 0:
		return "must not hold control characters"
	}
	return ""
}

// A slug is a DNS label (RFC 1123) without the "??--" form that is reserved
// for encoded names (RFC 5891).
var slugPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// reserved are labels that people would take for the platform itself.
var reserved = []string{"www", "api", "app", "admin", "console", "dashboard", "stoa", "mail", "smtp", "ftp", "ns1", "ns2",
	"static", "assets", "cdn", "status", "support", "help", "docs", "blog", "billing", "login", "auth", "localhost"}

func slugFault(slug string) string {
	switch {
	case !slugPattern.MatchString(slug):
		return "must be 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end"
	case len(slug) > 3 && slug[2:4] == "--":
		return "must not have hyphens in third and fourth place"
	case slices.Contains(reserved, slug):
		return "is reserved for the platform"
	}
	return ""
}

// slugCandidates proposes slugs for a name: the plain one, a few numbered
// ones, and one with a random ending that is practically always free.
func slugCandidates(name string) []string {
	base := slugify(name)
	var out []string
	if slugFault(base) == "" {
		out = append(out, base)
	}
	for n := 2; n <= 5; n++ {
		out = append(out, fmt.Sprintf("%s-%d", base, n))
	}
	return append(out, base+"-"+strings.ToLower(rand.Text()[:8]))
}

// slugify keeps what is ASCII after taking accents off: "Café Zoë" gives
// "cafe-zoe". A name in another script gives "store". The result leaves room
// for an ending.
func slugify(name string) string {
	var b strings.Builder
	for _, r := range norm.NFKD.String(strings.ToLower(name)) {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			b.WriteRune(r)
		case unicode.Is(unicode.Mn, r) || r == '\'' || r == '’':
			// An accent or apostrophe ends no word.
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() >= 50 {
			break
		}
	}
	slug := strings.Trim(b.String(), "-")
	if slug == "" {
		return "store"
	}
	return slug
}
