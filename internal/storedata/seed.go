package storedata

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/stoahq/stoa/internal/tenantdb"
)

// Seed inserts the initial rows of a new store: settings, a category and the usual
// pages. It inserts missing rows and never changes existing ones. It may run
// concurrently.
func Seed(ctx context.Context, db *tenantdb.DB) error {
	for _, s := range []seeds{firstSettings(), firstCategories(), firstPages()} {
		if err := s.insertMissing(ctx, db); err != nil {
			return err
		}
	}
	return nil
}

// maxKey is the limit of the first columns of seeds, in characters.
const maxKey = 120

// seeds are rows of one table. The first column identifies a row.
type seeds struct {
	table   string
	columns []string
	rows    [][]any
}

func firstSettings() seeds {
	s := seeds{table: "settings", columns: []string{"setting_key", "setting_value", "created_at", "updated_at"}}
	for _, v := range [][2]string{
		{"catalog.page_size", `20`},
		{"checkout.guests", `true`},
		{"inventory.low_stock", `5`},
		{"orders.first_number", `1001`},
		{"orders.number_prefix", `""`},
		{"tax.included", `true`},
	} {
		s.rows = append(s.rows, []any{v[0], JSON(v[1]), now(), now()})
	}
	return s
}

func firstCategories() seeds {
	return seeds{
		table:   "categories",
		columns: []string{"slug", "id", "name", "description", "created_at", "updated_at"},
		rows:    [][]any{{"general", newID(), "General", "", now(), now()}},
	}
}

// firstPages returns the usual pages. Terms and privacy are drafts, since the owner
// has to write them.
func firstPages() seeds {
	s := seeds{table: "pages", columns: []string{"slug", "id", "title", "body", "published", "created_at", "updated_at"}}
	for _, p := range []struct {
		slug, title, body string
		published         bool
	}{
		{slug: "home", title: "Home", body: "Welcome to our shop.", published: true},
		{slug: "about", title: "About us", body: "Who we are and what we sell.", published: true},
		{slug: "contact", title: "Contact", body: "How to reach us.", published: true},
		{slug: "terms", title: "Terms and conditions", body: "Write your terms here before you publish this page.", published: false},
		{slug: "privacy", title: "Privacy", body: "Write your privacy notice here before you publish this page.", published: false},
	} {
		s.rows = append(s.rows, []any{p.slug, newID(), p.title, p.body, p.published, now(), now()})
	}
	return s
}

// newID returns an id for a row that no Go type refers to.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

// insertMissing inserts the missing rows in one statement. If a concurrent run
// inserts one of them first, the whole statement fails, and the next attempt finds
// fewer rows missing.
func (s seeds) insertMissing(ctx context.Context, db *tenantdb.DB) error {
	const attempts = 3
	for attempt := 1; ; attempt++ {
		missing, err := s.missing(ctx, db)
		if err != nil || len(missing) == 0 {
			return err
		}
		row := "(" + marks(len(s.columns)) + ")"
		query := `INSERT INTO ` + s.table + ` (` + strings.Join(s.columns, ", ") + `) VALUES ` +
			row + strings.Repeat(", "+row, len(missing)-1)
		if _, err = db.Exec(ctx, query, slices.Concat(missing...)...); !tenantdb.IsUnique(err) || attempt == attempts {
			return err
		}
	}
}

func (s seeds) missing(ctx context.Context, db *tenantdb.DB) ([][]any, error) {
	keys := make([]any, len(s.rows))
	for i, row := range s.rows {
		keys[i] = row[0]
	}
	var present []string
	err := db.Select(ctx, &present,
		`SELECT `+cutText(s.columns[0], maxKey)+` FROM `+s.table+` WHERE `+s.columns[0]+` IN (`+marks(len(keys))+`) LIMIT `+strconv.Itoa(len(keys)), keys...)
	return slices.DeleteFunc(slices.Clone(s.rows), func(row []any) bool {
		return slices.Contains(present, row[0].(string))
	}), err
}
