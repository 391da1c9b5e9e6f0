package imports

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa/internal/testkit"
)

// open returns a file with that text.
func open(t testing.TB, format Format, text string) *File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "stores."+string(format))
	testkit.Must(t, os.WriteFile(name, []byte(text), 0o600))
	f, err := Open(name, nil, "")
	testkit.Must(t, err)
	t.Cleanup(func() { testkit.Must(t, f.Close()) })
	return f
}

// readAll returns the rows of a file and what ended it.
func readAll(t testing.TB, f *File) (all []row, end error) {
	t.Helper()
	in, err := f.rows()
	testkit.Must(t, err)
	return drain(in)
}

func drain(in *rows) (all []row, end error) {
	for {
		r, err := in.read()
		if errors.Is(err, io.EOF) {
			return all, err
		}
		all = append(all, r)
		if err != nil {
			return all, err
		}
	}
}

// faults returns the faults of rows as text.
func faults(all []row) (texts []string) {
	for _, r := range all {
		for _, f := range r.faults {
			texts = append(texts, strings.TrimSpace(fmt.Sprintf("%d %s", f.Line, f.Column))+": "+f.Message)
		}
	}
	return texts
}

const header = "owner_email,store_slug,store_name"

func TestRows(t *testing.T) {
	t.Parallel()
	want := []row{
		{line: 2, values: map[string]string{ownerEmail: "a@example.com", "store_slug": "a", "store_name": `Ada's "A", one`}},
		{line: 4, values: map[string]string{ownerEmail: "b@example.com", "store_slug": "b", "store_name": "two\nlines"}},
		{line: 6, values: map[string]string{ownerEmail: "c@example.com", "store_slug": "c", "store_name": ""}},
	}
	for _, end := range []string{"\n", "\r\n"} {
		for _, mark := range []string{"", "\ufeff"} {
			text := mark + strings.Join([]string{header, `a@example.com, a ,"Ada's ""A"", one"`, ``, `b@example.com,b,"two`, `lines"`, `"c@example.com","c",""`}, end)
			for _, last := range []string{"", end, end + end} {
				got, err := readAll(t, open(t, CSV, text+last))
				if !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got, cmp.AllowUnexported(row{})); diff != "" {
					t.Errorf("%q (-want +got):\n%s", text+last, diff)
				}
			}
		}
	}
	got, err := readAll(t, open(t, JSONLines, "\ufeff{\"owner_email\":\"a@example.com\", \"adopt\": true, \"engine\": null}\r\n\n{\"store_theme\": {\"a\": 1}, \"store_name\": \"\\u00e9\"}"))
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	want = []row{
		{line: 1, values: map[string]string{ownerEmail: "a@example.com", adoptColumn: "true", engineColumn: ""}},
		{line: 3, values: map[string]string{"store_theme": `{"a": 1}`, "store_name": "é"}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(row{})); diff != "" {
		t.Errorf("JSON Lines (-want +got):\n%s", diff)
	}
}

// TestRowFaults checks that each fault has its line, that the lines after it are read, and
// that no fault quotes a value.
func TestRowFaults(t *testing.T) {
	t.Parallel()
	const good, secret = "a@example.com,a,A", "S3cretValue"
	long := strings.Repeat("x", maxLine)
	for text, want := range map[string][]string{
		"":                                     {"1: is missing"},
		"\xff\xfeo\x00":                        {"1: is not a line of CSV in UTF-8"},
		secret + ",b\n" + good:                 {"1: names no column"},
		"owner_email," + secret:                {"1: the column number 2 is unknown", "1 store_slug: is missing", "1 store_name: is missing"},
		header + ",price,owner_email\n" + good: {`1: the column "price" is unknown`, "1 owner_email: is there twice"},
		header + "\n" + secret + "\n" + good:   {"2: has 1 values, and there are 3 columns"},
		header + "\n\n" + good + ",\xff" + secret + "\n" + good:                   {"3: is not text in UTF-8"},
		header + "\na@example.com,a,A \"" + secret + "\" A\n" + good + "\nx":      {"2: is not a line of CSV", "4: has 1 values"},
		header + "\n" + good + "\na@example.com,a,\"" + secret + "\n" + good:      {"3: is not a line of CSV"},
		header + "\na,b," + long + "\n" + good + "\nx":                            {"2: is longer than 1024 KiB", "4: has 1 values"},
		header + "\na,b,\"" + long + "\n" + good + "\nx":                          {"2: is longer than 1024 KiB", "4: has 1 values"},
		header + "\na,b,\"" + strings.Repeat("line\n", maxLine/4) + "\"\n" + good: {"2: is longer than 1024 KiB"},
	} {
		all, err := readAll(t, open(t, CSV, text))
		got := faults(all)
		ok := len(got) >= len(want)
		for i := range want {
			ok = ok && strings.HasPrefix(got[i], want[i])
		}
		// The lines of a field that was cut off are read as lines of their own.
		if !ok || len(got) > len(want) && !strings.Contains(text, "line\nline") {
			t.Errorf("%.80q: %.300q, %v, want %q", text, got, err, want)
		}
		if strings.Contains(strings.Join(got, " "), secret) {
			t.Errorf("%.80q: a fault quotes a value: %q", text, got)
		}
	}
	for text, want := range map[string]string{
		`[]`: "1: is not a JSON object", `{"owner_email": 1}`: "1 owner_email: must be a text", `{"owner_email": ["` + secret + `"]}`: "1 owner_email: must be a text",
		`{"owner_email": "` + secret: "1: is not a JSON object", `{} ` + secret: "1: is not a JSON object", `{"` + secret + `": ""}`: "1: the field number 1 is unknown",
		`{"price": ""}`: `1: the field "price" is unknown`, `{"owner_email": "a", "owner_email": "b"}`: "1 owner_email: is there twice", secret: "1: is not a JSON object",
		"{\"store_name\": \"\xff\"}": "1: is not text in UTF-8",
	} {
		all, err := readAll(t, open(t, JSONLines, text+"\n{}\n"))
		got := faults(all)
		if len(got) != 1 || !strings.HasPrefix(got[0], want) || len(all) != 2 || !errors.Is(err, io.EOF) {
			t.Errorf("%q: %q of %d rows, %v, want %q", text, got, len(all), err, want)
		}
		if strings.Contains(strings.Join(got, " "), secret) {
			t.Errorf("%q: a fault quotes a value: %q", text, got)
		}
	}
}

// TestLimits checks that a file with too many lines is refused, from a pipe too.
func TestLimits(t *testing.T) {
	t.Parallel()
	text := header + "\n" + strings.Repeat("a@example.com,a,A\n", maxLines)
	all, err := readAll(t, open(t, CSV, text))
	if len(all) != maxLines || !errors.Is(err, io.EOF) || len(faults(all)) > 0 {
		t.Errorf("%d rows, %v", len(all), err)
	}
	f, err := Open("-", strings.NewReader(text+"a@example.com,a,A\nx"), CSV)
	testkit.Must(t, err)
	t.Cleanup(func() { testkit.Must(t, f.Close()) })
	all, err = readAll(t, f)
	if got := faults(all); !errors.Is(err, errUnreadable) || len(got) != 1 || !strings.HasPrefix(got[0], "100002: is the 100001th store of the file") {
		t.Errorf("%d rows, %v: %q", len(all), err, got)
	}
	if _, err := Open("-", strings.NewReader(""), ""); !errors.Is(err, ErrFormat) {
		t.Errorf("stdin without a format: %v", err)
	}
	if _, err := Open(t.TempDir(), nil, CSV); err == nil {
		t.Error("a folder was opened")
	}
	if _, err := spool(strings.NewReader(text), CSV, int64(len(text))-1); err == nil {
		t.Error("a pipe with too much was read")
	}
	small, err := spool(strings.NewReader(text), CSV, int64(len(text)))
	testkit.Must(t, err)
	testkit.Must(t, small.Close())
}

// FuzzRows checks that every file ends, with lines that ascend, and that CSV is read as
// encoding/csv does.
func FuzzRows(f *testing.F) {
	for _, seed := range []string{header + "\na@example.com,a,A\n", header + "\r\n\"a\"\"b\",\"c\r\nd\",e\r\n\r\nx,y,z", "{}\n{\"owner_email\":null}", header + "\n\"", "\ufeff" + header} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, format := range []Format{CSV, JSONLines} {
			all, _ := drain(newRows(strings.NewReader(text), format))
			if !slices.IsSortedFunc(all, func(a, b row) int { return a.line - b.line }) {
				t.Errorf("lines do not ascend: %v", all)
			}
		}
		compareCSV(t, text)
	})
}

// compareCSV reads a valid file with encoding/csv too.
func compareCSV(t *testing.T, body string) {
	t.Helper()
	text := header + "\n" + body
	in := csv.NewReader(strings.NewReader(text))
	in.FieldsPerRecord = 3
	want, err := in.ReadAll()
	if err != nil || !strings.HasPrefix(strings.ToValidUTF8(text, "x"), text) {
		return
	}
	all, err := drain(newRows(strings.NewReader(text), CSV))
	if !errors.Is(err, io.EOF) || len(faults(all)) > 0 {
		t.Fatalf("%q: %v, %q", text, err, faults(all))
	}
	var got [][]string
	for _, r := range all {
		got = append(got, []string{r.values[ownerEmail], r.values["store_slug"], r.values["store_name"]})
	}
	for _, fields := range want {
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
	}
	if diff := cmp.Diff(want[1:], got); diff != "" && len(want)+len(got) > 1 {
		t.Errorf("%q (-encoding/csv +rows):\n%s", text, diff)
	}
}
