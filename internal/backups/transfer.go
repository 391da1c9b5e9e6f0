package backups

import (
	"context"
	"errors"
	"io"
	"time"

	"filippo.io/age"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
)

// FileKey is what an archive outside the platform is encrypted with: either a passphrase or
// a key of age.
type FileKey struct {
	Passphrase keyring.Secret
	Recipient  string         // a public key such as age1…, for a download
	Identity   keyring.Secret // a secret key such as AGE-SECRET-KEY-1…, for an upload
}

const (
	// minPassphrase is the least length of a passphrase, in bytes: whoever has the file can
	// try passphrases without limit.
	minPassphrase = 12
	maxPassphrase = 1000
	// scryptWork is the logarithm of the work factor that a passphrase costs, and the limit
	// for those of others: about a second and 256 MiB.
	scryptWork = 18
	// uploadTimeout is how long an upload may take before its parts are deleted.
	uploadTimeout = 24 * time.Hour
)

// recipient returns the recipient of a download.
func (k FileKey) recipient(work int) (age.Recipient, error) {
	var faults stoa.Invalid
	switch n := len(k.Passphrase.Reveal()); {
	case (n == 0) == (k.Recipient == ""):
		faults.Add("passphrase", "give either a passphrase or a recipient")
	case n > 0 && (n < minPassphrase || n > maxPassphrase):
		faults.Add("passphrase", "must have between 12 and 1000 bytes")
	case n > 0:
		r, err := age.NewScryptRecipient(k.Passphrase.Reveal())
		if err == nil {
			r.SetWorkFactor(work)
		}
		return r, err
	default:
		if r, err := age.ParseX25519Recipient(k.Recipient); err == nil {
			return r, nil
		}
		faults.Add("recipient", "is no public key such as age1…, as age-keygen prints it")
	}
	return nil, faults.Err()
}

// identity returns the identity that opens an upload.
func (k FileKey) identity() (age.Identity, error) {
	passphrase := k.Passphrase.Reveal()
	if (passphrase == "") == k.Identity.IsZero() {
		var faults stoa.Invalid
		faults.Add("passphrase", "give either the passphrase or the identity")
		return nil, faults.Err()
	}
	if passphrase == "" {
		return archive.ParseIdentity(k.Identity)
	}
	identity, err := age.NewScryptIdentity(passphrase)
	if err == nil {
		identity.SetMaxWorkFactor(scryptWork)
	}
	return identity, err
}

// Download is an archive on its way out of the platform.
type Download struct {
	Backup Backup

	service   *Service
	row       row
	recipient age.Recipient
}

// Download prepares the download of an archive, which is encrypted for the key. It fails
// with not_found and invalid_request.
func (s *Service) Download(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.BackupID, k FileKey) (Download, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.DownloadBackup); err != nil {
		return Download{}, err
	}
	return s.DownloadByOperator(ctx, p, store, id, k)
}

// DownloadByOperator does what Download does, for an operator with access to the master
// database. It checks no permission.
func (s *Service) DownloadByOperator(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.BackupID, k FileKey) (Download, error) {
	recipient, err := k.recipient(s.opts.scryptWork)
	if err != nil {
		return Download{}, err
	}
	r, err := read(ctx, s.db, `b.id = $1 AND b.store_id = $2 AND b.state = 'succeeded'`, id, store)
	if err != nil {
		return Download{}, err
	}
	b, err := r.backup()
	if err != nil {
		return Download{}, err
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.BackupDownloaded, Store: store, Details: map[string]string{"backup": id.String()}})
	})
	return Download{Backup: b, service: s, row: r, recipient: recipient}, err
}

// FileName returns a name for the file.
func (d Download) FileName() string {
	return d.Backup.StoreID.String() + "-" + d.Backup.SnapshotAt.UTC().Format("20060102T150405Z") + ".stoa"
}

// WriteTo writes the archive. What was written is complete only if it returns nil.
func (d Download) WriteTo(ctx context.Context, w io.Writer) error {
	key, err := d.service.key(ctx, d.Backup.StoreID)
	if err != nil {
		return err
	}
	file, err := d.service.storage.Open(ctx, d.row.Name)
	if err != nil {
		return missing(err)
	}
	defer file.Close()
	return archive.Reseal(w, file, []age.Recipient{d.recipient}, key.Identity())
}

// Upload stores an archive that comes from elsewhere, encrypted for this store, and checks
// all of it. An archive of another store or installation can be cloned, not restored. It
// fails with invalid_request, quota_exceeded, and the archive_… codes.
func (s *Service) Upload(ctx context.Context, p authz.Principal, store stoa.StoreID, k FileKey, content io.Reader) (Backup, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ManageBackups); err != nil {
		return Backup{}, err
	}
	return s.UploadByOperator(ctx, p, store, k, content)
}

// UploadByOperator does what Upload does, for an operator with access to the master
// database. It checks no permission.
func (s *Service) UploadByOperator(ctx context.Context, p authz.Principal, store stoa.StoreID, k FileKey, content io.Reader) (Backup, error) {
	identity, err := k.identity()
	if err != nil {
		return Backup{}, err
	}
	id := stoa.NewID[stoa.BackupID]()
	if err := s.recordUpload(ctx, p, store, id); err != nil {
		return Backup{}, err
	}
	err = s.withLease(ctx, backupLeases, id, func(ctx context.Context, owner lease.Owner) error {
		a, err := s.beginAttempt(ctx, id, owner)
		if err != nil || a == nil {
			return err
		}
		m, err := s.receive(ctx, a.row, identity, content)
		if err != nil {
			return err
		}
		return s.db.Tx(ctx, func(tx *masterdb.Tx) error { return s.recordMade(ctx, tx, *a, owner, m) })
	})
	if err != nil {
		dropping, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		dropped := s.db.Tx(dropping, func(tx *masterdb.Tx) error {
			_, err := s.markDeleting(dropping, tx, `id = $1`, id)
			return err
		})
		if dropped != nil {
			s.log.WarnContext(ctx, "failed upload of an archive not deleted; its time ends", "backup", id.String(), "err", dropped)
		}
		return Backup{}, err
	}
	return s.get(ctx, store, id)
}

// recordUpload records an upload that begins. If its process ends, its time is over later.
func (s *Service) recordUpload(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.BackupID) error {
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE stores SET updated_at = updated_at WHERE id = $1`, store); err != nil { // uploads at the same time count each other
			return err
		}
		if err := checkQuota(ctx, tx, store); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO backups (id, store_id, origin, state, created_by, created_at, keep_until) VALUES ($1, $2, 'upload', 'queued', $3, $4, $5)`,
			id, store, creator(p), tx.Now, tx.Now.Add(uploadTimeout))
		if err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.BackupUploaded, Store: store, Details: map[string]string{"backup": id.String()}})
	})
}

// receive stores the archive and reads it back.
func (s *Service) receive(ctx context.Context, r row, identity age.Identity, content io.Reader) (m made, err error) {
	key, err := s.key(ctx, r.StoreID)
	if err != nil {
		return m, err
	}
	if err := s.checkStorage(ctx); err != nil {
		return m, err
	}
	m.stored, err = s.storage.Create(ctx, r.Name, func(w io.Writer) error {
		return archive.Reseal(w, content, key.Recipients(s.opts.Recipients), identity)
	})
	if err != nil {
		return m, err
	}
	err = s.readMade(ctx, r, &m)
	return m, err
}

// readMade reads an archive of the storage whole, and records in m what it contains.
func (s *Service) readMade(ctx context.Context, r row, m *made) error {
	// Beside its rows an archive has a manifest, and a few bytes around each block.
	limits := archive.ReadOptions{MaxBytes: s.opts.MaxContent + s.opts.MaxContent>>10 + 2<<20}
	return s.reading(ctx, r, limits, func(a *archive.Reader) error {
		if err := a.Head.CheckSchema(); err != nil {
			return err
		}
		m.head = a.Head
		for {
			part, err := a.Next()
			switch {
			case errors.Is(err, io.EOF):
				m.total = a.Summary()
				return nil
			case err != nil:
				return err
			case ctx.Err() != nil:
				return ctx.Err()
			case part.End != nil:
				m.tables = append(m.tables, *part.End)
			}
		}
	})
}
