package shop

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"

	"github.com/stoahq/stoa"
)

// ProfilePatch changes a profile: nil leaves a field alone, an empty string
// clears an optional one. Theme and Settings are replaced as a whole.
type ProfilePatch struct {
	Name         *string `json:"name,omitempty"`
	Slug         *string `json:"slug,omitempty"`
	Description  *string `json:"description,omitempty"`
	ContactEmail *string `json:"contactEmail,omitempty"`
	ContactPhone *string `json:"contactPhone,omitempty"`
	Website      *string `json:"website,omitempty"`
	AddressLine1 *string `json:"addressLine1,omitempty"`
	AddressLine2 *string `json:"addressLine2,omitempty"`
	City         *string `json:"city,omitempty"`
	Region       *string `json:"region,omitempty"`
	PostalCode   *string `json:"postalCode,omitempty"`
	Country      *string `json:"country,omitempty"`
	Currency     *string `json:"currency,omitempty"`
	Timezone     *string `json:"timezone,omitempty"`
	Locale       *string `json:"locale,omitempty"`
	Theme        *JSON   `json:"theme,omitempty"`
	Settings     *JSON   `json:"settings,omitempty"`
	LogoURL      *string `json:"logoUrl,omitempty"`
}

// Fields lists the JSON names of the fields that the patch sets, sorted.
func (p ProfilePatch) Fields() []string {
	text, err := json.Marshal(p)
	if err != nil {
		return nil // Validate has refused it
	}
	var set map[string]json.RawMessage
	if err := json.Unmarshal(text, &set); err != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(set))
}

// patch is the patch that sets every field of p, with the defaults of a new
// store.
func (p Profile) patch() ProfilePatch {
	p.Currency = cmp.Or(p.Currency, defaultCurrency)
	p.Timezone = cmp.Or(p.Timezone, defaultTimezone)
	p.Locale = cmp.Or(p.Locale, defaultLocale)
	return ProfilePatch{
		Name: &p.Name, Slug: &p.Slug, Description: &p.Description,
		ContactEmail: &p.ContactEmail, ContactPhone: &p.ContactPhone, Website: &p.Website,
		AddressLine1: &p.AddressLine1, AddressLine2: &p.AddressLine2, City: &p.City,
		Region: &p.Region, PostalCode: &p.PostalCode, Country: &p.Country,
		Currency: &p.Currency, Timezone: &p.Timezone, Locale: &p.Locale,
		Theme: &p.Theme, Settings: &p.Settings, LogoURL: &p.LogoURL,
	}
}

// Validate reports everything that is wrong with the patch, by JSON field
// name, so that a caller can refuse it before it writes anywhere else.
func (p ProfilePatch) Validate() error {
	_, _, err := p.assignments()
	return err
}

// assignments checks every field that is set and returns the columns to
// write with their values.
func (p ProfilePatch) assignments() (columns []string, values []any, err error) {
	var faults stoa.Invalid
	for _, f := range []struct {
		column, field string
		value         *string
		check         check
	}{
		{"name", "name", p.Name, checkName(120)},
		{"slug", "slug", p.Slug, checkSlug(63)},
		{"description", "description", p.Description, checkLines(2000)},
		{"contact_email", "contactEmail", p.ContactEmail, optional(checkEmail)},
		{"contact_phone", "contactPhone", p.ContactPhone, optional(checkPhone)},
		{"website", "website", p.Website, optional(checkURL)},
		{"address_line1", "addressLine1", p.AddressLine1, checkLine(200)},
		{"address_line2", "addressLine2", p.AddressLine2, checkLine(200)},
		{"city", "city", p.City, checkLine(120)},
		{"region", "region", p.Region, checkLine(120)},
		{"postal_code", "postalCode", p.PostalCode, checkLine(20)},
		{"country", "country", p.Country, optional(checkCountry)},
		{"currency", "currency", p.Currency, checkCurrency},
		{"timezone", "timezone", p.Timezone, checkTimezone},
		{"locale", "locale", p.Locale, checkLocale},
		{"logo_url", "logoUrl", p.LogoURL, optional(checkURL)},
	} {
		if f.value != nil {
			verify(&faults, f.field, *f.value, f.check)
			columns, values = append(columns, f.column), append(values, *f.value)
		}
	}
	for _, f := range []struct {
		name  string // of column and field
		value *JSON
	}{{"theme", p.Theme}, {"settings", p.Settings}} {
		if f.value != nil {
			object, err := f.value.canonical()
			if err != nil {
				faults.Add(f.name, "%s", err)
			}
			columns, values = append(columns, f.name), append(values, object)
		}
	}
	return columns, values, faults.Err()
}
