package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/app"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/doctor"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/stores"
)

// openMaster opens an existing and migrated master database. It neither creates nor
// migrates one, so that a command that only reads leaves the database as it is.
func (e *Env) openMaster() (*masterdb.DB, error) {
	if err := e.Cfg.Check(); err != nil {
		return nil, fmt.Errorf("configuration:\n%w", err)
	}
	if e.Cfg.MasterDBURL.IsZero() && config.Missing(e.Cfg.MasterURL()[len("sqlite:"):]) {
		return nil, fmt.Errorf("there is no master database in %s yet; 'stoa serve' makes it (another place: --data-dir or MASTER_DB_URL)", e.Cfg.DataDir)
	}
	ctx, cancel := context.WithTimeout(e.Ctx, time.Minute)
	defer cancel()
	master, err := e.Cfg.OpenMasterDB(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := doctor.CheckSchema(ctx, master); err != nil {
		master.Close()
		return nil, fmt.Errorf("the master database's schema: %w (%s)", err, doctor.SchemaRemedy(err))
	}
	return master, nil
}

func note(when bool, text string) string {
	if when {
		return text
	}
	return ""
}

// openApp builds the domains over an existing and migrated master database, like
// openMaster. It serves no requests and runs no jobs.
func (e *Env) openApp(ctx context.Context) (*app.App, error) {
	master, err := e.openMaster()
	if err != nil {
		return nil, err
	}
	master.Close()
	return app.NewApp(ctx, e.Cfg, e.Cfg.Logger(e.Stderr), e.Cfg.PublicURL(e.Cfg.Port))
}

// plain returns an error that has only err's message for people.
func plain(err error) error {
	var known *stoa.Error
	if !errors.As(err, &known) {
		return err
	}
	if len(known.Fields) < 2 {
		return errors.New(known.Message)
	}
	var faults []error
	for _, f := range known.Fields {
		faults = append(faults, fmt.Errorf("%s: %s", f.Field, f.Message))
	}
	return errors.Join(faults...)
}

// withKeys opens the master database and reads the keys.
func (e *Env) withKeys(do func(master *masterdb.DB, encryption, signing *keyring.Ring) error) error {
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	encryption, signing, err := e.Cfg.Rings()
	if err != nil {
		return err
	}
	return do(master, encryption, signing)
}

// withFleet opens the master database and builds the fleet service. With keys the service
// can also connect to the stores' databases.
func (e *Env) withFleet(keys bool, do func(*masterdb.DB, *fleet.Service) error) error {
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	var encryption *keyring.Ring
	if keys {
		if encryption, _, err = e.Cfg.Rings(); err != nil {
			return err
		}
	}
	tenants, err := app.NewTenants(e.Cfg, master, encryption, e.Cfg.Memory(), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	err = do(master, fleet.New(master, tenants, slog.New(slog.DiscardHandler), fleet.Options{}))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.Ctx), e.Cfg.StopTimeout)
	defer cancel()
	return errors.Join(err, tenants.Close(ctx))
}

// storeIDs returns the ids of the named stores.
func (e *Env) storeIDs(master *masterdb.DB, names []string) ([]stoa.StoreID, error) {
	var ids []stoa.StoreID
	for _, name := range names {
		s, err := stores.Find(e.Ctx, master, name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, s.ID)
	}
	return ids, nil
}

// record adds an entry to the audit log, for a command that has no transaction on the
// master database.
func (e *Env) record(master *masterdb.DB, action string, details map[string]string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.Ctx), 10*time.Second)
	defer cancel()
	return master.Tx(ctx, func(tx *masterdb.Tx) error {
		return audit.Record(ctx, tx, e.by, audit.Event{Action: action, Details: details})
	})
}
