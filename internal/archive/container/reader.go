package container

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/stoahq/stoa"
)

// Reader reads one archive. It checks that the archive was encrypted for one of the
// identities and that nothing was changed or is missing. It is not safe for concurrent use.
type Reader struct {
	format     Format
	src        sourceReader
	compressed countingReader
	zstd       *zstd.Decoder
	plain      int64 // bytes after the decompression
	most       int64 // limit of plain; 0: no limit
	buffer     []byte
}

// NewReader reads the first line of an archive. most limits the bytes of its decompressed
// content; 0 is no limit. Close frees what the reader holds. Errors of src are returned as
// they are; other errors are a *stoa.Error.
func NewReader(src io.Reader, format Format, most int64, identities ...age.Identity) (*Reader, error) {
	r := &Reader{format: format, src: sourceReader{r: src}, most: most}
	content, err := age.Decrypt(&r.src, identities...)
	if err != nil {
		return nil, r.openError(err)
	}
	buffered := bufio.NewReader(content)
	if err := r.readFirstLine(buffered); err != nil {
		return nil, err
	}
	r.compressed.r = buffered
	r.zstd, err = zstd.NewReader(&r.compressed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8*window))
	if err != nil {
		return nil, r.readError(err)
	}
	return r, nil
}

// Close frees what the reader holds. It does not close the reader below.
func (r *Reader) Close() { r.zstd.Close() }

// Bytes returns how many bytes of decompressed content were read or announced so far.
func (r *Reader) Bytes() int64 { return r.plain }

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
		return Damaged("it ends too early", err)
	}
	return Damaged("its content does not match what was encrypted, or it is no archive", err)
}

func (r *Reader) readFirstLine(b *bufio.Reader) error {
	line, err := b.ReadSlice('\n')
	if err != nil {
		return r.readError(err)
	}
	var version int
	if n, err := fmt.Sscanf(string(line), r.format.Name+" %d\n", &version); n != 1 || err != nil || version < 1 || string(line) != fmt.Sprintf("%s %d\n", r.format.Name, version) {
		return Damaged(fmt.Sprintf("it does not begin with %q, as archives of this kind do", r.format.Name), err)
	}
	if version > r.format.Version {
		return stoa.Errorf(stoa.ArchiveTooNew, "The archive has the format %d, and this release of Stoa reads formats up to %d. Upgrade Stoa, then try again.", version, r.format.Version)
	}
	return nil
}

// Record reads the next record. The body is valid until the next call. The first record
// after the last one is an error: see End.
func (r *Reader) Record() (kind byte, body []byte, err error) {
	for {
		if kind, body, err = r.record(); err != nil || kind != PaddingRecord {
			return kind, body, err
		}
	}
}

func (r *Reader) record() (kind byte, body []byte, err error) {
	var head [header]byte
	if _, err := io.ReadFull(r.zstd, head[:]); err != nil {
		return 0, nil, r.readError(err)
	}
	length := int64(binary.BigEndian.Uint32(head[1:]))
	if length > r.format.MaxRecord {
		return 0, nil, Damaged("a part of it is too long", nil)
	}
	r.plain += header + length
	if r.most > 0 && r.plain > r.most {
		return 0, nil, stoa.Errorf(stoa.PayloadTooLarge, "The archive has more than %d MiB of content, which is the limit here.", r.most>>20)
	}
	if err := r.readBody(length); err != nil {
		return 0, nil, err
	}
	if r.plain > FreeExpansion && r.plain/maxExpansion > r.compressed.n {
		return 0, nil, Damaged("its content is more than "+fmt.Sprint(maxExpansion)+" times as long as the file, which no archive of Stoa is", nil)
	}
	return head[0], r.buffer, nil
}

// readBody reads length bytes into the buffer, which grows only as bytes arrive.
func (r *Reader) readBody(length int64) error {
	if cap(r.buffer) > keptBuffer { // after a very long record
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

// End checks that nothing follows the last record.
func (r *Reader) End() error {
	var one [1]byte
	switch n, err := io.ReadFull(r.zstd, one[:]); {
	case n > 0:
		return Damaged("something follows its end", nil)
	case !errors.Is(err, io.EOF):
		return r.readError(err)
	}
	return nil
}

// Strict decodes the JSON of a record that has no members but those of v.
func Strict(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return Damaged("its manifest cannot be read", err)
	}
	if d.InputOffset() != int64(len(body)) {
		return Damaged("its manifest cannot be read", nil)
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
