package imports

import (
	"context"
	"errors"
	"hash/maphash"
	"io"
	"slices"

	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/stores"
)

// batch is how many lines are compared with the master database at a time.
const batch = 500

// checker collects the faults of a file. Its memory grows with the number of owners, stores
// and own databases, not with the length of the lines.
type checker struct {
	*Service
	opts      Options
	seed      maphash.Seed
	owners    map[string]firstOwner // by address
	slugs     map[string]int        // the lines, by slug
	databases map[string]int        // the lines, by record.databaseKey
	pending   []claim               // not compared with the master database yet
	sum       Summary
}

// claim is what a line asks the master database for.
type claim struct {
	line        int
	email, slug string
}

// firstOwner is what the first line of an owner says of them.
type firstOwner struct {
	line       int
	name, hash uint64 // hashes of the values; 0: empty
}

// check reads the whole file. Its error is for what prevented the check.
func (s *Service) check(ctx context.Context, f *File, o Options) (Summary, error) {
	c := &checker{Service: s, opts: o, seed: maphash.MakeSeed(), owners: map[string]firstOwner{}, slugs: map[string]int{}, databases: map[string]int{}}
	in, err := f.rows()
	if err != nil {
		return Summary{}, err
	}
	for {
		r, err := in.read()
		if err == nil {
			err = c.add(ctx, r)
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, errUnreadable):
			c.count(r.faults)
		case !errors.Is(err, io.EOF):
			return Summary{}, err
		}
		err = c.compare(ctx)
		slices.SortStableFunc(c.sum.Faults, func(a, b Fault) int { return a.Line - b.Line })
		return c.sum, err
	}
}

// count adds faults to the summary.
func (c *checker) count(faults []Fault) {
	c.sum.FaultCount += len(faults)
	if room := MaxFaults - len(c.sum.Faults); room > 0 {
		c.sum.Faults = append(c.sum.Faults, faults[:min(room, len(faults))]...)
	}
}

// add checks one row by itself and against the lines before it.
func (c *checker) add(ctx context.Context, r row) error {
	c.sum.Lines++
	rec := c.decode(&r, c.opts.Verified)
	if len(r.faults) == 0 {
		c.checkRepeated(&r, rec)
	}
	if c.count(r.faults); len(r.faults) > 0 {
		return ctx.Err()
	}
	if c.pending = append(c.pending, claim{rec.line, rec.owner.Email, rec.store.Slug}); len(c.pending) < batch {
		return nil
	}
	return c.compare(ctx)
}

// checkRepeated finds what is there twice in the file. An owner may have several stores:
// the first line says everything of them.
func (c *checker) checkRepeated(r *row, rec record) {
	if line, twice := c.slugs[rec.store.Slug]; twice {
		r.fault(storePrefix+"slug", "is the one of line %d", line)
	} else {
		c.slugs[rec.store.Slug] = rec.line
	}
	if key := rec.databaseKey(); key != "" {
		if line, twice := c.databases[key]; twice {
			r.fault(database, "is the one of line %d: give each store a database of its own", line)
		} else {
			c.databases[key] = rec.line
		}
	}
	name, hash := c.hash(rec.owner.Name), c.hash(rec.owner.PasswordHash.Reveal())
	first, known := c.owners[rec.owner.Email]
	if !known {
		c.owners[rec.owner.Email] = firstOwner{rec.line, name, hash}
		return
	}
	const differs = "is not that of line %d, which has the same owner: give the same value, or leave it empty here"
	if name != 0 && name != first.name {
		r.fault(ownerName, differs, first.line)
	}
	if hash != 0 && hash != first.hash {
		r.fault(ownerHash, differs, first.line)
	}
}

// hash returns 0 only for an empty value.
func (c *checker) hash(value string) uint64 {
	if value == "" {
		return 0
	}
	return maphash.String(c.seed, value) | 1
}

// compare finds the pending lines that the master database contradicts.
func (c *checker) compare(ctx context.Context) error {
	pending := c.pending
	c.pending = c.pending[:0]
	emails, slugs := make([]string, len(pending)), make([]string, len(pending))
	for i, p := range pending {
		emails[i], slugs[i] = p.email, p.slug
	}
	users, err := accounts.UsersByEmail(ctx, c.db, emails)
	if err != nil {
		return err
	}
	uses, err := c.registry.SlugUses(ctx, slugs)
	if err != nil {
		return err
	}
	for _, p := range pending {
		r := row{line: p.line}
		user := users[p.email]
		if user.Suspended {
			r.fault(ownerEmail, "is the one of a suspended account: resume it first")
		}
		if use, used := uses[p.slug]; used && !use.OwnedBy(user.ID) {
			r.fault(storePrefix+"slug", "%s", takenText(use))
		}
		c.count(r.faults)
	}
	return nil
}

func takenText(use stores.SlugUse) string {
	if use.Store.IsZero() {
		return "is kept for the owner of the store that had it: choose another"
	}
	return "is the one of another owner's store: choose another"
}
