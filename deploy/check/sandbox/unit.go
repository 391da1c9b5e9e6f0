//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// unit has the settings of a unit file that this program applies.
type unit struct {
	filters        []string // the values of SystemCallFilter, in their order
	families       []string // RestrictAddressFamilies
	denyWriteExec  bool     // MemoryDenyWriteExecute
	noNewPrivilege bool     // NoNewPrivileges
}

func parseUnit(text string) (u unit, err error) {
	for line := range strings.Lines(text) {
		name, value, found := strings.Cut(strings.TrimSpace(line), "=")
		switch {
		case !found || strings.HasPrefix(name, "#"):
		case name == "SystemCallFilter":
			u.filters = append(u.filters, value)
		case name == "RestrictAddressFamilies":
			u.families = strings.Fields(value)
		case name == "MemoryDenyWriteExecute":
			u.denyWriteExec = value == "yes"
		case name == "NoNewPrivileges":
			u.noNewPrivilege = value == "yes"
		}
	}
	if len(u.filters) == 0 || len(u.families) == 0 || !u.denyWriteExec || !u.noNewPrivilege {
		err = errors.New("the unit has no SystemCallFilter, RestrictAddressFamilies, MemoryDenyWriteExecute=yes or NoNewPrivileges=yes")
	}
	return u, err
}

// parseSets reads the output of `systemd-analyze syscall-filter`: sets with an @ before
// their name, each followed by indented calls and sets.
func parseSets(text string) map[string][]string {
	sets, current := map[string][]string{}, ""
	for line := range strings.Lines(text) {
		word := strings.TrimSpace(line)
		switch {
		case word == "" || strings.HasPrefix(word, "#"):
		case !strings.HasPrefix(line, " "):
			current = word
		default:
			sets[current] = append(sets[current], word)
		}
	}
	return sets
}

// allowed returns the calls that filters leave, as systemd reads them: the first is a
// list of what is allowed, and those after it that begin with ~ take away.
func allowed(filters []string, sets map[string][]string) ([]string, error) {
	if strings.HasPrefix(filters[0], "~") {
		return nil, errors.New("the first SystemCallFilter has to say what is allowed")
	}
	var out []string
	for _, filter := range filters {
		names, without := strings.CutPrefix(filter, "~")
		calls, err := expand(strings.Fields(names), sets)
		if err != nil {
			return nil, err
		}
		if without {
			out = slices.DeleteFunc(out, func(call string) bool { return slices.Contains(calls, call) })
		} else {
			out = append(out, calls...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func expand(names []string, sets map[string][]string) (out []string, err error) {
	for _, name := range names {
		if !strings.HasPrefix(name, "@") {
			out = append(out, name)
			continue
		}
		inner, known := sets[name]
		if !known {
			return nil, fmt.Errorf("systemd has no set %s", name)
		}
		calls, err := expand(inner, sets)
		if err != nil {
			return nil, err
		}
		out = append(out, calls...)
	}
	return out, nil
}
