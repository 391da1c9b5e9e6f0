//go:build linux

package main

import (
	"slices"
	"testing"
)

const sets = `@service
    # Comment
    @io
    open
    mount

@io
    read
    write
# Comment
@privileged
    mount
`

func TestAllowed(t *testing.T) {
	got, err := allowed([]string{"@service close", "~@privileged write"}, parseSets(sets))
	if want := []string{"close", "open", "read"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("allowed are %v (%v), want %v", got, err, want)
	}
	for _, filters := range [][]string{{"@nothing"}, {"~@io"}, {"@service", "~@nothing"}} {
		if got, err := allowed(filters, parseSets(sets)); err == nil {
			t.Errorf("%v allows %v, want an error", filters, got)
		}
	}
}

func TestUnitWithoutARestrictionIsRefused(t *testing.T) {
	const unit = "[Service]\nSystemCallFilter=@service\nRestrictAddressFamilies=AF_INET\nMemoryDenyWriteExecute=yes\n"
	if _, err := parseUnit(unit + "NoNewPrivileges=no\n"); err == nil {
		t.Error("a unit without NoNewPrivileges was accepted")
	}
	if u, err := parseUnit(unit + "NoNewPrivileges=yes\n#SystemCallFilter=mount\n"); err != nil || !slices.Equal(u.filters, []string{"@service"}) {
		t.Errorf("%v, %v", u, err)
	}
}
