package credential

import (
	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
)

// Access is what a role of a managed database on a server may do there.
type Access string

// These constants are the roles of a managed database.
const (
	FullAccess Access = "full" // the store's own role
	ReadAccess Access = "read" // the role for reports, made on request
)

// Accesses lists the values of Access.
var Accesses = []Access{FullAccess, ReadAccess}

// ParseAccess reads an Access as callers write it. The empty text is FullAccess. It fails
// with invalid_request.
func ParseAccess(text string) (Access, error) {
	switch a := Access(text); a {
	case FullAccess, ReadAccess:
		return a, nil
	case "":
		return FullAccess, nil
	}
	var faults stoa.Invalid
	faults.Add("access", "must be %q or %q", FullAccess, ReadAccess)
	return "", faults.Err()
}

// PasswordReset is the state of a change of one role's password.
type PasswordReset struct {
	// Next is the password that is being set. It is stored before the server is told, so
	// that a process that ends in between leaves a database that can be opened: the
	// server has either the old password or this one. It is empty between changes.
	Next keyring.Secret
	// Since is the server's own note of when the present password was set. Older
	// sessions are still to be ended. It is empty when they have been.
	Since string
}

// Reader is the role that may only read.
type Reader struct {
	Password keyring.Secret // empty until the role is first asked for
	Reset    PasswordReset
}

// readerSuffix keeps a role's name within the 32 characters of MySQL.
const readerSuffix = "_r"

// Role returns the name of the role with that access.
func (c Credentials) Role(a Access) string {
	if a == ReadAccess {
		return c.User + readerSuffix
	}
	return c.User
}

// ResetOf returns the state of the change of a role's password.
func (c *Credentials) ResetOf(a Access) *PasswordReset {
	if a == ReadAccess {
		return &c.Reader.Reset
	}
	return &c.Reset
}

// SetPassword replaces the password of a role.
func (c *Credentials) SetPassword(a Access, password keyring.Secret) {
	if a == ReadAccess {
		c.Reader.Password = password
	} else {
		c.Password = password
	}
}

// As returns the credentials of one role alone.
func (c Credentials) As(a Access) Credentials {
	if a == ReadAccess {
		c.User, c.Password = c.Role(a), c.Reader.Password
	}
	c.Reset, c.Reader = PasswordReset{}, Reader{}
	return c
}
