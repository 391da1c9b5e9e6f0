package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive/container"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

func sampleHead() Head {
	return Head{
		Store: stoa.NewID[stoa.StoreID](), SchemaVersion: tenantdb.LatestVersion(), Engine: credential.SQLite, EngineVersion: "3.51.3", Release: "test",
		SnapshotAt: time.Date(2026, 11, 27, 19, 0, 0, 0, time.UTC), Tables: []Table{everyType, {Name: "empty", Key: []string{"n"}, Columns: []Column{{Name: "n", Type: tenantdb.TypeInteger}}}},
		NotIncluded: []string{"their_table"},
	}
}

func newIdentity(t testing.TB) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	testkit.Must(t, err)
	return id
}

// sample returns an archive of a few rows and their values.
func sample(t testing.TB, head Head, to ...age.Recipient) (file []byte, rows, links [][]any) {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, head, to...)
	testkit.Must(t, err)
	for i := range 5 {
		row := sampleRow(fmt.Sprintf("%s%d", sampleID[:35], i))
		if i > 0 {
			row[1] = rows[0][0]
			links = append(links, []any{row[0], row[1]})
		}
		row[3] = int64(i)
		testkit.Must(t, w.Row(row))
		rows = append(rows, row)
	}
	rows[4][2], rows[4][6] = nil, nil
	for i := range rows[4] {
		if i > 1 {
			rows[4][i] = nil
		}
	}
	rows[4][0] = sampleID[:35] + "9"
	testkit.Must(t, w.Row(rows[4]))
	rows = append(rows[:4:4], sampleRow(sampleID[:35]+"4"), rows[4])
	rows[4][1], rows[4][3] = rows[0][0], int64(4)
	for _, l := range links {
		testkit.Must(t, w.Link(l))
	}
	_, err = w.EndTable()
	testkit.Must(t, err)
	_, err = w.EndTable()
	testkit.Must(t, err)
	_, err = w.Close()
	testkit.Must(t, err)
	return b.Bytes(), rows, links
}

// readAll reads an archive to its end.
func readAll(src io.Reader, opts ReadOptions, id age.Identity) (rows, links [][]any, sum Summary, err error) {
	r, err := NewReader(src, opts, id)
	if err != nil {
		return nil, nil, sum, err
	}
	defer r.Close()
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			return rows, links, r.Summary(), nil
		}
		if err != nil {
			return rows, links, sum, err
		}
		rows, links = append(rows, p.Rows...), append(links, p.Links...)
	}
}

func TestFormatRoundTrip(t *testing.T) {
	t.Parallel()
	store, operator := newIdentity(t), newIdentity(t)
	head := sampleHead()
	file, wantRows, wantLinks := sample(t, head, store.Recipient(), operator.Recipient())
	for _, id := range []age.Identity{store, operator} {
		rows, links, sum, err := readAll(iotest.OneByteReader(bytes.NewReader(file)), ReadOptions{}, id)
		testkit.Must(t, err)
		if diff := cmp.Diff(wantRows, rows); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(wantLinks, links); diff != "" {
			t.Errorf("links (-want +got):\n%s", diff)
		}
		if sum.Rows != int64(len(wantRows)) || sum.Bytes == 0 || sum.Checksum == "" {
			t.Errorf("the summary is %+v", sum)
		}
	}
	r, err := NewReader(bytes.NewReader(file), ReadOptions{}, store)
	testkit.Must(t, err)
	defer r.Close()
	if diff := cmp.Diff(head, r.Head, cmp.AllowUnexported(Column{})); diff != "" {
		t.Errorf("head (-want +got):\n%s", diff)
	}
	testkit.Must(t, r.Head.CheckStore(head.Store))
	testkit.Must(t, r.Head.CheckSchema())
	wantCode(t, r.Head.CheckStore(stoa.NewID[stoa.StoreID]()), stoa.ArchiveOfOtherStore)
	r.Head.SchemaVersion++
	wantCode(t, r.Head.CheckSchema(), stoa.ArchiveTooNew)
}

func wantCode(t *testing.T, err error, codes ...stoa.Code) {
	t.Helper()
	for _, code := range codes {
		if stoa.CodeOf(err) == code {
			return
		}
	}
	t.Errorf("the error is %v, want %v", err, codes)
}

func TestWrongKey(t *testing.T) {
	t.Parallel()
	file, _, _ := sample(t, sampleHead(), newIdentity(t).Recipient())
	_, _, _, err := readAll(bytes.NewReader(file), ReadOptions{}, newIdentity(t))
	wantCode(t, err, stoa.ArchiveKeyUnknown)
}

// TestEveryChangeIsDetected flips each byte, cuts the file at each position, and appends to
// it.
func TestEveryChangeIsDetected(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	file, _, _ := sample(t, sampleHead(), id.Recipient())
	for i := range file {
		changed := bytes.Clone(file)
		changed[i] ^= 1 << rand.IntN(8)
		_, _, _, err := readAll(bytes.NewReader(changed), ReadOptions{}, id)
		if code := stoa.CodeOf(err); code != stoa.ArchiveDamaged && code != stoa.ArchiveKeyUnknown {
			t.Errorf("byte %d of %d flipped: %v", i, len(file), err)
		}
		_, _, _, err = readAll(bytes.NewReader(file[:i]), ReadOptions{}, id)
		if stoa.CodeOf(err) != stoa.ArchiveDamaged {
			t.Errorf("cut after %d of %d bytes: %v", i, len(file), err)
		}
	}
	_, _, _, err := readAll(bytes.NewReader(append(bytes.Clone(file), 0)), ReadOptions{}, id)
	wantCode(t, err, stoa.ArchiveDamaged)
	_, _, _, err = readAll(bytes.NewReader(append(bytes.Clone(file), file...)), ReadOptions{}, id)
	wantCode(t, err, stoa.ArchiveDamaged)
}

// TestSourceErrorsAreKept checks that a failure to read is not taken for damage.
func TestSourceErrorsAreKept(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	file, _, _ := sample(t, sampleHead(), id.Recipient())
	gone := errors.New("gone")
	for i := 0; i < len(file); i += 50 {
		_, _, _, err := readAll(io.MultiReader(bytes.NewReader(file[:i]), iotest.ErrReader(gone)), ReadOptions{}, id)
		if !errors.Is(err, gone) {
			t.Errorf("after %d bytes: %v, want the error of the source", i, err)
		}
	}
}

// forge encrypts records that no writer would make.
func forge(t testing.TB, id *age.X25519Identity, first string, write func(w io.Writer)) []byte {
	t.Helper()
	var b bytes.Buffer
	enc, err := age.Encrypt(&b, id.Recipient())
	testkit.Must(t, err)
	_, err = io.WriteString(enc, first)
	testkit.Must(t, err)
	z, err := zstd.NewWriter(enc)
	testkit.Must(t, err)
	write(z)
	testkit.Must(t, z.Close())
	testkit.Must(t, enc.Close())
	return b.Bytes()
}

func record(kind byte, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)))) + body
}

const (
	firstLine = "stoa archive 1\n"
	goodHead  = `{"store":"018f2b6c-7d1e-7c3a-9f00-000000000001","schema_version":1,"own_version":0,"engine":"sqlite","engine_version":"","release":"","snapshot_at":"2026-01-01T00:00:00Z",` +
		`"tables":[{"name":"t","columns":[{"name":"n","type":"integer"}],"key":["n"]}]}`
	noRows   = `{"table":"t","rows":0,"bytes":0,"checksum":"0000000000000000000000000000000000000000000000000000000000000000"}`
	noTotals = `{"rows":0,"bytes":0,"checksum":"0000000000000000000000000000000000000000000000000000000000000000"}`
)

// TestForgedArchives reads what an author who knows the recipient could make.
func TestForgedArchives(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	good := record('H', goodHead) + record('T', noRows) + record('E', noTotals)
	for name, c := range map[string]struct {
		first, records string
		code           stoa.Code
	}{
		"valid":               {firstLine, good, ""},
		"valid with padding":  {firstLine, record('H', goodHead) + record('P', "abc") + record('T', noRows) + record('P', "") + record('E', noTotals), ""},
		"newer format":        {"stoa archive 2\n", good, stoa.ArchiveTooNew},
		"format 0":            {"stoa archive 0\n", good, stoa.ArchiveDamaged},
		"format +1":           {"stoa archive +1\n", good, stoa.ArchiveDamaged},
		"other content":       {"something else", good, stoa.ArchiveDamaged},
		"no line end":         {strings.Repeat("a", 10_000), good, stoa.ArchiveDamaged},
		"no head":             {firstLine, record('T', noRows), stoa.ArchiveDamaged},
		"nothing":             {firstLine, "", stoa.ArchiveDamaged},
		"no end":              {firstLine, record('H', goodHead) + record('T', noRows), stoa.ArchiveDamaged},
		"end too early":       {firstLine, record('H', goodHead) + record('E', noTotals), stoa.ArchiveDamaged},
		"table after the end": {firstLine, record('H', goodHead) + record('T', noRows) + record('T', noRows), stoa.ArchiveDamaged},
		"record after end":    {firstLine, good + record('P', "abc"), stoa.ArchiveDamaged},
		"unknown kind":        {firstLine, record('H', goodHead) + record('X', ""), stoa.ArchiveDamaged},
		"second head":         {firstLine, record('H', goodHead) + good, stoa.ArchiveDamaged},
		"too long a record":   {firstLine, record('H', goodHead) + "R\xff\xff\xff\xff", stoa.ArchiveDamaged},
		"announced bytes":     {firstLine, record('H', goodHead) + "R\x00\x80\x00\x00abc", stoa.ArchiveDamaged},
		"row not counted":     {firstLine, record('H', goodHead) + record('R', "\x01\x02") + record('T', noRows), stoa.ArchiveDamaged},
		"totals differ":       {firstLine, record('H', goodHead) + record('T', noRows) + record('E', strings.Replace(noTotals, `"rows":0`, `"rows":1`, 1)), stoa.ArchiveDamaged},
		"long integer":        {firstLine, record('H', goodHead) + record('R', "\x01\x82\x00"), stoa.ArchiveDamaged},
		"NULL in a key":       {firstLine, record('H', goodHead) + record('R', "\x00"), stoa.ArchiveDamaged},
		"links without self":  {firstLine, record('H', goodHead) + record('L', "\x01\x02"), stoa.ArchiveDamaged},
		"many rows":           {firstLine, record('H', goodHead) + record('R', strings.Repeat("\x01\x02", blockSize)), stoa.ArchiveDamaged},
		"unknown member":      {firstLine, record('H', strings.Replace(goodHead, `"own`, `"x":1,"own`, 1)), stoa.ArchiveDamaged},
		"SQL as a name":       {firstLine, record('H', strings.Replace(goodHead, `"name":"t"`, `"name":"t; DROP TABLE t"`, 1)), stoa.ArchiveDamaged},
		"SQL as a column":     {firstLine, record('H', strings.Replace(goodHead, `"name":"n"`, `"name":"n) --"`, 1)), stoa.ArchiveDamaged},
		"unknown type":        {firstLine, record('H', strings.Replace(goodHead, `integer`, `float`, 1)), stoa.ArchiveDamaged},
		"unknown key":         {firstLine, record('H', strings.Replace(goodHead, `["n"]`, `["m"]`, 1)), stoa.ArchiveDamaged},
		"no key":              {firstLine, record('H', strings.Replace(goodHead, `["n"]`, `[]`, 1)), stoa.ArchiveDamaged},
		"no store":            {firstLine, record('H', strings.Replace(goodHead, `018f2b6c`, `x`, 1)), stoa.ArchiveDamaged},
		"head without end":    {firstLine, record('H', goodHead[:100]), stoa.ArchiveDamaged},
		"deep head":           {firstLine, record('H', strings.Repeat("[", 100_000)), stoa.ArchiveDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := forge(t, id, c.first, func(w io.Writer) {
				_, err := io.WriteString(w, c.records)
				testkit.Must(t, err)
			})
			_, _, _, err := readAll(bytes.NewReader(file), ReadOptions{}, id)
			wantCode(t, err, c.code)
		})
	}
}

// TestHugeContentIsRefused checks that a small file does not become endless content.
func TestHugeContentIsRefused(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	padding := record('P', strings.Repeat("a", blockSize))
	file := forge(t, id, firstLine, func(w io.Writer) {
		_, err := io.WriteString(w, record('H', goodHead))
		testkit.Must(t, err)
		for range 256 {
			_, err := io.WriteString(w, padding)
			testkit.Must(t, err)
		}
	})
	r, err := NewReader(bytes.NewReader(file), ReadOptions{}, id)
	testkit.Must(t, err)
	defer r.Close()
	_, err = r.Next()
	wantCode(t, err, stoa.ArchiveDamaged)
	if r.in.Bytes() > container.FreeExpansion+2*blockSize {
		t.Errorf("%d bytes of a file of %d bytes were read", r.in.Bytes(), len(file))
	}
	r, err = NewReader(bytes.NewReader(file), ReadOptions{MaxBytes: 10 << 20}, id)
	testkit.Must(t, err)
	defer r.Close()
	_, err = r.Next()
	wantCode(t, err, stoa.PayloadTooLarge)
}

// TestRepetitiveStoreCanBeRead checks that a writer never makes an archive that a reader
// takes for one that was made to exhaust it.
func TestRepetitiveStoreCanBeRead(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	head := sampleHead()
	head.Tables = []Table{{Name: "pages", Key: []string{"n"}, Columns: []Column{{Name: "n", Type: tenantdb.TypeInteger}, {Name: "body", Type: tenantdb.TypeText}}}}
	var b bytes.Buffer
	w, err := NewWriter(&b, head, id.Recipient())
	testkit.Must(t, err)
	body := strings.Repeat("a", 4<<20)
	const rows = 40
	for i := range rows {
		testkit.Must(t, w.Row([]any{int64(i), body}))
	}
	_, err = w.EndTable()
	testkit.Must(t, err)
	want, err := w.Close()
	testkit.Must(t, err)
	got, _, sum, err := readAll(&b, ReadOptions{}, id)
	if err != nil || len(got) != rows || sum != want {
		t.Errorf("%d rows, %+v, %v", len(got), sum, err)
	}
}

func FuzzReader(f *testing.F) {
	id := newIdentity(f)
	for _, seed := range []string{
		record('H', goodHead) + record('T', noRows) + record('E', noTotals),
		record('H', goodHead) + record('R', "\x01\x02\x01\x04") + record('T', noRows),
		record('H', strings.Replace(goodHead, `"key"`, `"key"`, 1)) + record('L', "\x01") + record('P', "x"),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, records []byte) {
		file := forge(t, id, firstLine, func(w io.Writer) {
			_, err := w.Write(records)
			testkit.Must(t, err)
		})
		_, _, _, err := readAll(bytes.NewReader(file), ReadOptions{MaxBytes: 1 << 20}, id)
		if err != nil && stoa.CodeOf(err) == stoa.Internal {
			t.Errorf("an error without a code: %v", err)
		}
	})
}

// FuzzFile reads any file.
func FuzzFile(f *testing.F) {
	id := newIdentity(f)
	file, _, _ := sample(f, sampleHead(), id.Recipient())
	f.Add(file)
	f.Add([]byte("age-encryption.org/v1\n-> X25519 a\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		_, _, _, err := readAll(bytes.NewReader(file), ReadOptions{MaxBytes: 1 << 20}, id)
		if err != nil && stoa.CodeOf(err) == stoa.Internal {
			t.Errorf("an error without a code: %v", err)
		}
	})
}

// FuzzRow checks that each row has one encoding.
func FuzzRow(f *testing.F) {
	b, err := appendRow(nil, everyType.Columns, sampleRow(sampleID))
	testkit.Must(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		values, rest, err := decodeRow(b, everyType.Columns)
		if err != nil {
			return
		}
		again, err := appendRow(nil, everyType.Columns, values)
		if err != nil || !bytes.Equal(again, b[:len(b)-len(rest)]) {
			t.Errorf("%x is read as %v, which is encoded as %x, %v", b, values, again, err)
		}
	})
}
