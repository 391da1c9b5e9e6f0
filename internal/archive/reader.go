package archive

import (
	"io"
	"time"

	"filippo.io/age"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive/container"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// Reader reads one archive and checks all of it: that it was encrypted for one of the
// identities, that nothing was changed or is missing, and that every value is in its
// canonical form. It trusts nothing about the archive's author, because anyone can encrypt
// for a recipient. It is not safe for concurrent use.
type Reader struct {
	Head Head

	in      *container.Reader
	table   int
	linked  bool // a record of links of the current table was read
	done    bool
	count   container.Tally
	total   container.Tally
	summary Summary
}

// ReadOptions limit what a Reader accepts.
type ReadOptions struct {
	MaxBytes int64 // of the decompressed content; 0: no limit
}

// Part is a piece of an archive: rows or links of one table, or the end of the table.
type Part struct {
	Table Table
	Rows  [][]any // one value for each of the table's columns
	Links [][]any // the values of the key, then of the references to the table itself
	End   *Summary
}

// NewReader reads the beginning of an archive. Close frees what it holds. Errors of src are
// returned as they are; other errors are a *stoa.Error.
func NewReader(src io.Reader, opts ReadOptions, identities ...age.Identity) (*Reader, error) {
	in, err := container.NewReader(src, format, opts.MaxBytes, identities...)
	if err != nil {
		return nil, err
	}
	r := &Reader{in: in}
	if err := r.readHead(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close frees what the reader holds. It does not close the reader below.
func (r *Reader) Close() { r.in.Close() }

func (r *Reader) readHead() error {
	kind, body, err := r.in.Record()
	if err != nil {
		return err
	}
	if kind != recordHead || len(body) > maxHead {
		return container.Damaged("it has no manifest", nil)
	}
	if err := container.Strict(body, &r.Head); err != nil {
		return err
	}
	return r.Head.check()
}

// Next returns the next part. It returns io.EOF after the last one, when the archive is
// known to be complete and unchanged.
func (r *Reader) Next() (Part, error) {
	if r.done {
		return Part{}, io.EOF
	}
	kind, body, err := r.in.Record()
	if err != nil {
		return Part{}, err
	}
	switch {
	case kind == recordEnd && r.table == len(r.Head.Tables):
		return Part{}, r.end(body)
	case r.table == len(r.Head.Tables):
		return Part{}, container.Damaged("it goes on after its last table", nil)
	}
	p := Part{Table: r.Head.Tables[r.table]}
	switch kind {
	case recordRows:
		p.Rows, err = r.rows(p.Table, body)
	case recordLinks:
		p.Links, err = r.links(p.Table, body)
	case recordTable:
		p.End, err = r.endTable(p.Table, body)
	default:
		err = container.Damaged("it has a part of an unknown kind", nil)
	}
	return p, err
}

// Summary returns the totals of the archive, after Next has returned io.EOF.
func (r *Reader) Summary() Summary { return r.summary }

func (r *Reader) rows(t Table, body []byte) (rows [][]any, err error) {
	if r.linked {
		return nil, container.Damaged("rows come after links", nil)
	}
	size := len(body)
	for len(body) > 0 {
		values, rest, err := decodeRow(body, t.Columns)
		if err != nil {
			return nil, container.Damaged("a row of the table "+t.Name+" cannot be read", err)
		}
		if err := checkBlock(size, len(rest)); err != nil {
			return nil, err
		}
		r.count.Add(body[:len(body)-len(rest)])
		rows, body = append(rows, values), rest
	}
	return rows, nil
}

// checkBlock returns an error if a block of size bytes goes on after a writer would have
// ended it. Decoded rows take more memory than encoded ones.
func checkBlock(size, rest int) error {
	if rest > 0 && size-rest >= blockSize {
		return container.Damaged("a part of it is too long", nil)
	}
	return nil
}

func (r *Reader) links(t Table, body []byte) (links [][]any, err error) {
	columns := t.pick(t.links())
	if len(columns) == 0 {
		return nil, container.Damaged("the table "+t.Name+" has links to itself", nil)
	}
	r.linked = true
	size := len(body)
	for len(body) > 0 {
		values, rest, err := decodeRow(body, columns)
		if err != nil {
			return nil, container.Damaged("a link of the table "+t.Name+" cannot be read", err)
		}
		if err := checkBlock(size, len(rest)); err != nil {
			return nil, err
		}
		links, body = append(links, values), rest
	}
	return links, nil
}

func (r *Reader) endTable(t Table, body []byte) (*Summary, error) {
	var s Summary
	if err := container.Strict(body, &s); err != nil {
		return nil, err
	}
	if s != r.count.Summary(t.Name) {
		return nil, container.Damaged("the rows of the table "+t.Name+" are not those that were written", nil)
	}
	r.total.AddAll(r.count)
	r.count, r.linked = container.Tally{}, false
	r.table++
	return &s, nil
}

// end checks the last record and that nothing follows it. It returns io.EOF if so.
func (r *Reader) end(body []byte) error {
	if err := container.Strict(body, &r.summary); err != nil {
		return err
	}
	if r.summary != r.total.Summary("") {
		return container.Damaged("its totals are not those of its rows", nil)
	}
	if err := r.in.End(); err != nil {
		return err
	}
	r.done = true
	return io.EOF
}

// CheckStore returns an error unless the archive is of the store.
func (h Head) CheckStore(store stoa.StoreID) error {
	if h.Store == store {
		return nil
	}
	return stoa.Errorf(stoa.ArchiveOfOtherStore, "The archive is of the store %s, made on %s, and not of this one. Restore it there, or clone it into a new store.",
		h.Store, h.SnapshotAt.UTC().Format(time.DateOnly))
}

// CheckSchema returns an error if this release does not know the schema of the archive.
func (h Head) CheckSchema() error {
	if latest := tenantdb.LatestVersion(); h.SchemaVersion > latest {
		return stoa.Errorf(stoa.ArchiveTooNew, "The archive is of a store with the schema version %d, and this release of Stoa knows versions up to %d. Upgrade Stoa, then try again.",
			h.SchemaVersion, latest)
	}
	return nil
}
