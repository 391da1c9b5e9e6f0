package httpapi

import (
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/storedata"
)

// Profile is the profile of a store as its members see it. A field of
// storedata.Profile that this view does not name is not in any answer.
type Profile struct {
	ID           stoa.StoreID   `json:"id"`
	Name         string         `json:"name"`
	Slug         string         `json:"slug"`
	Description  string         `json:"description"`
	ContactEmail string         `json:"contactEmail"`
	ContactPhone string         `json:"contactPhone"`
	Website      string         `json:"website"`
	AddressLine1 string         `json:"addressLine1"`
	AddressLine2 string         `json:"addressLine2"`
	City         string         `json:"city"`
	Region       string         `json:"region"`
	PostalCode   string         `json:"postalCode"`
	Country      string         `json:"country"`
	Currency     string         `json:"currency"`
	Timezone     string         `json:"timezone"`
	Locale       string         `json:"locale"`
	Theme        storedata.JSON `json:"theme"`
	Settings     storedata.JSON `json:"settings"`
	LogoURL      string         `json:"logoUrl"`
	CreatedAt    time.Time      `json:"createdAt"`
	UpdatedAt    time.Time      `json:"updatedAt"`
}

// newProfile returns the view of a profile, and nil for none.
func newProfile(p *storedata.Profile) *Profile {
	if p == nil {
		return nil
	}
	return &Profile{
		ID:           p.ID,
		Name:         p.Name,
		Slug:         p.Slug,
		Description:  p.Description,
		ContactEmail: p.ContactEmail,
		ContactPhone: p.ContactPhone,
		Website:      p.Website,
		AddressLine1: p.AddressLine1,
		AddressLine2: p.AddressLine2,
		City:         p.City,
		Region:       p.Region,
		PostalCode:   p.PostalCode,
		Country:      p.Country,
		Currency:     p.Currency,
		Timezone:     p.Timezone,
		Locale:       p.Locale,
		Theme:        p.Theme,
		Settings:     p.Settings,
		LogoURL:      p.LogoURL,
		CreatedAt:    p.CreatedAt,
		UpdatedAt:    p.UpdatedAt,
	}
}
