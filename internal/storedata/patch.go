package storedata

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa"
)

// Fields returns the JSON names of the fields that the patch sets, sorted.
func (p ProfilePatch) Fields() []string {
	text, err := json.Marshal(p)
	if err != nil {
		return nil // Validate has refused the patch
	}
	var set map[string]json.RawMessage
	if err := json.Unmarshal(text, &set); err != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(set))
}

// profileField is one of ProfileFields.
type profileField struct {
	column  string
	name    string // in JSON
	initial string // its value in a new store when none is given
	check   check  // nil for JSON
	index   int    // in ProfileFields
}

// profileFields are derived from the tags of ProfileFields, texts first.
var profileFields = makeProfileFields()

// makeProfileFields panics for a field without a check: it runs when the program
// starts, and in every test.
func makeProfileFields() []profileField {
	var texts, objects []profileField
	for f := range reflect.TypeFor[ProfileValues]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		field := profileField{column: f.Tag.Get("db"), name: name, initial: f.Tag.Get("initial"), index: f.Index[0]}
		if f.Type == reflect.TypeFor[JSON]() {
			objects = append(objects, field)
			continue
		}
		field.check = checkOf(f)
		texts = append(texts, field)
	}
	return append(texts, objects...)
}

// checkOf returns the check that the tags of a text name.
func checkOf(f reflect.StructField) check {
	limit := maxOf(f)
	checks := map[string]check{
		"name": checkName(limit), "slug": checkSlug(limit), "line": checkLine(limit), "lines": checkLines(limit),
		"email": optional(checkEmail), "phone": optional(checkPhone), "url": optional(checkURL), "country": optional(checkCountry),
		"currency": checkCurrency, "timezone": checkTimezone, "locale": checkLocale,
	}
	c := checks[f.Tag.Get("check")]
	if c == nil {
		panic("storedata: the text " + f.Name + " has no check tag")
	}
	return c
}

// patch returns the patch that sets every field to its value in p.
func (p *Profile) patch() ProfilePatch {
	var patch ProfilePatch
	from, to := reflect.ValueOf(&p.ProfileValues).Elem(), reflect.ValueOf(&patch).Elem()
	for _, f := range profileFields {
		to.Field(f.index).Set(from.Field(f.index).Addr())
	}
	return patch
}

// setInitial sets the fields that are empty to their values in a new store.
func (p *Profile) setInitial() {
	values := reflect.ValueOf(&p.ProfileValues).Elem()
	for _, f := range profileFields {
		if value := values.Field(f.index); f.initial != "" && value.String() == "" {
			value.SetString(f.initial)
		}
	}
}

// MarshalJSON writes the empty fields too, which the tags of ProfileFields omit for patches.
func (p Profile) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ID stoa.StoreID `json:"id"`
		ProfilePatch
		CreatedAt time.Time `json:"createdAt"`
		UpdatedAt time.Time `json:"updatedAt"`
	}{p.ID, p.patch(), p.CreatedAt, p.UpdatedAt})
}

// Validate reports all faults of the patch, by JSON field name, so that a caller can
// refuse it before it writes anywhere else.
func (p ProfilePatch) Validate() error {
	_, _, err := p.assignments()
	return err
}

// assignments checks every field that is set and returns the columns to write with
// their values.
func (p ProfilePatch) assignments() (columns []string, values []any, err error) {
	var faults stoa.Invalid
	patch := reflect.ValueOf(p)
	for _, f := range profileFields {
		switch value := patch.Field(f.index).Interface().(type) {
		case *string:
			if value != nil {
				verify(&faults, f.name, *value, f.check)
				columns, values = append(columns, f.column), append(values, *value)
			}
		case *JSON:
			if value != nil {
				object, err := value.canonical()
				if err != nil {
					faults.Add(f.name, "%s", err)
				}
				columns, values = append(columns, f.column), append(values, object)
			}
		}
	}
	return columns, values, faults.Err()
}

// ProfileColumns returns the columns of the fields that a patch can set, by the JSON names
// of the fields.
func ProfileColumns() map[string]string {
	columns := map[string]string{}
	for _, f := range profileFields {
		columns[f.name] = f.column
	}
	return columns
}

// Set sets the field with that column to a text, or to the JSON of an object. It reports
// whether there is such a field. Validate checks the value.
func (p *ProfilePatch) Set(column, value string) bool {
	i := slices.IndexFunc(profileFields, func(f profileField) bool { return f.column == column })
	if i < 0 {
		return false
	}
	switch field := reflect.ValueOf(p).Elem().Field(profileFields[i].index).Addr().Interface().(type) {
	case **string:
		*field = &value
	case **JSON:
		object := JSON(value)
		*field = &object
	}
	return true
}
