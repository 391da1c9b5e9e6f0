package screen

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
)

// due is a message, or a group of messages, that a server must send in answer
// to one message of Stoa.
type due byte

const (
	dueParse      due = iota // ParseComplete
	dueParameters            // ParameterDescription of a statement
	dueColumns               // RowDescription or NoData of a statement
	dueBind                  // BindComplete
	duePortal                // RowDescription or NoData of a portal that is to be executed
	dueRows                  // DataRow, any number; then CommandComplete or EmptyQueryResponse
	dueClose                 // CloseComplete
	dueQuery                 // at least one result of a simple query, then ReadyForQuery
	dueCopyIn                // CopyInResponse of COPY … FROM STDIN
	dueCopied                // CommandComplete, once all rows were sent
	dueCopyOut               // CopyOutResponse of COPY … TO STDOUT
	dueCopyData              // CopyData, any number; then CopyDone
	dueReady                 // ReadyForQuery
)

// completes maps each answer without content to its message.
var completes = map[due]byte{dueParse: '1', dueBind: '2', dueClose: '3', dueReady: 'Z', dueCopyIn: 'G', dueCopied: 'C', dueCopyOut: 'H', dueCopyData: 'c'}

// answers compares a server's messages with the requests that the driver has
// sent. The driver relies on their order: it assigns a row to the statement
// that it considers to be running.
type answers struct {
	due     []dueAnswer
	columns int   // number of columns of the rows that may come now; -1 if no row may come
	results int   // of a simple query, so far
	skip    bool  // an error was reported: only ReadyForQuery may come next
	over    bool  // an error was reported after which the driver does not wait for ReadyForQuery
	fault   error // caused by the driver: no message may come
	format  byte  // of the rows of COPY
	copying bool  // the driver sends rows, which end with a message of their own, even after an error

	statements map[string]*statement
	described  int      // bytes of all statements' descriptions
	types      []uint32 // parameter types of all statements, each listed once
}

type dueAnswer struct {
	what due
	of   *statement
}

// statement is a prepared statement.
type statement struct {
	name      string
	columns   int // -1: it returns no rows, or has not been described yet
	described int // bytes of its descriptions
}

func (a *answers) isIdle() bool { return len(a.due) == 0 }

// request records a request: messages that end with a Sync, or one simple
// query.
func (a *answers) request(p []byte) {
	if len(p) > 0 && p[0] == 'X' { // Terminate may be sent at any time
		return
	}
	if a.copying {
		a.copyRows(p)
		return
	}
	if !a.isIdle() {
		a.fault = &ProtocolError{Rule: "a request begins before the last one was answered"}
		return
	}
	a.columns, a.results = -1, 0
	a.each(p, a.note)
}

// copyRows records rows of COPY and their end: CopyData, then CopyDone or CopyFail.
func (a *answers) copyRows(p []byte) {
	a.each(p, func(kind byte, _ []byte) bool {
		sending := a.copying
		a.copying = kind == 'd'
		return sending && (kind == 'd' || kind == 'c' || kind == 'f')
	})
}

// each calls note with each message of the driver.
func (a *answers) each(p []byte, note func(kind byte, body []byte) bool) {
	for len(p) > 0 {
		length := 0
		if len(p) >= headerBytes {
			length = int(binary.BigEndian.Uint32(p[1:]))
		}
		if length < lengthBytes || length >= len(p) || !note(p[0], p[headerBytes:1+length]) {
			a.fault = &ProtocolError{Rule: "a request of an unknown form"}
			return
		}
		p = p[1+length:]
	}
}

// note adds the answers that are due for one message of the driver. It returns
// false for a message that the driver never sends for Stoa.
func (a *answers) note(kind byte, body []byte) bool {
	switch kind {
	case 'P':
		name, _, _ := bytes.Cut(body, []byte{0})
		return a.prepare(string(name))
	case 'D':
		if len(body) > 0 && body[0] == 'P' {
			a.wait(duePortal, nil)
			return true
		}
		of := a.named(body)
		a.wait(dueParameters, of)
		a.wait(dueColumns, of)
		return of != nil
	case 'B':
		_, rest, _ := bytes.Cut(body, []byte{0})
		name, _, _ := bytes.Cut(rest, []byte{0})
		of := a.statements[string(name)]
		a.wait(dueBind, of)
		return of != nil
	case 'E':
		a.wait(dueRows, nil)
	case 'C':
		a.forget(a.named(body))
		a.wait(dueClose, nil)
	case 'S':
		a.wait(dueReady, nil)
	case 'Q':
		if a.format, a.copying = copyInFormat(body); a.copying {
			a.wait(dueCopyIn, nil)
			a.wait(dueCopied, nil)
			a.wait(dueReady, nil)
			return true
		}
		if isCopyOut(body) {
			a.format = binaryFormat
			a.wait(dueCopyOut, nil)
			a.wait(dueCopyData, nil)
			a.wait(dueCopied, nil)
			a.wait(dueReady, nil)
			return true
		}
		a.wait(dueQuery, nil)
	default:
		return false
	}
	return true
}

const (
	copyInBegin     = "COPY "
	copyInEnd       = " FROM STDIN"
	copyInBinaryEnd = " FROM STDIN (FORMAT binary)"
)

// CopyIn returns the statement with which rows are copied into a table, in text or binary
// format. The screen knows this form: no other statement reads rows.
func CopyIn(table string, columns []string, binary bool) string {
	end := copyInEnd
	if binary {
		end = copyInBinaryEnd
	}
	return copyInBegin + table + " (" + strings.Join(columns, ", ") + ")" + end
}

// copyInFormat returns the format of the rows that a simple query reads, if it does.
func copyInFormat(query []byte) (format byte, ok bool) {
	query, ended := bytes.CutSuffix(query, []byte{0})
	switch {
	case !ended || !bytes.HasPrefix(query, []byte(copyInBegin)):
		return 0, false
	case bytes.HasSuffix(query, []byte(copyInBinaryEnd)):
		return binaryFormat, true
	}
	return textFormat, bytes.HasSuffix(query, []byte(copyInEnd))
}

const copyOutBegin, copyOutEnd = "COPY (", ") TO STDOUT (FORMAT binary)"

// CopyOut returns the statement that copies the rows of a query to this process. The screen
// knows this form: no other statement may be answered by a COPY of rows.
func CopyOut(query string) string { return copyOutBegin + query + copyOutEnd }

func isCopyOut(query []byte) bool {
	return bytes.HasPrefix(query, []byte(copyOutBegin)) && bytes.HasSuffix(query, []byte(copyOutEnd+"\x00"))
}

func (a *answers) wait(what due, of *statement) { a.due = append(a.due, dueAnswer{what, of}) }

// prepare records a statement. It replaces an earlier statement of that name.
func (a *answers) prepare(name string) bool {
	a.forget(a.statements[name])
	if a.statements == nil {
		a.statements = map[string]*statement{}
	}
	of := &statement{name: name, columns: -1}
	a.statements[name] = of
	a.wait(dueParse, of)
	return len(a.statements) <= maxStatements
}

// named returns the statement that a Describe or a Close names, or nil if there
// is none.
func (a *answers) named(body []byte) *statement {
	if len(body) < 2 || body[0] != 'S' {
		return nil
	}
	name, _, _ := bytes.Cut(body[1:], []byte{0})
	return a.statements[string(name)]
}

func (a *answers) forget(s *statement) {
	if s != nil && a.statements[s.name] == s {
		a.described -= s.described
		delete(a.statements, s.name)
	}
}

// accept reports whether a message that is part of an answer is expected.
func (a *answers) accept(kind byte) error {
	switch {
	case a.fault != nil:
		return a.fault
	case a.over, a.isIdle():
		return broken(kind, "answers no request")
	case a.skip:
		return a.resume(kind)
	case a.due[0].what == dueCopyData && kind == 'd':
		return nil
	}
	switch what := a.due[0].what; what {
	case dueParameters:
		if kind == 't' {
			return nil
		}
	case dueColumns, duePortal:
		if kind == 'T' || kind == 'n' {
			return nil
		}
	case dueRows:
		return a.acceptRows(kind)
	case dueQuery:
		return a.acceptResults(kind)
	case dueCopied:
		if a.copying { // the driver would wait for the end of this answer forever
			return outOfTurn(kind)
		}
		fallthrough
	default:
		if kind == completes[what] {
			a.complete()
			return nil
		}
	}
	return outOfTurn(kind)
}

func outOfTurn(kind byte) error { return broken(kind, "comes out of turn") }

// complete removes the first answer that is due.
func (a *answers) complete() {
	if a.due[0].what == dueBind {
		a.columns = a.due[0].of.columns
	}
	a.due = slices.Delete(a.due, 0, 1)
}

func (a *answers) acceptRows(kind byte) error {
	switch kind {
	case 'D':
	case 'C', 'I':
		a.columns = -1
		a.complete()
	default:
		return outOfTurn(kind)
	}
	return nil
}

func (a *answers) acceptResults(kind byte) error {
	switch under := a.columns >= 0; {
	case kind == 'T' && !under, kind == 'D' && under:
	case kind == 'C', kind == 'I' && !under:
		a.columns = -1
		a.results++
	case kind == 'Z' && !under && a.results > 0: // without a result, the driver would have none to return
		a.complete()
	default:
		return outOfTurn(kind)
	}
	return nil
}

// fail records that the server has reported an error. The server answers
// nothing more of this request.
func (a *answers) fail() {
	switch {
	case a.isIdle(), a.due[0].what == dueClose: // the driver takes an idle server's error for an answer, and an error after a Close for the end of an answer
		a.over = true
	case !a.skip:
		a.skip = true
		for _, d := range a.due {
			if d.what == dueParse {
				a.forget(d.of)
			}
		}
	}
}

// resume ends the request in which the server has reported an error.
func (a *answers) resume(kind byte) error {
	if kind != 'Z' {
		return outOfTurn(kind)
	}
	a.due, a.skip = a.due[:0], false
	return nil
}

// describeParameters checks a ParameterDescription.
func (a *answers) describeParameters(body []byte) error {
	count := int(binary.BigEndian.Uint16(body))
	if len(body) != 2+4*count {
		return broken('t', "has another length than its parameters")
	}
	for types := body[2:]; len(types) > 0; types = types[4:] {
		if oid := binary.BigEndian.Uint32(types); !slices.Contains(a.types, oid) {
			a.types = append(a.types, oid)
		}
		if len(a.types) > maxParameterTypes {
			return &ProtocolError{Rule: "too many types of parameters"}
		}
	}
	return a.describe(len(body))
}

// describeColumns checks a RowDescription or NoData.
func (a *answers) describeColumns(kind byte, body []byte) error {
	columns := -1
	if kind == 'T' {
		var err error
		if columns, err = countColumns(body); err != nil {
			return err
		}
	}
	switch first := a.due[0]; first.what {
	case dueColumns:
		first.of.columns = columns
		return a.describe(len(body))
	case duePortal:
		a.columns = columns
		a.complete()
	default: // a simple query
		a.columns = columns
	}
	return nil
}

// describe adds the size of a description of the statement that is due.
func (a *answers) describe(size int) error {
	of := a.due[0].of
	of.described += size
	a.described += size
	if a.described > maxDescribedBytes {
		return &ProtocolError{Rule: "too long descriptions of statements"}
	}
	a.complete()
	return nil
}
