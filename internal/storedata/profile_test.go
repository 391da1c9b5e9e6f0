package storedata_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// sameJSON compares JSON by meaning, since engines may change its spelling.
var sameJSON = cmp.Transformer("JSON", func(j storedata.JSON) any {
	var v any
	if err := json.Unmarshal([]byte(j.String()), &v); err != nil {
		return err
	}
	return v
})

func fullProfile() storedata.Profile {
	return storedata.Profile{ID: stoa.NewID[stoa.StoreID](), ProfileValues: storedata.ProfileValues{
		Name: hostile, Slug: "bakery-2", Description: hostile + "\r\n\t" + hostile,
		ContactEmail: "O'Brien+Sales@Example.COM", ContactPhone: "+49 (30) 123-45", Website: "https://example.com/ü?a='b'&c=%27",
		AddressLine1: hostile, AddressLine2: hostile, City: "São Paulo ", Region: " Ŋ", PostalCode: "SW1A 1AA ", Country: "BR",
		Currency: "KWD", Timezone: "America/Argentina/Buenos_Aires", Locale: "zh-Hant-TW",
		Theme:    storedata.JSON(`{"colour":"#fff","sizes":[1,2.5,-3e2],"emoji":"🧁 <b>&","q":"'; --","u":null,"t":true}`),
		Settings: storedata.JSON(`{"a":{"b":{"c":[]}},"big":9007199254740993}`),
		LogoURL:  "http://cdn.example.com/logo.png",
	}}
}

func TestProfileRoundTrip(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		want, before := fullProfile(), time.Now().UTC().Truncate(time.Microsecond)
		testkit.Must(t, storedata.CreateStore(t.Context(), db, want))
		got, err := storedata.ReadProfile(t.Context(), db, want.ID)
		testkit.Must(t, err)
		if got.CreatedAt.Before(before) || time.Since(got.CreatedAt) > time.Minute || !got.UpdatedAt.Equal(got.CreatedAt) {
			t.Errorf("times %v and %v, want both just after %v", got.CreatedAt, got.UpdatedAt, before)
		}
		if got.CreatedAt.Nanosecond()%1000 != 0 {
			t.Errorf("%v is finer than a microsecond, which only SQLite keeps", got.CreatedAt)
		}
		want.CreatedAt, want.UpdatedAt = got.CreatedAt, got.UpdatedAt
		if diff := cmp.Diff(want, got, sameJSON); diff != "" {
			t.Error(diff)
		}
		if !strings.Contains(got.Settings.String(), "9007199254740993") {
			t.Errorf("a large integer was rounded: %s", got.Settings)
		}
	})
}

func TestProfileJSON(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		p := setup(t, db)
		b, err := json.Marshal(p)
		testkit.Must(t, err)
		var got map[string]any
		testkit.Must(t, json.Unmarshal(b, &got))
		at := p.CreatedAt.UTC().Format(time.RFC3339Nano) // the suffix Z means UTC, in any time zone of the server
		want := map[string]any{
			"id": p.ID.String(), "name": "Bakery", "slug": "bakery", "description": "", "contactEmail": "", "contactPhone": "",
			"website": "", "addressLine1": "", "addressLine2": "", "city": "", "region": "", "postalCode": "", "country": "",
			"currency": "USD", "timezone": "UTC", "locale": "en", "theme": map[string]any{}, "settings": map[string]any{},
			"logoUrl": "", "createdAt": at, "updatedAt": at,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// TestProfileVersionIsThatOfOtherReleases checks that a profile keeps its version: replicas of
// two releases answer the same clients.
func TestProfileVersionIsThatOfOtherReleases(t *testing.T) {
	t.Parallel()
	var p storedata.Profile
	p.ID, p.Name, p.Slug, p.Theme = stoa.StoreID{15: 1}, "Bakery", "bakery", storedata.JSON(`{"a":1}`)
	if got := p.Version(); got != "1279633bf2f3c6ef8d6e0267c2e0e7e2" {
		t.Errorf("got %s", got)
	}
}

// TestNewColumnIsPrivate checks that no result contains a column that no struct names.
func TestNewColumnIsPrivate(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		p := setup(t, db)
		_, err := db.Exec(t.Context(), `ALTER TABLE stores ADD COLUMN margin_note varchar(40) DEFAULT 'confidential'`)
		testkit.Must(t, err)
		read, err := storedata.ReadProfile(t.Context(), db, p.ID)
		testkit.Must(t, err)
		updated, err := storedata.UpdateProfile(t.Context(), db, p.ID, storedata.ProfilePatch{City: ptr("Wien")})
		testkit.Must(t, err)
		for what, profile := range map[string]storedata.Profile{"read": read, "updated": updated} {
			text, err := json.Marshal(profile)
			testkit.Must(t, err)
			if strings.Contains(string(text), "margin") || strings.Contains(string(text), "confidential") {
				t.Errorf("%s: %s", what, text)
			}
		}
	})
}

func TestTimesKeepMicroseconds(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		p := setup(t, db)
		for _, want := range []time.Time{
			time.Date(2026, 3, 29, 1, 59, 59, 999_999_000, time.UTC), // an hour that Berlin skips
			time.Date(2026, 10, 25, 0, 30, 0, 1_000, time.UTC),       // an hour that Berlin has twice
			time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
			time.Date(2100, 12, 31, 23, 59, 59, 120_000_000, time.UTC), // after 2038
		} {
			_, err := db.Exec(t.Context(), `UPDATE stores SET created_at = ?`, want.In(time.FixedZone("", -5*3600)))
			testkit.Must(t, err)
			got, err := storedata.ReadProfile(t.Context(), db, p.ID)
			testkit.Must(t, err)
			if !got.CreatedAt.Equal(want) || got.CreatedAt.Location() != time.UTC {
				t.Errorf("got %v, want %v", got.CreatedAt, want)
			}
		}
	})
}

func TestCreateStoreNeverOverwrites(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		first := setup(t, db)
		again := fullProfile()
		again.ID = first.ID
		testkit.Must(t, storedata.CreateStore(t.Context(), db, again))
		got, err := storedata.ReadProfile(t.Context(), db, first.ID)
		testkit.Must(t, err)
		if diff := cmp.Diff(first, got, sameJSON); diff != "" {
			t.Error(diff)
		}
	})
}

func TestCreateStoreAtOnce(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		p := fullProfile()
		for _, err := range atOnce(8, func(int) error { return storedata.CreateStore(t.Context(), db, p) }) {
			testkit.Must(t, err)
		}
		ids, err := storedata.StoreIDs(t.Context(), db)
		testkit.Must(t, err)
		if !slices.Equal(ids, []stoa.StoreID{p.ID}) {
			t.Errorf("got %v, want %v", ids, p.ID)
		}
	})
}

func TestForeignStoreIsRefused(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		ids, err := storedata.StoreIDs(t.Context(), db)
		testkit.Must(t, err)
		if len(ids) != 0 {
			t.Fatalf("a fresh database holds %v", ids)
		}
		// The slugs differ, so that only the rule of a single row can cause an error.
		errs := atOnce(8, func(i int) error {
			p := storedata.Profile{ID: stoa.NewID[stoa.StoreID](), ProfileValues: storedata.ProfileValues{Name: "x", Slug: fmt.Sprintf("store-%d", i)}}
			return storedata.CreateStore(t.Context(), db, p)
		})
		created := 0
		for _, err := range errs {
			switch {
			case err == nil:
				created++
			case !errors.Is(err, storedata.ErrForeignStore) || stoa.CodeOf(err) != stoa.DatabaseNotEmpty:
				t.Error(err)
			}
		}
		if created != 1 || count(t, db, "stores") != 1 {
			t.Errorf("%d stores were created and %d are there, want 1", created, count(t, db, "stores"))
		}
	})
}

func TestCreateStoreValidates(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		err := storedata.CreateStore(t.Context(), db, storedata.Profile{ID: stoa.NewID[stoa.StoreID](), ProfileValues: storedata.ProfileValues{Slug: "No", Currency: "EURO"}})
		if got, want := faultsOf(t, err), []string{"currency", "name", "slug"}; !slices.Equal(got, want) {
			t.Errorf("got faults %v, want %v", got, want)
		}
		if n := count(t, db, "stores"); n != 0 {
			t.Errorf("%d rows were written", n)
		}
	})
}

func TestReadProfileOfAnotherStore(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		setup(t, db)
		other := stoa.NewID[stoa.StoreID]()
		if _, err := storedata.ReadProfile(t.Context(), db, other); !errors.Is(err, tenantdb.ErrNotFound) {
			t.Errorf("read: got %v", err)
		}
		patch := storedata.ProfilePatch{Name: ptr("Mine now")}
		if _, err := storedata.UpdateProfile(t.Context(), db, other, patch); !errors.Is(err, tenantdb.ErrNotFound) {
			t.Errorf("update: got %v", err)
		}
		if _, err := storedata.UpdateProfile(t.Context(), db, other, storedata.ProfilePatch{}); !errors.Is(err, tenantdb.ErrNotFound) {
			t.Errorf("empty update: got %v", err)
		}
	})
}

func TestUpdateProfile(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		old := setup(t, db)
		want := fullProfile()
		want.ID, want.CreatedAt = old.ID, old.CreatedAt

		got, err := storedata.UpdateProfile(t.Context(), db, old.ID, patchOf(want))
		testkit.Must(t, err)
		if !got.UpdatedAt.After(old.UpdatedAt) {
			t.Errorf("updated at %v, not after %v", got.UpdatedAt, old.UpdatedAt)
		}
		want.UpdatedAt = got.UpdatedAt
		if diff := cmp.Diff(want, got, sameJSON); diff != "" {
			t.Error(diff)
		}
		stored, err := storedata.ReadProfile(t.Context(), db, old.ID)
		testkit.Must(t, err)
		if diff := cmp.Diff(got, stored, sameJSON); diff != "" {
			t.Error(diff)
		}
	})
}

func patchOf(p storedata.Profile) storedata.ProfilePatch {
	return storedata.ProfilePatch{
		Name: &p.Name, Slug: &p.Slug, Description: &p.Description, ContactEmail: &p.ContactEmail, ContactPhone: &p.ContactPhone,
		Website: &p.Website, AddressLine1: &p.AddressLine1, AddressLine2: &p.AddressLine2, City: &p.City, Region: &p.Region,
		PostalCode: &p.PostalCode, Country: &p.Country, Currency: &p.Currency, Timezone: &p.Timezone, Locale: &p.Locale,
		Theme: &p.Theme, Settings: &p.Settings, LogoURL: &p.LogoURL,
	}
}

func TestUpdateProfileLeavesTheRestAlone(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		want := fullProfile()
		testkit.Must(t, storedata.CreateStore(t.Context(), db, want))
		want, err := storedata.ReadProfile(t.Context(), db, want.ID)
		testkit.Must(t, err)

		same, err := storedata.UpdateProfile(t.Context(), db, want.ID, storedata.ProfilePatch{})
		testkit.Must(t, err)
		if diff := cmp.Diff(want, same, sameJSON); diff != "" {
			t.Errorf("an empty patch changed something: %s", diff)
		}
		var patch storedata.ProfilePatch
		testkit.Must(t, json.Unmarshal([]byte(`{"city":"","theme":{},"logoUrl":null}`), &patch))
		got, err := storedata.UpdateProfile(t.Context(), db, want.ID, patch)
		testkit.Must(t, err)
		want.City, want.Theme, want.UpdatedAt = "", nil, got.UpdatedAt
		if diff := cmp.Diff(want, got, sameJSON); diff != "" {
			t.Error(diff)
		}
	})
}

// TestUpdateProfileAtOnce checks that concurrent patches of different fields do not undo
// one another.
func TestUpdateProfileAtOnce(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		p := setup(t, db)
		patches := []storedata.ProfilePatch{
			{Name: ptr("N")}, {City: ptr("C")}, {Region: ptr("R")}, {Currency: ptr("EUR")}, {Theme: ptr(storedata.JSON(`{"a":1}`))},
		}
		for _, err := range atOnce(len(patches), func(i int) error {
			_, err := storedata.UpdateProfile(t.Context(), db, p.ID, patches[i])
			return err
		}) {
			testkit.Must(t, err)
		}
		got, err := storedata.ReadProfile(t.Context(), db, p.ID)
		testkit.Must(t, err)
		want := p
		want.Name, want.City, want.Region, want.Currency, want.Theme = "N", "C", "R", "EUR", storedata.JSON(`{"a":1}`)
		want.UpdatedAt = got.UpdatedAt
		if diff := cmp.Diff(want, got, sameJSON); diff != "" {
			t.Error(diff)
		}
	})
}

func TestUpdateProfileNamesEveryFault(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		p := setup(t, db)
		bad := storedata.ProfilePatch{
			Name: ptr(" "), Slug: ptr("-a"), Description: ptr("\x00"), ContactEmail: ptr("nobody"), ContactPhone: ptr("call me"),
			Website: ptr("javascript:alert(1)"), AddressLine1: ptr("a\nb"), AddressLine2: ptr("\xff"), City: ptr(strings.Repeat("c", 121)),
			Region: ptr("\u007f"), PostalCode: ptr(strings.Repeat("1", 21)), Country: ptr("UK"), Currency: ptr("eur"),
			Timezone: ptr("Local"), Locale: ptr("en_US"), Theme: ptr(storedata.JSON(`[]`)), Settings: ptr(storedata.JSON(`{"a":`)), LogoURL: ptr("logo.png"),
		}
		_, err := storedata.UpdateProfile(t.Context(), db, p.ID, bad)
		want := []string{
			"addressLine1", "addressLine2", "city", "contactEmail", "contactPhone", "country", "currency", "description", "locale",
			"logoUrl", "name", "postalCode", "region", "settings", "slug", "theme", "timezone", "website",
		}
		if diff := cmp.Diff(want, faultsOf(t, err)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(want, faultsOf(t, bad.Validate())); diff != "" {
			t.Error(diff)
		}
		got, err := storedata.ReadProfile(t.Context(), db, p.ID)
		testkit.Must(t, err)
		if diff := cmp.Diff(p, got, sameJSON); diff != "" {
			t.Errorf("a refused patch changed something: %s", diff)
		}
	})
}

// TestLimitsFitTheColumns checks that every engine accepts the longest values that pass
// validation.
func TestLimitsFitTheColumns(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		long := func(n int) string { return strings.Repeat("🧁", n) }
		object := storedata.JSON(`{"a":"` + strings.Repeat("x", 64<<10-8) + `"}`)
		deep := storedata.JSON(strings.Repeat(`{"a":`, 16) + "1" + strings.Repeat("}", 16))
		want := fullProfile()
		want.Name, want.Description, want.Slug = long(120), long(2000), strings.Repeat("s", 63)
		want.AddressLine1, want.AddressLine2, want.City, want.Region = long(200), long(200), long(120), long(120)
		want.PostalCode, want.ContactPhone = long(20), strings.Repeat("5", 40)
		want.ContactEmail = strings.Repeat("e", 64) + "@" + strings.Repeat("d", 185) + ".com"
		want.Website = "https://" + strings.Repeat("w", 2040)
		want.LogoURL, want.Theme, want.Settings = want.Website, object, object
		testkit.Must(t, storedata.CreateStore(t.Context(), db, want))
		got, err := storedata.ReadProfile(t.Context(), db, want.ID)
		testkit.Must(t, err)
		want.CreatedAt, want.UpdatedAt = got.CreatedAt, got.UpdatedAt
		if diff := cmp.Diff(want, got, sameJSON); diff != "" {
			t.Error(diff)
		}
		// At a greater depth, MariaDB's json_valid returns false.
		_, err = storedata.UpdateProfile(t.Context(), db, want.ID, storedata.ProfilePatch{Theme: &deep})
		if err == nil {
			t.Error("17 levels were accepted")
		}
		deep = storedata.JSON(strings.Repeat(`{"a":`, 15) + "{}" + strings.Repeat("}", 15))
		_, err = storedata.UpdateProfile(t.Context(), db, want.ID, storedata.ProfilePatch{Theme: &deep})
		testkit.Must(t, err)
	})
}

// TestObjectsMeanTheSameEverywhere checks JSON that only some engines would accept or
// keep unchanged.
func TestObjectsMeanTheSameEverywhere(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		p := setup(t, db)
		update := func(theme string) (storedata.Profile, error) {
			return storedata.UpdateProfile(t.Context(), db, p.ID, storedata.ProfilePatch{Theme: ptr(storedata.JSON(theme))})
		}
		for _, refused := range []string{
			`{"a":"\u0000"}`, `{"\u0000":1}`, `{"a":1e400}`, `{} {}`, `null`, `"{}"`, `{"a":NaN}`, "{\"a\":\"\x01\"}",
			`{"a":"` + strings.Repeat("x", 64<<10) + `"}`,
		} {
			if _, err := update(refused); !slices.Equal(faultsOf(t, err), []string{"theme"}) {
				t.Errorf("%.40s: %v", refused, err)
			}
		}
		for given, want := range map[string]string{
			`{"a":1,"a":2}`:                `{"a":2}`,
			`{"a":"\ud800"}`:               `{"a":"�"}`,
			`{"a":"\ud83e\uddc1"}`:         `{"a":"🧁"}`,
			" { \"a\" : \"\\\"\\\\\" } ":   `{"a":"\"\\"}`,
			`{"a":18446744073709551615}`:   `{"a":18446744073709551615}`,
			`{"<script>":"</script>&'\""}`: `{"<script>":"</script>&'\""}`,
			"":                             `{}`,
		} {
			got, err := update(given)
			testkit.Must(t, err)
			if diff := cmp.Diff(storedata.JSON(want), got.Theme, sameJSON); diff != "" {
				t.Errorf("%s: %s", given, diff)
			}
			if n := strings.Count(got.Theme.String(), `"a"`); n > 1 {
				t.Errorf("%s: kept as %s", given, got.Theme)
			}
		}
	})
}

func BenchmarkReadProfile(b *testing.B) {
	for _, engine := range tenantdbtest.Engines() {
		b.Run(string(engine), func(b *testing.B) {
			db := tenantdbtest.Open(b, tenantdbtest.Create(b, engine))
			_, err := db.Migrate(b.Context())
			testkit.Must(b, err)
			p := fullProfile()
			testkit.Must(b, storedata.CreateStore(b.Context(), db, p))
			b.ReportAllocs()
			for b.Loop() {
				_, err := storedata.ReadProfile(b.Context(), db, p.ID)
				testkit.Must(b, err)
			}
		})
	}
}
