package stoa_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
)

func TestCodeOf(t *testing.T) {
	t.Parallel()
	notFound := stoa.Errorf(stoa.StoreNotFound, "There is no such store.")
	for _, c := range []struct {
		name string
		err  error
		want stoa.Code
	}{
		{"nil", nil, ""},
		{"plain", notFound, stoa.StoreNotFound},
		{"wrapped", fmt.Errorf("resolve: %w", notFound), stoa.StoreNotFound},
		{"joined", errors.Join(io.EOF, notFound), stoa.StoreNotFound},
		{"the outermost wins", stoa.Errorf(stoa.TenantUnavailable, "Try again.").WithCause(notFound), stoa.TenantUnavailable},
		{"a foreign error", io.EOF, stoa.Internal},
	} {
		if got := stoa.CodeOf(c.err); got != c.want {
			t.Errorf("%s: CodeOf = %q, want %q", c.name, got, c.want)
		}
	}
}

func TestErrorKeepsItsCauseForTheLog(t *testing.T) {
	t.Parallel()
	err := stoa.Errorf(stoa.DatabaseUnreachable, "The server %s does not answer.", "db.example").WithCause(io.ErrUnexpectedEOF)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error("errors.Is does not find the cause")
	}
	if err.Message != "The server db.example does not answer." {
		t.Errorf("the message for the caller is %q", err.Message)
	}
	for _, part := range []string{"database_unreachable", err.Message, io.ErrUnexpectedEOF.Error()} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the line for the log, %q, lacks %q", err, part)
		}
	}
}

func TestInvalidReportsEveryFault(t *testing.T) {
	t.Parallel()
	var v stoa.Invalid
	if err := v.Err(); err != nil { // it must be an untyped nil
		t.Fatalf("no fault gives %v", err)
	}
	v.Add("email", "must hold an %q", "@")
	check := func(message string, fields ...stoa.FieldError) {
		t.Helper()
		var got *stoa.Error
		if err := v.Err(); !errors.As(err, &got) {
			t.Fatalf("Err() = %v, want *stoa.Error", err)
		}
		want := &stoa.Error{Code: stoa.InvalidRequest, Message: message, Fields: fields}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	email := stoa.FieldError{Field: "email", Message: `must hold an "@"`}
	check(`email: must hold an "@"`, email)
	v.Add("tls.mode", "is unknown")
	check("2 fields need attention", email, stoa.FieldError{Field: "tls.mode", Message: "is unknown"})
}
