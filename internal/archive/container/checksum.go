package container

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
)

// Summary describes the rows of a table or, without a table, of an archive.
type Summary struct {
	Table    string `json:"table,omitempty"`
	Rows     int64  `json:"rows"`
	Bytes    int64  `json:"bytes"`    // of the encoded rows
	Checksum string `json:"checksum"` // see checksum
}

// checksum is the checksum of a set of rows: the sum, modulo 2^256, of the SHA-256 of each
// encoded row. It does not depend on the order of the rows, because engines sort texts
// differently. Rows are distinct, because each table has a primary key. It detects faults;
// an archive is protected against changes by its encryption.
type checksum [4]uint64 // the least significant part first

// add adds the SHA-256 of an encoded row.
func (s *checksum) add(sum [sha256.Size]byte) {
	var carry uint64
	for i := range s {
		s[i], carry = bits.Add64(s[i], binary.BigEndian.Uint64(sum[24-8*i:]), carry)
	}
}

// addAll adds all rows of another set.
func (s *checksum) addAll(o checksum) {
	var carry uint64
	for i := range s {
		s[i], carry = bits.Add64(s[i], o[i], carry)
	}
}

func (s *checksum) String() string {
	var b [32]byte
	for i, part := range s {
		binary.BigEndian.PutUint64(b[24-8*i:], part)
	}
	return hex.EncodeToString(b[:])
}

// Tally counts the rows of a table. Its zero value is that of no rows.
type Tally struct {
	rows, bytes int64
	sum         checksum
}

// Add adds an encoded row.
func (t *Tally) Add(row []byte) { t.AddSum(sha256.Sum256(row), int64(len(row))) }

// AddSum adds an encoded row of that many bytes by its SHA-256.
func (t *Tally) AddSum(sum [sha256.Size]byte, bytes int64) {
	t.rows++
	t.bytes += bytes
	t.sum.add(sum)
}

// AddAll adds the rows of another table.
func (t *Tally) AddAll(o Tally) {
	t.rows += o.rows
	t.bytes += o.bytes
	t.sum.addAll(o.sum)
}

// Summary returns the result under the name of a table.
func (t *Tally) Summary(table string) Summary {
	return Summary{Table: table, Rows: t.rows, Bytes: t.bytes, Checksum: t.sum.String()}
}

// Rows returns the number of rows.
func (t *Tally) Rows() int64 { return t.rows }

// Bytes returns the number of bytes of the encoded rows.
func (t *Tally) Bytes() int64 { return t.bytes }

// AddSummary adds the rows of a summary.
func (t *Tally) AddSummary(s Summary) error {
	sum, err := hex.DecodeString(s.Checksum)
	if err != nil || len(sum) != sha256.Size {
		return fmt.Errorf("%q is no checksum", s.Checksum)
	}
	t.AddSum([sha256.Size]byte(sum), s.Bytes)
	t.rows += s.Rows - 1
	return nil
}
