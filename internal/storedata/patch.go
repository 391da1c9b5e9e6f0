package storedata

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

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

// profileField is a field of Profile that a patch can set.
type profileField struct {
	column  string
	name    string // in JSON
	initial string // its value in a new store when none is given
	check   check  // nil for JSON
	profile int    // its index in Profile
	patch   int    // its index in ProfilePatch
}

// profileFields are derived from the tags of Profile, texts first.
var profileFields = makeProfileFields()

// makeProfileFields panics for a field without a check: it runs when the program
// starts, and in every test.
func makeProfileFields() []profileField {
	var texts, objects []profileField
	profile := reflect.TypeFor[Profile]()
	patch := reflect.TypeFor[ProfilePatch]()
	for i := range patch.NumField() {
		f, ok := profile.FieldByName(patch.Field(i).Name)
		if !ok || f.Type != patch.Field(i).Type.Elem() {
			panic("storedata: Profile has no field " + patch.Field(i).Name + " of the patch's type")
		}
		field := profileField{
			column: f.Tag.Get("db"), name: f.Tag.Get("json"), initial: f.Tag.Get("initial"), profile: f.Index[0], patch: i,
		}
		if name, _, _ := strings.Cut(patch.Field(i).Tag.Get("json"), ","); name != field.name {
			panic("storedata: " + f.Name + " has two names in JSON")
		}
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
	limit, err := strconv.Atoi(f.Tag.Get("max"))
	if err != nil {
		panic("storedata: the text " + f.Name + " has no max tag")
	}
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

// patch returns the patch that sets every field of p, with the initial values of a
// new store.
func (p Profile) patch() ProfilePatch {
	var patch ProfilePatch
	from, to := reflect.ValueOf(&p).Elem(), reflect.ValueOf(&patch).Elem()
	for _, f := range profileFields {
		value := from.Field(f.profile)
		if f.initial != "" && value.String() == "" {
			value.SetString(f.initial)
		}
		to.Field(f.patch).Set(value.Addr())
	}
	return patch
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
		switch value := patch.Field(f.patch).Interface().(type) {
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
	switch field := reflect.ValueOf(p).Elem().Field(profileFields[i].patch).Addr().Interface().(type) {
	case **string:
		*field = &value
	case **JSON:
		object := JSON(value)
		*field = &object
	}
	return true
}
