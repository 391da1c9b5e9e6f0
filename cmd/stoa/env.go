package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/fleet"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/stores"
)

// openMaster opens a master database that is there and up to date. What only
// looks at it should not be what makes or migrates it.
func (e *env) openMaster() (*masterdb.DB, error) {
	if err := e.cfg.check(); err != nil {
		return nil, fmt.Errorf("configuration:\n%w", err)
	}
	if e.cfg.MasterDBURL.IsZero() && missing(e.cfg.masterURL()[len("sqlite:"):]) {
		return nil, fmt.Errorf("there is no master database in %s yet; 'stoa serve' makes it (another place: --data-dir or MASTER_DB_URL)", e.cfg.DataDir)
	}
	ctx, cancel := context.WithTimeout(e.ctx, time.Minute)
	defer cancel()
	master, err := e.cfg.openMasterDB(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := checkSchema(ctx, master); err != nil {
		master.Close()
		return nil, fmt.Errorf("the master database's schema: %w (%s)", err, schemaRemedy(err))
	}
	return master, nil
}

func note(when bool, text string) string {
	if when {
		return text
	}
	return ""
}

// openApp builds the domains over a master database that is there and up to
// date, as openMaster has it. Nothing is served and no job is run.
func (e *env) openApp(ctx context.Context) (*app, error) {
	master, err := e.openMaster()
	if err != nil {
		return nil, err
	}
	master.Close()
	return newApp(ctx, e.cfg, e.cfg.logger(e.stderr), e.cfg.publicURL(e.cfg.Port))
}

// plain returns an error with the message for people only.
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

// withKeys opens the master and reads the keys.
func (e *env) withKeys(do func(master *masterdb.DB, encryption, signing *keyring.Ring) error) error {
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	encryption, signing, err := e.cfg.rings()
	if err != nil {
		return err
	}
	return do(master, encryption, signing)
}

// withFleet opens what a look at the fleet needs, and with keys what it needs
// to reach the stores' databases.
func (e *env) withFleet(keys bool, do func(*masterdb.DB, *fleet.Service) error) error {
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	var encryption *keyring.Ring
	if keys {
		if encryption, _, err = e.cfg.rings(); err != nil {
			return err
		}
	}
	tenants, err := newTenants(e.cfg, master, encryption, e.cfg.memory(), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	err = do(master, fleet.New(master, tenants, slog.New(slog.DiscardHandler), fleet.Options{}))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), e.cfg.StopTimeout)
	defer cancel()
	return errors.Join(err, tenants.Close(ctx))
}

// storeIDs finds the stores that are named.
func (e *env) storeIDs(master *masterdb.DB, names []string) ([]stoa.StoreID, error) {
	var ids []stoa.StoreID
	for _, name := range names {
		s, err := stores.Find(e.ctx, master, name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, s.ID)
	}
	return ids, nil
}

// record adds an entry to the audit log, for a command that has no transaction of
// the master of its own.
func (e *env) record(master *masterdb.DB, action string, details map[string]string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), 10*time.Second)
	defer cancel()
	return master.Tx(ctx, func(tx *masterdb.Tx) error {
		return access.Record(ctx, tx, e.by, access.Event{Action: action, Details: details})
	})
}
