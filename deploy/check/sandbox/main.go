//go:build linux

// Sandbox runs a program under the seccomp filters that systemd would install for a unit:
// SystemCallFilter, RestrictAddressFamilies and MemoryDenyWriteExecute. It stands in for
// systemd where that does not run, so that deploy/systemd/check can start Stoa under
// the restrictions of stoa.service. The lists of calls are those of the installed
// systemd-analyze.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
)

func main() {
	err := run(os.Args[1:])
	fmt.Fprintln(os.Stderr, "sandbox:", err)
	os.Exit(1)
}

// run does not return unless it fails.
func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: sandbox UNIT-FILE COMMAND [ARGUMENT...]")
	}
	text, err := os.ReadFile(args[0]) //nolint:gosec // whoever starts this names its unit and its program
	if err != nil {
		return err
	}
	u, err := parseUnit(string(text))
	if err != nil {
		return err
	}
	sets, err := exec.CommandContext(context.Background(), "systemd-analyze", "syscall-filter").Output()
	if err != nil {
		return fmt.Errorf("systemd-analyze: %w", err)
	}
	policy, err := newPolicy(u, parseSets(string(sets)))
	if err != nil {
		return err
	}
	program, err := exec.LookPath(args[1])
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy}); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", program, syscall.Exec(program, args[1:], os.Environ())) //nolint:gosec // see above
}

var families = map[string]uint64{"AF_UNIX": syscall.AF_UNIX, "AF_INET": syscall.AF_INET, "AF_INET6": syscall.AF_INET6}

// newPolicy translates a unit. Whatever is not allowed fails with EPERM.
func newPolicy(u unit, sets map[string][]string) (seccomp.Policy, error) {
	calls, err := allowed(u.filters, sets)
	if err != nil {
		return seccomp.Policy{}, err
	}
	info, err := arch.GetInfo("")
	if err != nil {
		return seccomp.Policy{}, err
	}
	// The sets name the calls of all architectures.
	calls = slices.DeleteFunc(calls, func(call string) bool { _, known := info.SyscallNames[call]; return !known })
	conditional, err := conditions(u)
	if err != nil {
		return seccomp.Policy{}, err
	}
	for _, c := range conditional {
		if i := slices.Index(calls, c.Name); i >= 0 {
			calls = slices.Delete(calls, i, i+1)
		}
	}
	return seccomp.Policy{DefaultAction: seccomp.ActionErrno, Syscalls: []seccomp.SyscallGroup{
		{Action: seccomp.ActionAllow, Names: calls},
		{Action: seccomp.ActionAllow, NamesWithCondtions: conditional},
	}}, nil
}

// conditions returns the calls that depend on their arguments: sockets of the allowed
// families, and memory that is not made executable while, or after, it can be written.
func conditions(u unit) (out []seccomp.NameWithConditions, err error) {
	allow := func(call string, argument uint32, operation seccomp.Operation, value uint64) {
		out = append(out, seccomp.NameWithConditions{Name: call, Conditions: seccomp.ArgumentConditions{
			{Argument: argument, Operation: operation, Value: value}}})
	}
	for _, name := range u.families {
		family, known := families[name]
		if !known {
			return nil, fmt.Errorf("RestrictAddressFamilies=%s is not known here", name)
		}
		allow("socket", 0, seccomp.Equal, family)
	}
	const protection = 2 // the index of the argument
	allow("mmap", protection, seccomp.BitsNotSet, syscall.PROT_EXEC)
	allow("mmap", protection, seccomp.BitsNotSet, syscall.PROT_WRITE)
	allow("mprotect", protection, seccomp.BitsNotSet, syscall.PROT_EXEC)
	allow("pkey_mprotect", protection, seccomp.BitsNotSet, syscall.PROT_EXEC)
	return out, nil
}
