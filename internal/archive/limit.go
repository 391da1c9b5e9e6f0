package archive

import "github.com/stoahq/stoa"

// DefaultMaxContent is the most content of a store that is archived, uploaded or moved unless
// the operator decides otherwise, in bytes of rows in their canonical form.
const DefaultMaxContent = 64 << 30

// contentLimit counts what is read from a store's database, whose server may send rows without
// an end.
type contentLimit struct{ most, used int64 } // most 0: no limit

// take counts a row. It fails at the first one too many.
func (l *contentLimit) take(row []byte) error {
	if l.used += int64(len(row)); l.most == 0 || l.used <= l.most {
		return nil
	}
	return stoa.Errorf(stoa.ArchiveRefused, "The rows of the store have more than %d bytes, which is as much as may be archived or moved here. "+
		"Delete what the store does not need, or ask the operator for a higher limit.", l.most)
}
