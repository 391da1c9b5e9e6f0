package backups

import (
	"context"
	"errors"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/keyrotation"
	"github.com/stoahq/stoa/internal/masterdb"
)

// key returns the key of a store's archives, which it makes when there is none.
func (s *Service) key(ctx context.Context, store stoa.StoreID) (archive.StoreKey, error) {
	sealed, err := s.sealedKey(ctx, store)
	if errors.Is(err, masterdb.ErrNotFound) {
		if err := s.makeKey(ctx, store); err != nil {
			return archive.StoreKey{}, err
		}
		sealed, err = s.sealedKey(ctx, store)
	}
	if err != nil {
		return archive.StoreKey{}, err
	}
	key, err := archive.OpenStoreKey(s.ring, store, sealed)
	if err != nil {
		return key, stoa.Errorf(stoa.ArchiveKeyUnknown, "The key of this store's archives cannot be decrypted. The operator can give the platform the "+
			"encryption key that it was encrypted with, or open the archives with an identity of their own.").WithCause(err)
	}
	return key, nil
}

func (s *Service) sealedKey(ctx context.Context, store stoa.StoreID) (sealed string, err error) {
	err = s.db.Get(ctx, &sealed, `SELECT sealed FROM archive_keys WHERE store_id = $1`, store)
	return sealed, err
}

// makeKey stores a new key, unless another call has stored one.
func (s *Service) makeKey(ctx context.Context, store stoa.StoreID) error {
	key, err := archive.NewStoreKey()
	if err != nil {
		return err
	}
	sealed, err := key.Seal(s.ring, store)
	if err != nil {
		return err
	}
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO archive_keys (store_id, sealed, created_at) VALUES ($1, $2, $3) ON CONFLICT (store_id) DO NOTHING`, store, sealed, tx.Now)
		return err
	})
}

// SealedKeys names the column that contains encrypted keys, for key rotation.
func SealedKeys() keyrotation.Column {
	return keyrotation.Column{Table: "archive_keys", Key: "store_id", Name: "sealed", Owner: archive.KeyOwner}
}
