package shop

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/tenantdb"
)

// Profile is everything a store says about itself. An optional text that is
// not given is empty. The max tags are the limits of the columns.
type Profile struct {
	ID           stoa.StoreID `db:"id" json:"id"`
	Name         string       `db:"name" max:"120" json:"name"`
	Slug         string       `db:"slug" max:"63" json:"slug"`
	Description  string       `db:"description" max:"2000" json:"description"`
	ContactEmail string       `db:"contact_email" max:"254" json:"contactEmail"`
	ContactPhone string       `db:"contact_phone" max:"40" json:"contactPhone"`
	Website      string       `db:"website" max:"2048" json:"website"`
	AddressLine1 string       `db:"address_line1" max:"200" json:"addressLine1"`
	AddressLine2 string       `db:"address_line2" max:"200" json:"addressLine2"`
	City         string       `db:"city" max:"120" json:"city"`
	Region       string       `db:"region" max:"120" json:"region"`
	PostalCode   string       `db:"postal_code" max:"20" json:"postalCode"`
	Country      string       `db:"country" max:"2" json:"country"`    // ISO 3166-1 alpha-2
	Currency     string       `db:"currency" max:"3" json:"currency"`  // ISO 4217
	Timezone     string       `db:"timezone" max:"64" json:"timezone"` // IANA
	Locale       string       `db:"locale" max:"35" json:"locale"`     // BCP 47
	Theme        JSON         `db:"theme" json:"theme"`
	Settings     JSON         `db:"settings" json:"settings"`
	LogoURL      string       `db:"logo_url" max:"2048" json:"logoUrl"`
	CreatedAt    time.Time    `db:"created_at" json:"createdAt"`
	UpdatedAt    time.Time    `db:"updated_at" json:"updatedAt"`
}

// What a new store has until its owner chooses.
const (
	defaultCurrency = "USD"
	defaultTimezone = "UTC"
	defaultLocale   = "en"
)

// ErrForeignStore means that the database already holds another store.
var ErrForeignStore error = stoa.Errorf(stoa.DatabaseNotEmpty,
	"This database already belongs to another store. Give each store a database of its own.")

// CreateStore writes the one row of stores unless it is there; an existing
// row is never changed. Currency, time zone and locale have defaults, and
// the times are the database row's own business. It fails with
// ErrForeignStore when the row is another store's, and with invalid_request
// when the profile could not be kept.
func CreateStore(ctx context.Context, db *tenantdb.DB, p Profile) error {
	columns, args, err := p.patch().assignments()
	if err != nil {
		return err
	}
	if present, err := holdsStore(ctx, db, p.ID); present || err != nil {
		return err
	}
	at := now()
	columns = append(columns, "id", "created_at", "updated_at")
	args = append(args, p.ID, at, at)
	_, err = db.Exec(ctx, `INSERT INTO stores (`+strings.Join(columns, ", ")+`) VALUES (`+marks(len(args))+`)`, args...)
	if tenantdb.IsUnique(err) { // someone was faster: with this store, or with another
		if present, err := holdsStore(ctx, db, p.ID); present || err != nil {
			return err
		}
	}
	return err
}

func holdsStore(ctx context.Context, db *tenantdb.DB, id stoa.StoreID) (bool, error) {
	ids, err := StoreIDs(ctx, db)
	switch {
	case err != nil || len(ids) == 0:
		return false, err
	case !slices.Contains(ids, id):
		return false, ErrForeignStore
	}
	return true, nil
}

// StoreIDs lists the stores in a migrated database: none, or one. Of a database
// that was changed by hand it lists two.
func StoreIDs(ctx context.Context, db *tenantdb.DB) ([]stoa.StoreID, error) {
	var ids []stoa.StoreID
	err := db.Select(ctx, &ids, `SELECT `+cutID("id")+` AS id FROM stores LIMIT 2`)
	return ids, err
}

// ProveWritable makes sure that the database holds the store and that its
// user may change it, by writing what is there already. It fails with
// ErrForeignStore when the database is another store's and with
// tenantdb.ErrNotFound when it is nobody's.
func ProveWritable(ctx context.Context, db *tenantdb.DB, store stoa.StoreID) error {
	if present, err := holdsStore(ctx, db, store); err != nil {
		return err
	} else if !present {
		return tenantdb.ErrNotFound
	}
	_, err := db.Exec(ctx, `UPDATE stores SET updated_at = updated_at WHERE id = ?`, store)
	return err
}

var selectProfile = `SELECT ` + selectList[Profile]("s") + ` FROM stores s WHERE s.id = ? LIMIT 1`

// ReadProfile reads the store's profile with one query by primary key: every
// shopper's request comes through here. Without the row it returns
// tenantdb.ErrNotFound.
func ReadProfile(ctx context.Context, db *tenantdb.DB, store stoa.StoreID) (Profile, error) {
	var p Profile
	err := db.Get(ctx, &p, selectProfile, store)
	return p, err
}

// UpdateProfile writes the fields that are set in patch and returns the
// whole profile. It fails with invalid_request, listing every fault, and with
// tenantdb.ErrNotFound. Whether the slug is free is the caller's to know.
func UpdateProfile(ctx context.Context, db *tenantdb.DB, store stoa.StoreID, patch ProfilePatch) (Profile, error) {
	columns, args, err := patch.assignments()
	if err != nil {
		return Profile{}, err
	}
	if len(columns) == 0 {
		return ReadProfile(ctx, db, store)
	}
	columns = append(columns, "updated_at")
	args = append(args, now(), store)
	var p Profile
	err = db.Tx(ctx, func(tx *tenantdb.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE stores SET `+strings.Join(columns, " = ?, ")+` = ? WHERE id = ?`, args...); err != nil {
			return err
		}
		return tx.Get(ctx, &p, selectProfile, store)
	})
	return p, err
}
