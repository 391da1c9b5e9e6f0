package tenantdb

import (
	"context"
	"sync"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// passwords are the passwords that new connections to one managed database sign in with.
// While its password is changed, the server and the master name different ones for a
// moment, and for longer if the process that changes it ends. The zero value knows only
// the password of the credentials. It is safe for concurrent use.
type passwords struct {
	mu      sync.Mutex
	valid   keyring.Secret // accepted last in place of the credentials' own; empty: none was
	planned keyring.Secret // that a reset has begun to set; empty: none
	reload  func(context.Context) ([]keyring.Secret, error)
}

// signIn calls connect with the password that was valid last. When the server refuses it,
// signIn calls connect with each password that may have replaced it.
func (p *passwords) signIn(ctx context.Context, own keyring.Secret, connect func(keyring.Secret) error) error {
	first := p.lastValid(own)
	err := connect(first)
	if !isPasswordRefused(err) {
		return err
	}
	for _, next := range p.others(ctx, own, first) {
		if again := connect(next); !isPasswordRefused(again) {
			if again == nil {
				p.accept(next)
			}
			return again
		}
	}
	return err
}

func (p *passwords) lastValid(own keyring.Secret) keyring.Secret {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.valid.IsZero() {
		return own
	}
	return p.valid
}

func (p *passwords) accept(password keyring.Secret) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.valid = password
}

// others returns the passwords that may be valid, without the one that was refused. It
// asks the master last.
func (p *passwords) others(ctx context.Context, own, refused keyring.Secret) []keyring.Secret {
	p.mu.Lock()
	candidates, reload := []keyring.Secret{p.planned, own}, p.reload
	p.mu.Unlock()
	if reload != nil {
		if stored, err := reload(ctx); err == nil { // otherwise the refusal is the answer
			candidates = append(stored, candidates...)
		}
	}
	seen := map[keyring.Secret]bool{refused: true, {}: true}
	var others []keyring.Secret
	for _, c := range candidates {
		if !seen[c] {
			seen[c] = true
			others = append(others, c)
		}
	}
	return others
}

// isPasswordRefused reports whether the server knows another password of the role.
func isPasswordRefused(err error) bool {
	return IsState(err, "28P01") || IsMySQL(err, 1045) // ER_ACCESS_DENIED_ERROR
}

// followPasswords makes new connections of a store's managed database use the passwords
// that the master has then, so that a reset fails no request.
func (m *Manager) followPasswords(db *DB, store stoa.StoreID) {
	if db.credentials.Kind != credential.Managed || db.dialect.embedded || m.master == nil {
		return
	}
	p := &db.pinned.passwords
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reload = func(ctx context.Context) ([]keyring.Secret, error) {
		c, err := m.Load(ctx, m.master, store)
		return []keyring.Secret{c.Password, c.Reset.Next}, err
	}
}
