package archive

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/bits"
)

// checksum is the checksum of a set of rows: the sum, modulo 2^256, of the SHA-256 of each
// encoded row. It does not depend on the order of the rows, because engines sort texts
// differently. Rows are distinct, because each table has a primary key. It detects faults;
// an archive is protected against changes by its encryption.
type checksum [4]uint64 // the least significant part first

// add adds an encoded row.
func (s *checksum) add(row []byte) {
	sum := sha256.Sum256(row)
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

// tally counts the rows of a table.
type tally struct {
	rows, bytes int64
	sum         checksum
}

func (t *tally) add(row []byte) {
	t.rows++
	t.bytes += int64(len(row))
	t.sum.add(row)
}

func (t *tally) addAll(o tally) {
	t.rows += o.rows
	t.bytes += o.bytes
	t.sum.addAll(o.sum)
}

func (t *tally) summary(table string) Summary {
	return Summary{Table: table, Rows: t.rows, Bytes: t.bytes, Checksum: t.sum.String()}
}
