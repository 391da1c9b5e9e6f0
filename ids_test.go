package stoa_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
)

const canonical = "018f2b6c-7d1e-7c3a-9f00-0123456789ab"

func TestNewIDsSortByCreation(t *testing.T) {
	t.Parallel()
	ids := make([]string, 1000)
	for i := range ids {
		id := stoa.NewID[stoa.StoreID]()
		if id.IsZero() || id[6]>>4 != 7 {
			t.Fatalf("%s is not a version 7 UUID", id)
		}
		ids[i] = id.String()
	}
	if !slices.IsSorted(ids) {
		t.Error("ids made one after the other do not sort")
	}
	if len(slices.Compact(ids)) != 1000 {
		t.Error("an id was made twice")
	}
}

func TestParseID(t *testing.T) {
	t.Parallel()
	id, err := stoa.ParseID[stoa.UserID](canonical)
	if err != nil || id.String() != canonical {
		t.Errorf("ParseID(%q) = %s, %v", canonical, id, err)
	}
	for _, text := range []string{
		"", "x", strings.ReplaceAll(canonical, "-", ""), "{" + canonical + "}", "urn:uuid:" + canonical,
		canonical + " ", " " + canonical[1:], canonical[:35] + "g", strings.ReplaceAll(canonical, "-", "0"), canonical[:35] + "\x00",
		strings.Repeat("-", 36),
	} {
		if id, err := stoa.ParseID[stoa.UserID](text); err == nil || !id.IsZero() {
			t.Errorf("ParseID(%q) = %s, %v, want the zero id and an error", text, id, err)
		}
		var scanned stoa.UserID
		if err := scanned.UnmarshalText([]byte(text)); err == nil || !scanned.IsZero() {
			t.Errorf("UnmarshalText(%q) = %s, %v, want the zero id and an error", text, scanned, err)
		}
	}
}

func TestIDInJSON(t *testing.T) {
	t.Parallel()
	type document struct {
		ID    stoa.StoreID            `json:"id"`
		ByID  map[stoa.StoreID]string `json:"by_id"`
		Other *stoa.RunID             `json:"other"`
	}
	id, err := stoa.ParseID[stoa.StoreID](canonical)
	if err != nil {
		t.Fatal(err)
	}
	want := document{ID: id, ByID: map[stoa.StoreID]string{id: "shop"}}
	text, err := json.Marshal(want)
	if err != nil || string(text) != `{"id":"`+canonical+`","by_id":{"`+canonical+`":"shop"},"other":null}` {
		t.Errorf("JSON is %s, %v", text, err)
	}
	var got document
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("round trip (-want +got):\n%s", diff)
	}
}

func TestIDInColumns(t *testing.T) {
	t.Parallel()
	want := stoa.NewID[stoa.HoldID]()
	value, err := want.Value()
	if err != nil || value != want.String() {
		t.Errorf("Value = %v, %v, want the text", value, err)
	}
	for _, src := range []any{want.String(), []byte(want.String()), want[:]} {
		var got stoa.HoldID
		if err := got.Scan(src); err != nil || got != want {
			t.Errorf("Scan(%T) = %s, %v, want %s", src, got, err, want)
		}
	}
	var got stoa.HoldID
	for _, src := range []any{42, "nonsense", []byte{1, 2, 3}} {
		if err := got.Scan(src); err == nil || !got.IsZero() {
			t.Errorf("Scan(%v) = %s, %v, want an error", src, got, err)
		}
	}
}
