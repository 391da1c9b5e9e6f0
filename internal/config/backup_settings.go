package config

import (
	"path/filepath"
	"time"

	"filippo.io/age"

	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/keyring"
)

// Backups holds the settings of archives.
type Backups struct {
	BackupStorage    string         `name:"backup-storage" env:"STOA_BACKUP_STORAGE" help:"Where archives of stores and of the master database are kept: a folder, or s3://BUCKET/PREFIX?endpoint=https://HOST&region=REGION. Unless told, the folder backups in the data directory." placeholder:"PLACE" group:"config"`
	BackupAccessKey  string         `name:"backup-access-key" env:"STOA_BACKUP_ACCESS_KEY" help:"Access key of that bucket." placeholder:"KEY" group:"config"`
	BackupSecretKey  keyring.Secret `name:"backup-secret-key" env:"STOA_BACKUP_SECRET_KEY" help:"Secret key of that bucket." placeholder:"KEY" group:"config"`
	BackupRecipients string         `name:"backup-recipients" env:"STOA_BACKUP_RECIPIENTS" help:"Public keys (age1…, as age-keygen prints them) whose identities open every archive too. Keep the identities elsewhere: they are what remains when the encryption keys are lost." placeholder:"KEYS" group:"config"`

	BackupSchedule    string        `name:"backup-schedule" env:"STOA_BACKUP_SCHEDULE" default:"daily=7,weekly=4,monthly=6" help:"How often stores without a schedule of their own are archived, and how many archives are kept: hourly, daily, weekly, monthly; none makes none." placeholder:"LIST" group:"config"`
	KeepDeletedStores time.Duration `name:"backup-keep-deleted" env:"STOA_BACKUP_KEEP_DELETED" default:"720h" help:"How long the archives of a store are kept that was deleted for good; 0s keeps them for ever." placeholder:"TIME" group:"config"`
	StoreSizeLimit    int           `name:"store-size-limit" env:"STOA_STORE_SIZE_LIMIT" default:"64" help:"Most content of a store, in GiB of its rows, that is archived, uploaded or moved; a store's server may send rows without an end." placeholder:"GIB" group:"config"`
}

// ArchiveStorage returns the storage of archives.
func (c *Config) ArchiveStorage() (archive.Storage, error) {
	location := c.BackupStorage
	if location == "" {
		location = filepath.Join(c.DataDir, "backups")
	}
	return archive.OpenStorage(location, c.BackupAccessKey, c.BackupSecretKey)
}

// ArchiveRecipients returns the operator's recipients of archives. There may be none.
func (c *Config) ArchiveRecipients() ([]age.Recipient, error) {
	return archive.ParseRecipients(c.BackupRecipients)
}

// ArchiveSchedule returns the schedule of stores without one of their own.
func (c *Config) ArchiveSchedule() (backups.Schedule, error) {
	return backups.ParseSchedule(c.BackupSchedule)
}

// MaxContent returns the most content of a store that is archived, uploaded or moved, in bytes.
func (c *Config) MaxContent() int64 { return int64(c.StoreSizeLimit) << 30 }

func (c *Config) checkBackups(fault func(name, format string, args ...any)) {
	if _, err := c.ArchiveStorage(); err != nil {
		fault("STOA_BACKUP_STORAGE", "%v", err)
	}
	if _, err := c.ArchiveRecipients(); err != nil {
		fault("STOA_BACKUP_RECIPIENTS", "%v", err)
	}
	if _, err := c.ArchiveSchedule(); err != nil {
		fault("STOA_BACKUP_SCHEDULE", "%v", err)
	}
	if c.StoreSizeLimit < 1 || c.StoreSizeLimit > 1<<20 {
		fault("STOA_STORE_SIZE_LIMIT", "must be between 1 and %d GiB", 1<<20)
	}
	if c.KeepDeletedStores < 0 || c.KeepDeletedStores > 10*365*24*time.Hour {
		fault("STOA_BACKUP_KEEP_DELETED", "must be between 0s and 87600h")
	}
}
