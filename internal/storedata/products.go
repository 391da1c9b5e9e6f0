package storedata

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/page"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// Product is a product in a list for shoppers.
type Product struct {
	ID          ProductID `json:"id"`
	Slug        string    `json:"slug"`
	Name        string    `json:"name"`
	Description string    `json:"description"`
	Category    *string   `json:"category"` // its slug
	Price       *Money    `json:"price"`    // of the cheapest variant; nil without variants
	Image       *Image    `json:"image"`    // the primary one
	InStock     bool      `json:"inStock"`  // at least one variant is available
	CreatedAt   time.Time `json:"createdAt"`
}

// Image is a picture of a product.
type Image struct {
	URL string `json:"url"`
	Alt string `json:"alt"`
}

// ListProducts selects a page. Limit is 1 to 100; 0 means 20. Cursor is empty for the
// first page, and the NextCursor of the previous page otherwise.
type ListProducts struct {
	Limit  int
	Cursor string
}

// ProductPage is one page. NextCursor is nil on the last page.
type ProductPage struct {
	Products   []Product `json:"data"`
	NextCursor *string   `json:"nextCursor"`
}

// selectProducts reads everything that a list shows in one query. The subqueries use
// indexes and run once for each row of the page. The one for in_stock is not an EXISTS,
// since PostgreSQL would execute that by reading all variants.
var selectProducts = `
	SELECT ` + selectList[productRow]("p") + `
	FROM products p
	LEFT JOIN categories c ON c.id = p.category_id
	LEFT JOIN product_images i ON i.id =
		(SELECT x.id FROM product_images x WHERE x.product_id = p.id ORDER BY x.sort_order, x.id LIMIT 1)`

type productRow struct {
	ID          ProductID `db:"id"`
	Slug        string    `db:"slug" max:"120"`
	Name        string    `db:"name" max:"200"`
	Description string    `db:"description" max:"5000"`
	Currency    string    `db:"currency" max:"3"`
	CreatedAt   time.Time `db:"created_at"`
	Category    *string   `db:"category" sql:"c.slug" max:"120"`
	PriceMinor  *int64    `db:"price_minor" sql:"(SELECT MIN(v.price_minor) FROM product_variants v WHERE v.product_id = p.id)"`
	InStock     bool      `db:"in_stock" sql:"COALESCE((SELECT MAX(CASE WHEN v.stock = 0 THEN 0 ELSE 1 END) FROM product_variants v WHERE v.product_id = p.id), 0)"`
	ImageURL    *string   `db:"image_url" sql:"i.url" max:"2048"`
	ImageAlt    *string   `db:"image_alt" sql:"i.alt_text" max:"200"`
}

func (r productRow) product() Product {
	p := Product{
		ID: r.ID, Slug: r.Slug, Name: r.Name, Description: r.Description,
		Category: r.Category, InStock: r.InStock, CreatedAt: r.CreatedAt,
	}
	if r.PriceMinor != nil {
		price := NewMoney(*r.PriceMinor, r.Currency)
		p.Price = &price
	}
	if r.ImageURL != nil && r.ImageAlt != nil {
		p.Image = &Image{URL: *r.ImageURL, Alt: *r.ImageAlt}
	}
	return p
}

// Products lists the published products, newest first. Ids are UUIDv7 and so sort by
// time. The keyset is the id alone, which compares the same on every engine, whatever
// software wrote the row. It fails with invalid_request.
func Products(ctx context.Context, db *tenantdb.DB, list ListProducts) (ProductPage, error) {
	var faults stoa.Invalid
	bounds := page.ByEncodedID[ProductID](list.Limit, list.Cursor, &faults)
	if err := faults.Err(); err != nil {
		return ProductPage{}, err
	}
	var rows []productRow
	err := db.Select(ctx, &rows, selectProducts+` WHERE p.status = 'published' AND p.id < ? ORDER BY p.id DESC LIMIT ?`,
		bounds.Before, bounds.Rows())
	if err != nil {
		return ProductPage{}, err
	}
	rows, next := page.Cut(rows, bounds.Limit, func(r productRow) string { return page.EncodeID(r.ID) })
	out := ProductPage{Products: make([]Product, 0, len(rows)), NextCursor: next}
	for _, r := range rows {
		out.Products = append(out.Products, r.product())
	}
	return out, nil
}
