package screen

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// These constants limit what a PostgreSQL server may send, in bytes unless
// another unit is named. The limits are far above what a server sends in answer
// to Stoa's requests. They are low enough that a connection uses little memory,
// however long it lives.
const (
	maxControlBody    = 8 << 10  // of a ParameterStatus and of an authentication message
	maxNotification   = 16 << 10 // of one notification
	maxReport         = 64 << 10 // of one error or notice
	maxDescription    = 1 << 18  // of a description of parameters or of columns
	maxCommandTag     = 256      // of a CommandComplete
	maxColumns        = 1664     // columns of a row: MaxTupleAttributeNumber of PostgreSQL
	maxAsides         = 1 << 14  // messages of these kinds for one request
	maxReported       = 64       // different parameters that a server reports
	maxReportedBytes  = 64 << 10 // of their names and last values together
	maxStatements     = 1024     // statements that are prepared at the same time
	maxDescribedBytes = 1 << 20  // of their descriptions in total, which the driver keeps
	maxParameterTypes = 256      // different parameter types of statements: the driver keeps a plan for each
)

// MaxAsideBytes limits the errors, notices, notifications and parameter reports for one
// request of PostgreSQL's protocol, in bytes.
const MaxAsideBytes = 4 << 20

// maxServerMessage is more than a PostgreSQL server can send in one message, in bytes
// (MaxAllocSize).
const maxServerMessage = 1 << 30

// These constants describe the framing. A message's length includes itself and
// excludes the type byte before it.
const (
	lengthBytes = 4
	headerBytes = 1 + lengthBytes
)

// postgresScreen checks what a PostgreSQL server sends in protocol version 3.0:
// whether a message of that kind is expected, its length, and its parts. It
// checks a row as it arrives and does not keep it. It buffers any other message
// until it is complete. It is safe for concurrent use.
// Source: PostgreSQL manual, "Frontend/Backend Protocol", "Message Formats".
type postgresScreen struct {
	onRequest func()       // called when a request begins, and after each row of a COPY
	slot      *hashingSlot // taken before the driver hashes a password

	mu      sync.Mutex
	header  [headerBytes]byte
	have    int    // bytes of header that have arrived
	missing int    // bytes of the message's body that have not arrived
	partial []byte // of a body that arrives in several parts

	ready    bool // the session has begun
	auth     authentication
	answers  answers
	row      rowReader
	aside    asideCount
	reported reportedParameters
}

// received implements checker.
func (s *postgresScreen) received(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 {
		if s.have < headerBytes {
			n := copy(s.header[s.have:], p)
			s.have += n
			p = p[n:]
			if s.have < headerBytes {
				return nil
			}
			if err := s.begin(); err != nil {
				return err
			}
		}
		n := min(len(p), s.missing)
		s.missing -= n
		if err := s.take(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// begin checks a header before any byte of the message's body is kept.
func (s *postgresScreen) begin() error {
	kind, length := s.header[0], int64(binary.BigEndian.Uint32(s.header[1:]))
	shortest, longest := bodyLimits(kind)
	body := length - lengthBytes
	tooLong := (kind == 'd' || kind == 'D') && body > longest && body < maxServerMessage
	if body < shortest || body > longest && !tooLong {
		return broken(kind, "may not come, or not with this length")
	}
	s.missing = int(body)
	if err := s.accept(kind); err != nil {
		return err
	}
	if tooLong { // only a row that was asked for is content
		return ErrAnswerTooLong
	}
	if kind == 'D' {
		return s.row.begin(s.answers.columns, s.missing)
	}
	return nil
}

// bodyLimits returns the minimum and maximum length of a message's body. No
// length is valid for a message that answers no request of Stoa, such as a function call's
// result.
func bodyLimits(kind byte) (shortest, longest int64) {
	switch kind {
	case 'D': // DataRow
		return 2, MaxAnswer
	case 'd': // CopyData
		return 0, MaxAnswer
	case 'c': // CopyDone
		return 0, 0
	case 'T', 't': // RowDescription, ParameterDescription
		return 2, maxDescription
	case 'C': // CommandComplete
		return 1, maxCommandTag
	case '1', '2', '3', 'n', 'I': // ParseComplete, BindComplete, CloseComplete, NoData, EmptyQueryResponse
		return 0, 0
	case 'Z': // ReadyForQuery
		return 1, 1
	case 'E', 'N': // ErrorResponse, NoticeResponse
		return 1, maxReport
	case 'S': // ParameterStatus
		return 2, maxControlBody
	case 'A': // NotificationResponse
		return 6, maxNotification
	case 'R': // Authentication…
		return 4, maxControlBody
	case 'K': // BackendKeyData: a process and a key of four bytes each
		return 8, 8
	case 'G', 'H': // CopyInResponse, CopyOutResponse: a format, and one for each column
		return 3, 3 + 2*maxColumns
	}
	return 0, -1
}

// accept reports whether a message of this kind is expected.
func (s *postgresScreen) accept(kind byte) error {
	switch kind {
	case 'N', 'S', 'A', 'E':
		if err := s.aside.add(s.missing); err != nil {
			return err
		}
		if kind == 'E' && s.ready {
			s.answers.fail()
		}
		return nil
	}
	if !s.ready {
		return s.auth.accept(kind)
	}
	return s.answers.accept(kind)
}

// take checks the next part of a body, and the message when its body is
// complete.
func (s *postgresScreen) take(p []byte) error {
	kind := s.header[0]
	if kind == 'D' {
		if err := s.row.take(p); err != nil {
			return err
		}
	} else if kind == 'd' {
		p = nil // whoever reads the rows checks them
	} else if s.missing > 0 || len(s.partial) > 0 {
		s.partial = append(s.partial, p...)
		p = s.partial
	}
	if s.missing > 0 {
		return nil
	}
	s.have = 0
	err := s.message(kind, p)
	if s.partial = s.partial[:0]; cap(s.partial) > maxControlBody {
		s.partial = nil
	}
	return err
}

// message checks the body of a complete message.
func (s *postgresScreen) message(kind byte, body []byte) error {
	switch kind {
	case 'R':
		return s.auth.message(body, s.slot)
	case 'Z':
		if body[0] != 'I' && body[0] != 'T' && body[0] != 'E' {
			return broken(kind, "names no known state")
		}
		s.ready = true
	case 'S':
		return s.reported.add(body)
	case 'E', 'N':
		return checkReport(kind, body)
	case 'A':
		return checkNotification(body)
	case 'C':
		return checkCommandTag(body)
	case 'G', 'H':
		return checkCopy(kind, body, s.answers.format)
	case 'd': // the driver keeps none of the rows before
		s.onRequest()
	case 't':
		return s.answers.describeParameters(body)
	case 'T', 'n':
		return s.answers.describeColumns(kind, body)
	}
	return nil
}

// sent implements checker. The driver writes each request in one piece.
func (s *postgresScreen) sent(p []byte) {
	s.slot.release() // the driver has finished hashing before it sends
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready {
		s.auth.sent(p)
		return
	}
	if s.answers.isIdle() && !s.answers.copying {
		s.aside = asideCount{}
		s.onRequest()
	}
	s.answers.request(p)
}

// broken returns an error that names the kind of a message, which is one byte,
// and the rule that the message breaks.
func broken(kind byte, rule string) error {
	return &ProtocolError{Rule: fmt.Sprintf("message %q %s", kind, rule)}
}
