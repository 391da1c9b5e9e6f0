package storedata

import (
	"context"
	"errors"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
)

type (
	categoryKind struct{}
	productKind  struct{}
	variantKind  struct{}
	imageKind    struct{}
)

// The ids of the catalogue.
type (
	CategoryID = stoa.ID[categoryKind]
	ProductID  = stoa.ID[productKind]
	VariantID  = stoa.ID[variantKind]
	ImageID    = stoa.ID[imageKind]
)

// The largest accepted values. maxPriceMinor is far above any real price, and far below
// the value at which a sum overflows. maxStock is the range of an INTEGER column.
const (
	maxPriceMinor = 1_000_000_000_000
	maxStock      = 1<<31 - 1
)

// Category groups products.
type Category struct {
	ID          CategoryID `json:"id"`
	Name        string     `json:"name"`
	Slug        string     `json:"slug"`
	Description string     `json:"description"`
}

// NewCategory describes a category to create. Parent is another category's slug,
// or empty.
type NewCategory struct {
	Name        string `json:"name"`
	Slug        string `json:"slug"`
	Description string `json:"description,omitempty"`
	Parent      string `json:"parent,omitempty"`
}

// AddCategory creates a category. It fails with invalid_request, listing every fault. A
// slug in use and a parent that does not exist are faults too.
func AddCategory(ctx context.Context, db *tenantdb.DB, n NewCategory) (Category, error) {
	var faults stoa.Invalid
	verify(&faults, "name", n.Name, checkName(200))
	verify(&faults, "slug", n.Slug, checkSlug(120))
	verify(&faults, "description", n.Description, checkLines(2000))
	verify(&faults, "parent", n.Parent, optional(checkSlug(120)))
	if err := faults.Err(); err != nil {
		return Category{}, err
	}
	c := Category{ID: stoa.NewID[CategoryID](), Name: n.Name, Slug: n.Slug, Description: n.Description}
	err := db.Tx(ctx, func(tx *tenantdb.Tx) error {
		parent, err := categoryID(ctx, tx, "parent", n.Parent)
		if err != nil {
			return err
		}
		at := now()
		_, err = tx.Exec(ctx, `
			INSERT INTO categories (id, parent_id, name, slug, description, created_at, updated_at)
			VALUES (?, ?, ?, ?, ?, ?, ?)`, c.ID, parent, c.Name, c.Slug, c.Description, at, at)
		return err
	})
	if tenantdb.IsUnique(err) {
		faults.Add("slug", "is already in use")
		return Category{}, faults.Err()
	}
	return c, err
}

// categoryID returns the id of the category with a slug. It returns nil for an empty
// slug, and a fault of field for a slug that does not exist.
func categoryID(ctx context.Context, tx *tenantdb.Tx, field, slug string) (*CategoryID, error) {
	if slug == "" {
		return nil, nil //nolint:nilnil // NULL in the column means no category
	}
	var id CategoryID
	err := tx.Get(ctx, &id, `SELECT `+cutID("id")+` AS id FROM categories WHERE slug = ? LIMIT 1`, slug)
	if errors.Is(err, tenantdb.ErrNotFound) {
		var faults stoa.Invalid
		faults.Add(field, "names no category of this store")
		return nil, faults.Err()
	}
	return &id, err
}

// NewProduct describes a product to create, with one variant and at
// most one image.
type NewProduct struct {
	Name        string `json:"name"`
	Slug        string `json:"slug"`
	Description string `json:"description,omitempty"`
	PriceMinor  int64  `json:"priceMinor"`         // in the currency's minor unit
	Currency    string `json:"currency"`           // ISO 4217
	SKU         string `json:"sku,omitempty"`      // empty: no SKU
	ImageURL    string `json:"imageUrl,omitempty"` // empty: no image
	Category    string `json:"category,omitempty"` // a category's slug; empty: no category
	Stock       *int64 `json:"stock,omitempty"`    // nil: not counted, always available
	Draft       bool   `json:"draft,omitempty"`    // true: not published yet
}

func (n NewProduct) validate() error {
	var faults stoa.Invalid
	verify(&faults, "name", n.Name, checkName(200))
	verify(&faults, "slug", n.Slug, checkSlug(120))
	verify(&faults, "description", n.Description, checkLines(5000))
	if n.PriceMinor < 0 || n.PriceMinor > maxPriceMinor {
		faults.Add("priceMinor", "must be between 0 and %d", maxPriceMinor)
	}
	verify(&faults, "currency", n.Currency, checkCurrency)
	verify(&faults, "sku", n.SKU, optional(checkSKU))
	verify(&faults, "imageUrl", n.ImageURL, optional(checkURL))
	verify(&faults, "category", n.Category, optional(checkSlug(120)))
	if n.Stock != nil && (*n.Stock < 0 || *n.Stock > maxStock) {
		faults.Add("stock", "must be between 0 and %d", maxStock)
	}
	return faults.Err()
}

// AddProduct creates a product. It publishes the product unless it is a draft. It fails
// with invalid_request, listing every fault. A slug or SKU in use and a category that
// does not exist are faults too.
func AddProduct(ctx context.Context, db *tenantdb.DB, n NewProduct) (Product, error) {
	if err := n.validate(); err != nil {
		return Product{}, err
	}
	var row productRow
	err := db.Tx(ctx, func(tx *tenantdb.Tx) error {
		id, err := n.insert(ctx, tx)
		if err != nil {
			return err
		}
		return tx.Get(ctx, &row, selectProducts+` WHERE p.id = ? LIMIT 1`, id)
	})
	if tenantdb.IsUnique(err) {
		return Product{}, n.duplicate(ctx, db, err)
	}
	return row.product(), err
}

func (n NewProduct) insert(ctx context.Context, tx *tenantdb.Tx) (ProductID, error) {
	id, at, status := stoa.NewID[ProductID](), now(), "published"
	if n.Draft {
		status = "draft"
	}
	category, err := categoryID(ctx, tx, "category", n.Category)
	if err != nil {
		return id, err
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO products (id, category_id, name, slug, description, currency, status, created_at, updated_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, id, category, n.Name, n.Slug, n.Description, n.Currency, status, at, at)
	if err != nil {
		return id, err
	}
	var code *string
	if n.SKU != "" {
		code = &n.SKU
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO product_variants (id, product_id, name, sku, price_minor, stock, created_at, updated_at)
		VALUES (?, ?, '', ?, ?, ?, ?, ?)`, stoa.NewID[VariantID](), id, code, n.PriceMinor, n.Stock, at, at)
	if err != nil || n.ImageURL == "" {
		return id, err
	}
	_, err = tx.Exec(ctx, `INSERT INTO product_images (id, product_id, url, alt_text, created_at) VALUES (?, ?, ?, ?, ?)`,
		stoa.NewID[ImageID](), id, n.ImageURL, n.Name, at)
	return id, err
}

// duplicate looks up, after the failed transaction, which unique value is in use, and
// returns the fault of that field.
func (n NewProduct) duplicate(ctx context.Context, db *tenantdb.DB, cause error) error {
	var faults stoa.Invalid
	for _, u := range []struct{ field, value, query string }{
		{field: "slug", value: n.Slug, query: `SELECT count(*) FROM products WHERE slug = ?`},
		{field: "sku", value: n.SKU, query: `SELECT count(*) FROM product_variants WHERE sku = ?`},
	} {
		var count int
		if err := db.Get(ctx, &count, u.query, u.value); err != nil {
			return err
		}
		if count > 0 {
			faults.Add(u.field, "is already in use")
		}
	}
	if err := faults.Err(); err != nil {
		return err
	}
	return cause // the value has become free in the meantime
}
