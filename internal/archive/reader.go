package archive

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// Reader reads one archive and checks all of it: that it was encrypted for one of the
// identities, that nothing was changed or is missing, and that every value is in its
// canonical form. It trusts nothing about the archive's author, because anyone can encrypt
// for a recipient. It is not safe for concurrent use.
type Reader struct {
	Head Head

	src        sourceReader
	compressed countingReader
	zstd       *zstd.Decoder
	plain      int64 // bytes after the decompression
	most       int64 // limit of plain; 0: no limit

	table   int
	linked  bool // a record of links of the current table was read
	done    bool
	buffer  []byte
	count   tally
	total   tally
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
	r := &Reader{src: sourceReader{r: src}, most: opts.MaxBytes}
	content, err := age.Decrypt(&r.src, identities...)
	if err != nil {
		return nil, r.openError(err)
	}
	buffered := bufio.NewReader(content)
	if err := r.readMagic(buffered); err != nil {
		return nil, err
	}
	r.compressed.r = buffered
	r.zstd, err = zstd.NewReader(&r.compressed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8*window))
	if err != nil {
		return nil, r.readError(err)
	}
	if err := r.readHead(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close frees what the reader holds. It does not close the reader below.
func (r *Reader) Close() { r.zstd.Close() }

// openError returns the error for a failure of age.Decrypt.
func (r *Reader) openError(err error) error {
	var noMatch *age.NoIdentityMatchError
	if r.src.err == nil && errors.As(err, &noMatch) {
		return stoa.Errorf(stoa.ArchiveKeyUnknown, "None of the keys at hand opens this archive: it was made with other keys, or its first bytes were changed. "+
			"Use the platform that made it, or an identity of the operator that the archive was made for.").WithCause(err)
	}
	return r.readError(err)
}

// readError returns the error for a failure to read, whose cause may be the source.
func (r *Reader) readError(err error) error {
	var known *stoa.Error
	switch {
	case r.src.err != nil:
		return r.src.err
	case errors.As(err, &known):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return damaged("it ends too early", err)
	}
	return damaged("its content does not match what was encrypted, or it is no archive", err)
}

func (r *Reader) readMagic(b *bufio.Reader) error {
	line, err := b.ReadSlice('\n')
	if err != nil {
		return r.readError(err)
	}
	var version int
	if n, err := fmt.Sscanf(string(line), magic, &version); n != 1 || err != nil || version < 1 || string(line) != fmt.Sprintf(magic, version) {
		return damaged("it does not begin as archives of Stoa do", err)
	}
	if version > FormatVersion {
		return stoa.Errorf(stoa.ArchiveTooNew, "The archive has the format %d, and this release of Stoa reads formats up to %d. Upgrade Stoa, then try again.", version, FormatVersion)
	}
	return nil
}

func (r *Reader) readHead() error {
	kind, body, err := r.record()
	if err != nil {
		return err
	}
	if kind != recordHead || len(body) > maxHead {
		return damaged("it has no manifest", nil)
	}
	if err := strict(body, &r.Head); err != nil {
		return err
	}
	return r.Head.check()
}

// strict decodes JSON that has no members but those of v.
func strict(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return damaged("its manifest cannot be read", err)
	}
	if d.InputOffset() != int64(len(body)) {
		return damaged("its manifest cannot be read", nil)
	}
	return nil
}

// Next returns the next part. It returns io.EOF after the last one, when the archive is
// known to be complete and unchanged.
func (r *Reader) Next() (Part, error) {
	for {
		if r.done {
			return Part{}, io.EOF
		}
		kind, body, err := r.record()
		if err != nil {
			return Part{}, err
		}
		switch {
		case kind == recordPadding:
			continue
		case kind == recordEnd && r.table == len(r.Head.Tables):
			return Part{}, r.end(body)
		case r.table == len(r.Head.Tables):
			return Part{}, damaged("it goes on after its last table", nil)
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
			err = damaged("it has a part of an unknown kind", nil)
		}
		return p, err
	}
}

// Summary returns the totals of the archive, after Next has returned io.EOF.
func (r *Reader) Summary() Summary { return r.summary }

func (r *Reader) rows(t Table, body []byte) (rows [][]any, err error) {
	if r.linked {
		return nil, damaged("rows come after links", nil)
	}
	size := len(body)
	for len(body) > 0 {
		values, rest, err := decodeRow(body, t.Columns)
		if err != nil {
			return nil, damaged("a row of the table "+t.Name+" cannot be read", err)
		}
		if err := checkBlock(size, len(rest)); err != nil {
			return nil, err
		}
		r.count.add(body[:len(body)-len(rest)])
		rows, body = append(rows, values), rest
	}
	return rows, nil
}

// checkBlock returns an error if a block of size bytes goes on after a writer would have
// ended it. Decoded rows take more memory than encoded ones.
func checkBlock(size, rest int) error {
	if rest > 0 && size-rest >= blockSize {
		return damaged("a part of it is too long", nil)
	}
	return nil
}

func (r *Reader) links(t Table, body []byte) (links [][]any, err error) {
	columns := t.pick(t.links())
	if len(columns) == 0 {
		return nil, damaged("the table "+t.Name+" has links to itself", nil)
	}
	r.linked = true
	size := len(body)
	for len(body) > 0 {
		values, rest, err := decodeRow(body, columns)
		if err != nil {
			return nil, damaged("a link of the table "+t.Name+" cannot be read", err)
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
	if err := strict(body, &s); err != nil {
		return nil, err
	}
	if s != r.count.summary(t.Name) {
		return nil, damaged("the rows of the table "+t.Name+" are not those that were written", nil)
	}
	r.total.addAll(r.count)
	r.count, r.linked = tally{}, false
	r.table++
	return &s, nil
}

// end checks the last record and that nothing follows it. It returns io.EOF if so.
func (r *Reader) end(body []byte) error {
	if err := strict(body, &r.summary); err != nil {
		return err
	}
	if r.summary != r.total.summary("") {
		return damaged("its totals are not those of its rows", nil)
	}
	var one [1]byte
	switch n, err := io.ReadFull(r.zstd, one[:]); {
	case n > 0:
		return damaged("something follows its end", nil)
	case !errors.Is(err, io.EOF):
		return r.readError(err)
	}
	r.done = true
	return io.EOF
}

// record reads one record. The body is valid until the next call.
func (r *Reader) record() (kind byte, body []byte, err error) {
	var header [recordHeader]byte
	if _, err := io.ReadFull(r.zstd, header[:]); err != nil {
		return 0, nil, r.readError(err)
	}
	length := int64(binary.BigEndian.Uint32(header[1:]))
	if length > maxBlock {
		return 0, nil, damaged("a part of it is too long", nil)
	}
	r.plain += recordHeader + length
	if r.most > 0 && r.plain > r.most {
		return 0, nil, stoa.Errorf(stoa.PayloadTooLarge, "The archive has more than %d MiB of content, which is the limit here.", r.most>>20)
	}
	if err := r.readBody(length); err != nil {
		return 0, nil, err
	}
	if r.plain > freeExpansion && r.plain/maxExpansion > r.compressed.n {
		return 0, nil, damaged("its content is more than "+fmt.Sprint(maxExpansion)+" times as long as the file, which no archive of Stoa is", nil)
	}
	return header[0], r.buffer, nil
}

// readBody reads length bytes into the buffer, which grows only as bytes arrive.
func (r *Reader) readBody(length int64) error {
	if cap(r.buffer) > 2*blockSize { // after a very long row
		r.buffer = nil
	}
	b := bytes.NewBuffer(r.buffer[:0])
	n, err := io.CopyN(b, r.zstd, length)
	r.buffer = b.Bytes()
	if n < length {
		return r.readError(err)
	}
	return nil
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

// sourceReader remembers the first error of the source other than io.EOF.
type sourceReader struct {
	r   io.Reader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && s.err == nil {
		s.err = err
	}
	return n, err
}

// countingReader counts the bytes read from r.
type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
