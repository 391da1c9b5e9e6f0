package tenantdb

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/stoahq/stoa"
)

// selfTestPrefix is the prefix of the name of a SelfTest table. The time at
// which the table was created follows, in seconds since 1970.
const selfTestPrefix = "stoa_selftest_"

// selfTestLeft is the age of a SelfTest table at which its process has
// certainly ended.
const selfTestLeft = time.Hour

// selfTestRow is a row that is written and read. Size is the number of bytes
// that the server stores for Words.
type selfTestRow struct {
	ID       int64
	Words    string `max:"1048576"`
	Amount   int64
	Truth    bool
	Moment   time.Time
	Document json.RawMessage `max:"1048576"`
	Size     int64
}

// selfTestRows returns rows with values that a server setting is known to
// change: text from every plane of Unicode with backslashes, quotes, line ends
// and trailing spaces; numbers at the ends of their range; times in gaps of
// local time, on leap days and in the distant past or future.
func selfTestRows() []selfTestRow {
	planes := strings.Builder{}
	for plane := rune(0); plane <= 16; plane++ {
		planes.WriteString(string([]rune{plane<<16 + 0x2603, plane<<16 + 0x41}))
	}
	texts := []string{
		"", " trailing spaces   ", `\ back\\slash \n \0 \x41 \' \"`, `'quotes' "of" ` + "`every` $kind$ ;-- /* */ # ?", "line\r\nends\rand\ttabs\n",
		planes.String(), "e\u0301 \u00e9 ß SS ﬁ \u200d\ufeff\u00a0İı", "NULL", "0x41", strings.Repeat("Σ\\'\"\r\n\U0001f980 ", 4096),
	}
	numbers := []int64{0, -1 << 63, 1<<63 - 1, 1<<53 + 1, -1}
	moments := []time.Time{
		time.Date(1000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1883, 11, 18, 17, 0, 0, 1000, time.UTC), time.Unix(0, 0).UTC(),
		time.Date(2024, 2, 29, 23, 59, 59, 999999000, time.UTC), time.Date(2026, 3, 8, 2, 30, 0, 123456000, time.UTC),
		time.Date(2026, 3, 29, 2, 30, 0, 0, time.UTC), time.Date(2026, 10, 25, 1, 30, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC),
	}
	var rows []selfTestRow
	for i, text := range texts {
		document, err := json.Marshal(map[string]any{"words": text, "amount": i, "none": nil, "list": []any{true, false, 0.5, `\u0041`}})
		if err != nil {
			panic(err) // the literals above are valid
		}
		rows = append(rows, selfTestRow{ID: int64(i), Words: text, Amount: numbers[i%len(numbers)], Truth: i%2 == 1, Moment: moments[i%len(moments)], Document: document, Size: int64(len(text))})
	}
	return rows
}

// SelfTest checks that the database stores what it confirms. It writes rows to
// its own table, has a transaction rolled back, and reads the rows on another
// connection. It removes the table again. It fails with
// database_setting_refused if it reads something else. It does nothing for an
// embedded database, which no server setting can affect.
func (db *DB) SelfTest(ctx context.Context) (err error) {
	d := db.dialect
	if d.selfTest == "" {
		return nil
	}
	if err := db.sweepSelfTests(ctx); err != nil {
		return err
	}
	table := fmt.Sprintf("%s%d_%s", selfTestPrefix, time.Now().Unix(), strings.ToLower(rand.Text()[:8]))
	if _, err := db.Exec(ctx, fmt.Sprintf(d.selfTest, table)); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
		defer cancel()
		if _, dropErr := db.Exec(ctx, `DROP TABLE `+table); err == nil {
			err = dropErr
		}
	}()
	return db.selfTest(ctx, table)
}

func (db *DB) selfTest(ctx context.Context, table string) error {
	rows := selfTestRows()
	if err := db.writeSelfTest(ctx, table, rows); err != nil {
		return err
	}
	errUndo := errors.New("roll back")
	err := db.Tx(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM `+table); err != nil {
			return err
		}
		return errUndo
	})
	if !errors.Is(err, errUndo) {
		return err
	}
	found, err := db.readElsewhere(ctx, table)
	if err != nil {
		return err
	}
	if err := compareSelfTest(rows, found); err != nil {
		return err
	}
	if _, err := db.Exec(ctx, `DELETE FROM `+table); err != nil {
		return err
	}
	if found, err = db.readElsewhere(ctx, table); err == nil && len(found) > 0 {
		err = notKept("a deletion")
	}
	return err
}

func (db *DB) writeSelfTest(ctx context.Context, table string, rows []selfTestRow) error {
	var args []any
	for _, r := range rows {
		args = append(args, r.ID, r.Words, r.Amount, r.Truth, r.Moment, string(r.Document))
	}
	return db.Tx(ctx, func(tx *Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO `+table+` (id, words, amount, truth, moment, document) VALUES `+
			strings.TrimPrefix(strings.Repeat(`, (?, ?, ?, ?, ?, ?)`, len(rows)), ", "), args...)
		return err
	})
}

// readElsewhere reads the rows on a connection other than the idle one.
func (db *DB) readElsewhere(ctx context.Context, table string) (rows []selfTestRow, err error) {
	busy, err := db.sqlx.Conn(ctx)
	if err != nil {
		return nil, db.wrap(err)
	}
	defer busy.Close() //nolint:errcheck // it returns to the pool
	err = db.Select(ctx, &rows, `SELECT id, words, amount, truth, moment, document, octet_length(words) AS size FROM `+table+` ORDER BY id`)
	return rows, err
}

func compareSelfTest(want, got []selfTestRow) error {
	if len(want) != len(got) {
		return notKept("a change")
	}
	for i, w := range want {
		g := got[i]
		for _, c := range []struct {
			what string
			same bool
		}{
			{"a number", w.ID == g.ID && w.Amount == g.Amount}, {"a boolean", w.Truth == g.Truth}, {"a time", w.Moment.Equal(g.Moment)},
			{"text", w.Words == g.Words && w.Size == g.Size}, {"JSON", sameJSON(w.Document, g.Document)},
		} {
			if !c.same {
				return stoa.Errorf(stoa.DatabaseSettingRefused, "The database does not keep %s as it was written: Stoa wrote a test row and read another. "+
					"Remove the setting of the server, or the proxy before it, that changes values on their way; then try again.", c.what)
			}
		}
	}
	return nil
}

func notKept(what string) error {
	return stoa.Errorf(stoa.DatabaseSettingRefused, "The database confirmed %s that another connection does not see. "+
		"Give the address of the server that takes the changes, without a proxy that sends queries to others, and see that tables keep transactions; then try again.", what)
}

func sameJSON(a, b []byte) bool {
	decode := func(text []byte) (v any, err error) {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		err = d.Decode(&v)
		return v, err
	}
	x, errX := decode(a)
	y, errY := decode(b)
	return errX == nil && errY == nil && reflect.DeepEqual(x, y)
}

// sweepSelfTests drops the tables of self-tests whose process has ended.
func (db *DB) sweepSelfTests(ctx context.Context) error {
	var names []string
	if err := db.Select(ctx, &names, db.dialect.selfTests); err != nil {
		return err
	}
	for _, name := range names {
		moment, suffix, _ := strings.Cut(strings.TrimPrefix(name, selfTestPrefix), "_")
		made, err := strconv.ParseInt(moment, 10, 64)
		if err != nil || strings.Trim(suffix, "abcdefghijklmnopqrstuvwxyz234567") != "" || time.Since(time.Unix(made, 0)) < selfTestLeft {
			continue
		}
		if _, err := db.Exec(ctx, `DROP TABLE IF EXISTS `+name); err != nil {
			return err
		}
	}
	return nil
}
