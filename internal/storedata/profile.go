package storedata

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// ProfileFields are the fields of a store's profile that its owner can change: this is the one
// place that lists them. The tag db names the column of stores, max limits its characters,
// check names the check of its values, initial its value in a new store. Select lists,
// validation, patches and updates follow from them. A field becomes public when a view of the
// API or of the storefront names it.
type ProfileFields[Text, Object any] struct {
	Name         Text   `db:"name" max:"120" check:"name" json:"name,omitempty"`
	Slug         Text   `db:"slug" max:"63" check:"slug" json:"slug,omitempty"`
	Description  Text   `db:"description" max:"2000" check:"lines" json:"description,omitempty"`
	ContactEmail Text   `db:"contact_email" max:"254" check:"email" json:"contactEmail,omitempty"`
	ContactPhone Text   `db:"contact_phone" max:"40" check:"phone" json:"contactPhone,omitempty"`
	Website      Text   `db:"website" max:"2048" check:"url" json:"website,omitempty"`
	AddressLine1 Text   `db:"address_line1" max:"200" check:"line" json:"addressLine1,omitempty"`
	AddressLine2 Text   `db:"address_line2" max:"200" check:"line" json:"addressLine2,omitempty"`
	City         Text   `db:"city" max:"120" check:"line" json:"city,omitempty"`
	Region       Text   `db:"region" max:"120" check:"line" json:"region,omitempty"`
	PostalCode   Text   `db:"postal_code" max:"20" check:"line" json:"postalCode,omitempty"`
	Country      Text   `db:"country" max:"2" check:"country" json:"country,omitempty"`                   // ISO 3166-1 alpha-2
	Currency     Text   `db:"currency" max:"3" check:"currency" initial:"USD" json:"currency,omitempty"`  // ISO 4217
	Timezone     Text   `db:"timezone" max:"64" check:"timezone" initial:"UTC" json:"timezone,omitempty"` // IANA
	Locale       Text   `db:"locale" max:"35" check:"locale" initial:"en" json:"locale,omitempty"`        // BCP 47
	Theme        Object `db:"theme" json:"theme,omitempty"`
	Settings     Object `db:"settings" json:"settings,omitempty"`
	LogoURL      Text   `db:"logo_url" max:"2048" check:"url" json:"logoUrl,omitempty"`
}

// ProfileValues are the values of all fields of a profile.
type ProfileValues = ProfileFields[string, JSON]

// Profile contains everything that a store publishes about itself. A text that is not
// given is empty.
type Profile struct {
	ID stoa.StoreID `db:"id" json:"id"`
	ProfileValues
	CreatedAt time.Time `db:"created_at" json:"createdAt"`
	UpdatedAt time.Time `db:"updated_at" json:"updatedAt"`
}

// ProfilePatch changes the fields that are not nil. An empty string clears an optional field.
// Theme and Settings are replaced as a whole.
type ProfilePatch ProfileFields[*string, *JSON]

// ErrForeignStore means that the database already holds another store.
var ErrForeignStore error = stoa.Errorf(stoa.DatabaseNotEmpty,
	"This database already belongs to another store. Give each store a database of its own.")

// CreateStore inserts the one row of stores unless it exists. It never changes an
// existing row. Currency, time zone and locale have initial values, and the times of p
// are ignored. It fails with ErrForeignStore when the row is another store's, and with
// invalid_request for an invalid profile.
func CreateStore(ctx context.Context, db *tenantdb.DB, p Profile) error {
	p.setInitial()
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
	if tenantdb.IsUnique(err) { // a concurrent call has inserted this store, or another
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

// StoreIDs returns the stores in a migrated database: none or one. For a database that
// was changed by hand it returns at most two.
func StoreIDs(ctx context.Context, db *tenantdb.DB) ([]stoa.StoreID, error) {
	var ids []stoa.StoreID
	err := db.Select(ctx, &ids, `SELECT `+cutID("id")+` AS id FROM stores LIMIT 2`)
	return ids, err
}

// ProveWritable verifies that the database holds the store and that its user may
// write, by writing a present value. It fails with ErrForeignStore when the database
// is another store's and with tenantdb.ErrNotFound when it holds none.
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

// ReadProfile reads the store's profile with one query by primary key, since every
// request of a shopper calls it. It fails with tenantdb.ErrNotFound when there is no row.
func ReadProfile(ctx context.Context, db *tenantdb.DB, store stoa.StoreID) (Profile, error) {
	var p Profile
	err := db.Get(ctx, &p, selectProfile, store)
	return p, err
}

// UpdateProfile writes the fields that are set in patch and returns the
// whole profile. It fails with invalid_request, listing every fault, and with
// tenantdb.ErrNotFound. The caller checks that the slug is free.
func UpdateProfile(ctx context.Context, db *tenantdb.DB, store stoa.StoreID, patch ProfilePatch) (Profile, error) {
	columns, args, err := patch.assignments()
	if err != nil {
		return Profile{}, err
	}
	if len(columns) == 0 {
		return ReadProfile(ctx, db, store)
	}
	var p Profile
	err = db.Tx(ctx, func(tx *tenantdb.Tx) error { return writeProfile(ctx, tx, store, columns, args, &p) })
	return p, err
}

// Version identifies the content of the profile, its times left out: profiles with equal
// content have equal versions.
func (p Profile) Version() string {
	p.CreatedAt, p.UpdatedAt = time.Time{}, time.Time{}
	text, err := json.Marshal(p)
	if err != nil {
		return "" // Scan has refused a profile that cannot be encoded
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// ChangeProfile locks the store's row, calls change with the present profile and writes
// the patch that change returns, in one transaction. An error of change is returned, and
// nothing is written then. After a deadlock the transaction is repeated, change included.
// It fails as UpdateProfile does.
func ChangeProfile(ctx context.Context, db *tenantdb.DB, store stoa.StoreID, change func(present Profile) (ProfilePatch, error)) (Profile, error) {
	var p Profile
	err := db.Tx(ctx, func(tx *tenantdb.Tx) error {
		// Every engine locks a row that it updates. On MySQL the read after it is the
		// transaction's first, and so sees what was committed before the lock.
		if _, err := tx.Exec(ctx, `UPDATE stores SET updated_at = updated_at WHERE id = ?`, store); err != nil {
			return err
		}
		if err := tx.Get(ctx, &p, selectProfile, store); err != nil {
			return err
		}
		patch, err := change(p)
		if err != nil {
			return err
		}
		columns, args, err := patch.assignments()
		if err != nil || len(columns) == 0 {
			return err
		}
		return writeProfile(ctx, tx, store, columns, args, &p)
	})
	return p, err
}

// writeProfile sets the columns of the store's row and reads the whole profile into p.
func writeProfile(ctx context.Context, tx *tenantdb.Tx, store stoa.StoreID, columns []string, args []any, p *Profile) error {
	columns = append(columns, "updated_at")
	args = append(args, now(), store)
	if _, err := tx.Exec(ctx, `UPDATE stores SET `+strings.Join(columns, " = ?, ")+` = ? WHERE id = ?`, args...); err != nil {
		return err
	}
	return tx.Get(ctx, p, selectProfile, store)
}
