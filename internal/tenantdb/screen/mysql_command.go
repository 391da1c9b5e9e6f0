package screen

import (
	"bytes"
	"encoding/binary"
)

// mysqlStatement is what the driver keeps of a prepared statement.
type mysqlStatement struct {
	id      uint32
	columns []mysqlColumn
}

// sent implements checker. The driver writes one chunk of a packet at a
// time.
func (s *MySQL) sent(p []byte) {
	if len(p) < 4 {
		s.breakOff("the driver wrote less than a header")
		return
	}
	continues := s.continues
	s.continues = p[0]&p[1]&p[2] == 0xff
	s.next = p[3] + 1
	switch {
	case continues:
	case !s.responded:
		s.respond(p[4:])
	case s.phase != phaseAuth:
		s.begin(p[3], p[4:])
	case p[3] == 0:
		s.breakOff("a command before the session was admitted")
	}
}

// begin records a command.
func (s *MySQL) begin(sequence byte, p []byte) {
	switch {
	case len(p) == 0 || sequence != 0:
		s.breakOff("the driver wrote what is no command")
		return
	case s.phase == phaseEnded || p[0] == mysqlQuit:
		s.phase = phaseEnded
		return
	case s.phase != phaseIdle:
		s.breakOff("a command before the answer to the last one has ended")
		return
	}
	s.shift = 0 // each command restarts the packet numbers
	if s.ready {
		s.count = 0
	}
	s.command, s.results = p[0], 0
	s.streams = s.command == mysqlQuery && bytes.HasPrefix(p[1:], []byte(StreamMark))
	switch s.command {
	case mysqlQuery, mysqlPing:
		s.phase = phaseResult
	case mysqlExecute:
		s.phase, s.statement = phaseResult, statementID(p)
	case mysqlPrepare:
		s.phase = phasePrepared
	case mysqlSendLongData: // no answer follows
	case mysqlCloseStmt: // no answer follows
		s.forget(statementID(p))
	default:
		s.breakOff("an unknown command")
	}
}

func statementID(p []byte) uint32 {
	if len(p) < 5 {
		return 0
	}
	return binary.LittleEndian.Uint32(p[1:])
}

// result checks the first packet of a result.
// Source: MySQL client/server protocol, "COM_QUERY Response".
func (s *MySQL) result(p []byte) error {
	if s.results++; s.results > maxMySQLResults {
		return &ProtocolError{Rule: "too many results"}
	}
	switch {
	case p[0] == mysqlERR:
		return s.refusal(p, phaseIdle)
	case p[0] == mysqlOK:
		return s.endOfResult(p)
	case p[0] == mysqlLocalFile:
		return &ProtocolError{Rule: "request for a local file"}
	case s.command == mysqlPing:
		return &ProtocolError{Rule: "unexpected packet"}
	}
	return s.columnCount(p)
}

// columnCount checks the number of columns and, with cacheMetadata, the byte
// that says whether their definitions follow.
// Source: MariaDB client/server protocol, "Result Set Packets".
func (s *MySQL) columnCount(p []byte) error {
	count, n, ok := mysqlInteger(p)
	p = p[min(n, len(p)):]
	follows := true
	if s.cacheMetadata && ok && len(p) == 1 && p[0] <= 1 {
		follows, p = p[0] == 1, nil
	} else if s.cacheMetadata {
		ok = false
	}
	if !ok || count == 0 || count > maxMySQLColumns || len(p) != 0 {
		return &ProtocolError{Rule: "malformed number of columns"}
	}
	s.columns, s.wanted = s.columns[:0], int(count)
	if follows {
		s.phase = phaseColumns
		return nil
	}
	known := s.find(s.statement)
	if s.command != mysqlExecute || s.results > 1 || known == nil || len(known.columns) != s.wanted {
		return &ProtocolError{Rule: "columns that were never defined"}
	}
	s.columns = append(s.columns, known.columns...)
	s.phase = phaseRows
	if !s.deprecateEOF {
		s.phase = phaseColumnsEnd
	}
	return nil
}

// prepared checks the first packet of the answer to a prepare.
// Source: MySQL client/server protocol, "COM_STMT_PREPARE Response".
func (s *MySQL) prepared(p []byte) error {
	if p[0] == mysqlERR {
		return s.refusal(p, phaseIdle)
	}
	if p[0] != mysqlOK || len(p) < 12 {
		return &ProtocolError{Rule: "malformed answer to a prepare"}
	}
	s.preparing = binary.LittleEndian.Uint32(p[1:])
	s.wanted = int(binary.LittleEndian.Uint16(p[5:]))
	s.params = int(binary.LittleEndian.Uint16(p[7:]))
	s.columns = s.columns[:0]
	if s.wanted > maxMySQLColumns || s.cacheMetadata && s.find(s.preparing) != nil {
		return &ProtocolError{Rule: "malformed answer to a prepare"}
	}
	if s.params > 0 {
		s.phase = phaseParams
		return nil
	}
	s.afterParams()
	return nil
}

// definition checks the definition of a parameter or a column.
func (s *MySQL) definition(p []byte) error {
	column, ok := parseMySQLColumn(p)
	if !ok {
		return &ProtocolError{Rule: "malformed column definition"}
	}
	if s.phase == phaseParams {
		if s.params--; s.params > 0 {
			return nil
		}
		if s.deprecateEOF {
			s.afterParams()
		} else {
			s.phase = phaseParamsEnd
		}
		return nil
	}
	s.columns = append(s.columns, column)
	if len(s.columns) < s.wanted {
		return nil
	}
	if !s.deprecateEOF {
		s.phase = phaseColumnsEnd
		return nil
	}
	return s.afterColumns()
}

func (s *MySQL) afterParams() {
	if s.wanted > 0 {
		s.phase = phaseColumns
		return
	}
	s.remember(s.preparing)
	s.phase = phaseIdle
}

func (s *MySQL) afterColumns() error {
	if s.command == mysqlPrepare {
		s.remember(s.preparing)
		s.phase = phaseIdle
		return nil
	}
	s.phase = phaseRows
	if s.command != mysqlExecute {
		return nil
	}
	for _, c := range s.columns {
		if c.kind == columnUnknown {
			return &ProtocolError{Rule: "unknown type of a column"}
		}
	}
	if s.results == 1 { // the driver keeps the columns of the first result
		s.remember(s.statement)
	}
	return nil
}

// endOfRows checks the packet after the last row.
func (s *MySQL) endOfRows(p []byte) error {
	switch {
	case p[0] == mysqlERR:
		return s.refusal(p, phaseIdle)
	case p[0] != mysqlEOF:
		return &ProtocolError{Rule: "unexpected packet"}
	case s.deprecateEOF:
		return s.endOfResult(p)
	case !isMySQLEOF(p):
		return &ProtocolError{Rule: "malformed end of the rows"}
	}
	s.afterResult(binary.LittleEndian.Uint16(p[3:]))
	return nil
}

// endOfResult checks an OK packet.
func (s *MySQL) endOfResult(p []byte) error {
	status, ok := mysqlStatus(p)
	if !ok || s.command == mysqlPing && status&mysqlMoreResults != 0 {
		return &ProtocolError{Rule: "malformed OK packet"}
	}
	s.afterResult(status)
	return nil
}

func (s *MySQL) afterResult(status uint16) {
	s.phase = phaseIdle
	if status&mysqlMoreResults != 0 {
		s.phase = phaseResult
	}
}

// find returns the stored statement with that id, or nil.
func (s *MySQL) find(id uint32) *mysqlStatement {
	for i := range s.statements {
		if s.statements[i].id == id {
			return &s.statements[i]
		}
	}
	return nil
}

// remember stores the columns of a statement, because the server may omit them
// in later answers.
func (s *MySQL) remember(id uint32) {
	if !s.cacheMetadata {
		return
	}
	known := s.find(id)
	if known == nil {
		n := len(s.statements)
		if n < cap(s.statements) { // reuses the memory of a removed statement
			s.statements = s.statements[:n+1]
		} else {
			s.statements = append(s.statements, mysqlStatement{})
		}
		known = &s.statements[n]
		known.id = id
	}
	known.columns = append(known.columns[:0], s.columns...)
}

func (s *MySQL) forget(id uint32) {
	if known := s.find(id); known != nil {
		last := len(s.statements) - 1
		*known, s.statements[last] = s.statements[last], *known
		s.statements = s.statements[:last]
	}
}
