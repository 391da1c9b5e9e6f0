package imports

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// row is one line of a file with a store, by the names of the columns.
type row struct {
	line   int
	values map[string]string
	faults []Fault // the values are incomplete then
}

func (r *row) fault(column, format string, args ...any) {
	r.faults = append(r.faults, Fault{r.line, column, fmt.Sprintf(format, args...)})
}

// rows reads a file line by line. It holds one line in memory.
type rows struct {
	format Format
	in     *bufio.Reader
	line   int // of the text that was read last
	next   int // the number of the next line
	text   []byte
	header []string // of CSV
	count  int      // of rows
}

func (f *File) rows() (*rows, error) {
	if _, err := f.f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return newRows(f.f, f.format), nil
}

func newRows(in io.Reader, format Format) *rows {
	r := &rows{format: format, in: bufio.NewReaderSize(in, 64<<10), next: 1}
	if mark, err := r.in.Peek(3); err == nil && string(mark) == "\ufeff" {
		_, _ = r.in.Discard(len(mark)) // it is in the buffer
	}
	return r
}

// errUnreadable ends the check of a file: what follows cannot be understood. The row has
// the fault.
var errUnreadable = errors.New("imports: the rest of the file cannot be read")

// read returns the next row. It fails with io.EOF at the end, and with errUnreadable.
func (r *rows) read() (row, error) {
	if r.format == CSV && r.header == nil {
		if first, err := r.readHeader(); err != nil {
			return first, err
		}
	}
	for {
		tooLong, err := r.readText()
		if err != nil {
			return row{}, err
		}
		out := row{line: r.line}
		switch {
		case tooLong:
			out.fault("", "is longer than %d KiB%s", maxLine>>10, map[Format]string{CSV: ", or a quotation mark is missing"}[r.format])
		case len(bytes.TrimSpace(r.text)) == 0:
			continue
		case !utf8.Valid(r.text):
			out.fault("", "is not text in UTF-8: save the file as UTF-8")
		case r.format == CSV:
			r.parseCSV(&out)
		default:
			parseJSON(r.text, &out)
		}
		if r.count++; r.count > maxLines {
			out.faults = nil
			out.fault("", "is the %dth store of the file, and %d are allowed: split the file. The rest was not read", r.count, maxLines)
			return out, errUnreadable
		}
		return out, nil
	}
}

// readText reads the next line into r.text, without its end. A line of CSV continues
// within quotation marks. Of a line that is too long it returns the beginning, and skips
// the rest.
func (r *rows) readText() (tooLong bool, err error) {
	r.text, r.line = r.text[:0], r.next
	state := csvState{off: r.format != CSV}
	for {
		part, err := r.in.ReadSlice('\n')
		if len(part) == 0 && errors.Is(err, io.EOF) && len(r.text) == 0 {
			return false, io.EOF
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return false, err
		}
		if len(r.text)+len(part) > maxLine {
			tooLong = true
			state.off = true // to the end of this line of text
		}
		if !tooLong {
			r.text = append(r.text, part...)
		}
		state.read(part)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		r.next++
		if errors.Is(err, io.EOF) || !state.quoted() {
			r.text = bytes.TrimSuffix(bytes.TrimSuffix(r.text, []byte("\n")), []byte("\r"))
			return tooLong, nil
		}
	}
}

// csvState follows the quotation marks of a line of CSV (RFC 4180).
type csvState struct {
	off bool // the format has no quotation marks
	at  csvPlace
}

// csvPlace is a place in a line of CSV.
type csvPlace int

const (
	fieldStart csvPlace = iota
	inField
	inQuotes
	afterQuote // the end of the quoted part, or the first of two marks that stand for one
)

// quoted reports whether the end of a line belongs to a field.
func (s *csvState) quoted() bool { return s.at == inQuotes && !s.off }

func (s *csvState) read(text []byte) {
	for _, c := range text {
		switch {
		case s.at == inQuotes && c != '"':
		case s.at == inQuotes:
			s.at = afterQuote
		case c == '"' && s.at != inField:
			s.at = inQuotes
		case c == ',' || c == '\n':
			s.at = fieldStart
		default:
			s.at = inField
		}
	}
}

// columnName matches what is shown of the name of an unknown column: in a file without a
// header its place has a value, which may be secret.
var columnName = regexp.MustCompile(`^[A-Za-z][A-Za-z_ -]{0,39}$`)

func shownColumn(name string, place int) string {
	if columnName.MatchString(name) {
		return fmt.Sprintf("%q", name)
	}
	return fmt.Sprintf("number %d", place+1)
}

// readHeader reads the names of the columns. Its row has the faults.
func (r *rows) readHeader() (row, error) {
	tooLong, err := r.readText()
	if errors.Is(err, io.EOF) {
		out := row{line: 1}
		out.fault("", "is missing: the file is empty")
		return out, errUnreadable
	}
	if err != nil {
		return row{}, err
	}
	out := row{line: r.line}
	names, err := splitCSV(r.text)
	if tooLong || err != nil || !utf8.Valid(r.text) {
		out.fault("", "is not a line of CSV in UTF-8 with the names of the columns")
		return out, errUnreadable
	}
	for i := range names {
		names[i] = strings.TrimSpace(names[i])
	}
	if !slices.ContainsFunc(names, isColumn) {
		out.fault("", "names no column: the first line must have the names, such as %s, with commas between them", strings.Join(requiredColumns, ", "))
		return out, errUnreadable
	}
	for i, name := range names {
		switch {
		case !isColumn(name):
			out.fault("", "the column %s is unknown; there are %s", shownColumn(name, i), strings.Join(allColumns, ", "))
		case slices.Contains(names[:i], name):
			out.fault(name, "is there twice")
		}
	}
	for _, name := range requiredColumns {
		if !slices.Contains(names, name) {
			out.fault(name, "is missing")
		}
	}
	r.header = names
	if len(out.faults) > 0 {
		return out, errUnreadable
	}
	return out, nil
}

func splitCSV(text []byte) ([]string, error) {
	in := csv.NewReader(bytes.NewReader(text))
	in.FieldsPerRecord = -1
	fields, err := in.Read()
	if err != nil {
		return nil, err
	}
	if _, err := in.Read(); !errors.Is(err, io.EOF) {
		return nil, errors.New("imports: more than one line of CSV")
	}
	return fields, nil
}

func (r *rows) parseCSV(out *row) {
	fields, err := splitCSV(r.text)
	switch {
	case err != nil: // the error may quote the line
		out.fault("", "is not a line of CSV: put a value with a comma or a quotation mark between quotation marks, and write each mark within it twice")
		return
	case len(fields) != len(r.header):
		out.fault("", "has %d values, and there are %d columns", len(fields), len(r.header))
		return
	}
	out.values = make(map[string]string, len(fields))
	for i, value := range fields {
		out.values[r.header[i]] = strings.TrimSpace(value)
	}
}

// parseJSON reads an object of texts. A value may also be true, false or null, or an
// object, which is kept as its text.
func parseJSON(text []byte, out *row) {
	in := json.NewDecoder(bytes.NewReader(text))
	malformed := func() { out.fault("", "is not a JSON object, such as {\"owner_email\": \"ada@example.com\", …}") }
	if begin, err := in.Token(); err != nil || begin != json.Delim('{') {
		malformed()
		return
	}
	out.values = map[string]string{}
	for place := 0; in.More(); place++ {
		var value json.RawMessage
		name, err := in.Token()
		if err == nil {
			err = in.Decode(&value)
		}
		column, ok := name.(string)
		if err != nil || !ok {
			malformed()
			return
		}
		_, twice := out.values[column]
		switch text, ok := jsonText(value); {
		case !isColumn(column):
			out.fault("", "the field %s is unknown; there are %s", shownColumn(column, place), strings.Join(allColumns, ", "))
		case twice:
			out.fault(column, "is there twice")
		case !ok:
			out.fault(column, "must be a text, true or false")
		default:
			out.values[column] = strings.TrimSpace(text)
		}
	}
	if _, err := in.Token(); err != nil {
		malformed()
	} else if _, err := in.Token(); !errors.Is(err, io.EOF) {
		malformed()
	}
}

func jsonText(value json.RawMessage) (text string, ok bool) {
	switch value[0] {
	case '"':
		return text, json.Unmarshal(value, &text) == nil
	case 't', 'f', '{':
		return string(value), true
	case 'n':
		return "", true
	}
	return "", false
}
