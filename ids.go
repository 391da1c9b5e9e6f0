package stoa

import (
	"database/sql/driver"
	"fmt"

	"github.com/google/uuid"
)

// ID is a UUIDv7 whose type contains its kind, so that a user's id cannot be
// passed for a store's. Version 7 ids sort by creation time, which keeps index
// inserts local.
type ID[Kind any] uuid.UUID

type (
	userKind         struct{}
	sessionKind      struct{}
	storeKind        struct{}
	runKind          struct{}
	transactionKind  struct{}
	holdKind         struct{}
	purchaseKind     struct{}
	keyKind          struct{}
	invitationKind   struct{}
	eventKind        struct{}
	requestKind      struct{}
	bulkActionKind   struct{}
	verificationKind struct{}
	moveKind         struct{}
	backupKind       struct{}
	restoreKind      struct{}
	webhookKind      struct{}
	deliveryKind     struct{}
)

// These are the ids of the master database.
type (
	UserID         = ID[userKind]
	SessionID      = ID[sessionKind]
	StoreID        = ID[storeKind]
	RunID          = ID[runKind]
	TransactionID  = ID[transactionKind]
	HoldID         = ID[holdKind]
	PurchaseID     = ID[purchaseKind]
	KeyID          = ID[keyKind]
	InvitationID   = ID[invitationKind]
	EventID        = ID[eventKind]
	BulkActionID   = ID[bulkActionKind]
	VerificationID = ID[verificationKind]
	MoveID         = ID[moveKind]
	BackupID       = ID[backupKind]
	RestoreID      = ID[restoreKind]
	WebhookID      = ID[webhookKind]
	DeliveryID     = ID[deliveryKind]
)

// RequestID identifies one request to the API, or one run of a command, in logs and in the
// audit log. The platform generates it; callers cannot choose it.
type RequestID = ID[requestKind]

// NewID returns a new id: NewID[StoreID]().
func NewID[T ~[16]byte]() T { return T(uuid.Must(uuid.NewV7())) }

// ParseID parses the canonical 36-character form.
func ParseID[T ~[16]byte](s string) (T, error) {
	if len(s) != 36 {
		return T{}, fmt.Errorf("not a UUID")
	}
	u, err := uuid.Parse(s)
	if err != nil { // u contains what was parsed before the fault
		return T{}, err
	}
	return T(u), nil
}

func (id ID[K]) String() string { return uuid.UUID(id).String() }

// UUID returns the id without its kind.
func (id ID[K]) UUID() [16]byte { return id }

// SetUUID sets the id to a UUID, which becomes one of its kind.
func (id *ID[K]) SetUUID(v [16]byte) { *id = v }

// IsZero reports whether the id was never set.
func (id ID[K]) IsZero() bool { return id == ID[K]{} }

// MarshalText returns the canonical form; JSON uses it too.
func (id ID[K]) MarshalText() ([]byte, error) { return uuid.UUID(id).MarshalText() }

// UnmarshalText accepts the canonical form only.
func (id *ID[K]) UnmarshalText(b []byte) error {
	v, err := ParseID[ID[K]](string(b))
	if err != nil {
		return err
	}
	*id = v
	return nil
}

// Value returns the text of the id, for a column.
func (id ID[K]) Value() (driver.Value, error) { return id.String(), nil }

// Scan reads an id from a column.
func (id *ID[K]) Scan(src any) error { return (*uuid.UUID)(id).Scan(src) }
