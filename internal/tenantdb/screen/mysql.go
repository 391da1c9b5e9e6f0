package screen

// These constants limit what a MySQL server may send.
const (
	maxMySQLPacket      = MaxAnswer // bytes; less than 2^24-1, so that no packet continues in another one
	maxMySQLControl     = 8 << 10   // bytes of a packet that is not a row: column definition, OK, ERR, EOF, authentication
	maxMySQLColumns     = 4096      // the limit of the servers themselves
	maxMySQLResults     = 64        // results of one command
	maxMySQLAuthPackets = 8         // from the client's first packet until the session is accepted
	maxMySQLConnect     = 64 << 10  // bytes until the connection is established, including its first commands

	// A row takes more memory than it has bytes. These costs are added to the
	// size of an answer, so that its limit also limits the memory.
	mysqlRowCost    = 128
	mysqlColumnCost = 32
)

// These bytes are packet indicators. Source: MySQL client/server protocol,
// "Generic Response Packets".
const (
	mysqlOK        = 0x00
	mysqlMoreData  = 0x01
	mysqlLocalFile = 0xfb
	mysqlEOF       = 0xfe
	mysqlERR       = 0xff
)

// These bytes are the commands that the driver sends. Source: MySQL
// client/server protocol, "Command Phase".
const (
	mysqlQuit         = 0x01
	mysqlQuery        = 0x03
	mysqlPing         = 0x0e
	mysqlPrepare      = 0x16
	mysqlExecute      = 0x17
	mysqlSendLongData = 0x18
	mysqlCloseStmt    = 0x19
)

// mysqlPhase is the state of the connection: it determines what the server may
// send next.
type mysqlPhase uint8

const (
	phaseGreeting   mysqlPhase = iota
	phaseAuth                  // the reply to the client's authentication
	phaseIdle                  // only the ERR of a server that ends the session
	phaseResult                // OK, ERR, or the number of columns
	phasePrepared              // the first packet of the answer to a prepare, or ERR
	phaseParams                // definitions of a prepared statement's parameters
	phaseParamsEnd             // EOF
	phaseColumns               // definitions of columns
	phaseColumnsEnd            // EOF
	phaseRows                  // rows, then EOF, OK or ERR
	phaseEnded                 // nothing: the session has ended
)

// MySQL is the checker of a MySQL or MariaDB connection. It
// follows the conversation packet by packet. It parses small packets as a whole
// and rows as their bytes arrive. It lets through only what go-sql-driver/mysql
// parses without a panic and with bounded memory.
//
// It is not safe for concurrent use: the driver never reads and writes at the
// same time.
type MySQL struct {
	onRow func() // called after each row of a stream

	phase mysqlPhase
	ready bool // the connection is established
	count int  // bytes of the current answer, including the cost of its rows; until ready, of all answers

	packet mysqlPacket
	next   byte // sequence number of the server's next packet
	shift  byte // difference between the server's numbers and the driver's: see Encrypted

	// These fields describe the connection phase.
	offersTLS   bool
	plugin      string // of the authentication, as the server last named it
	authPackets int

	// These fields describe what the client has sent.
	responded     bool // the client has answered the greeting
	continues     bool // the client's next write continues a packet
	deprecateEOF  bool // capability: a result ends with an OK packet
	cacheMetadata bool // capability of MariaDB: a known statement's columns are not sent again
	command       byte
	statement     uint32 // the statement that is being executed
	broken        error  // the error of the next Read: the client sent something invalid

	// These fields describe the current answer.
	streams    bool // each row counts as an answer of its own
	results    int
	params     int // definitions that are still expected
	wanted     int // columns of the result
	columns    []mysqlColumn
	rows       mysqlRows
	statements []mysqlStatement // the prepared statements, with cacheMetadata
	preparing  uint32           // the statement that is being prepared
}

var errMySQLConnect = &ProtocolError{Rule: "too much data before the connection was established"}

// StreamMark begins a query whose rows are read as they arrive: each of them counts as an
// answer of its own.
const StreamMark = "/* stream */ "

// NewMySQL returns the screen of a new connection. onRow is called after each row of a stream.
func NewMySQL(onRow func()) *MySQL { return &MySQL{onRow: onRow} }

// OffersTLS reports whether the server's greeting has offered TLS.
func (s *MySQL) OffersTLS() bool { return s.offersTLS }

// WantsPassword reports whether the server asks for the password itself, which it
// may on an encrypted connection.
func (s *MySQL) WantsPassword() bool { return s.plugin == pluginSHA256 }

// Encrypted records that the request for TLS was sent as a packet of its own, which
// the driver does not know of. Until the first command, the server's sequence numbers
// are therefore higher by one than the driver's.
func (s *MySQL) Encrypted() { s.shift = 1 }

// Shift returns the difference between the server's sequence numbers and the
// driver's.
func (s *MySQL) Shift() byte { return s.shift }

// Established ends the stricter limit that applies until the connection can be
// used.
func (s *MySQL) Established() { s.ready, s.count = true, 0 }

// received implements checker.
func (s *MySQL) received(p []byte) error {
	if s.broken != nil {
		return s.broken
	}
	s.count += len(p)
	for len(p) > 0 {
		switch {
		case s.count > MaxAnswer:
			return ErrAnswerTooLong
		case !s.ready && s.count > maxMySQLConnect:
			return errMySQLConnect
		}
		n, err := s.consume(p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// consume processes the beginning of p: a part of a header or of a packet's
// content.
func (s *MySQL) consume(p []byte) (int, error) {
	if s.packet.inHeader() {
		n, complete := s.packet.header(p, s.shift)
		if !complete {
			return n, nil
		}
		return n, s.beginPacket()
	}
	n := min(len(p), s.packet.left)
	if err := s.content(p[:n]); err != nil {
		return n, err
	}
	if s.packet.left -= n; s.packet.left == 0 {
		return n, s.endPacket()
	}
	return n, nil
}

func (s *MySQL) beginPacket() error {
	if s.phase == phaseEnded {
		return &ProtocolError{Rule: "data after the end of the session"}
	}
	if err := s.packet.begin(s.next); err != nil {
		if s.streams && s.packet.size > maxMySQLPacket {
			err = ErrAnswerTooLong
		}
		return err
	}
	if !s.ready && s.packet.size > maxMySQLConnect {
		return errMySQLConnect
	}
	s.next = s.packet.sequence + 1
	return nil
}

// content checks bytes of a packet.
func (s *MySQL) content(p []byte) error {
	k := &s.packet
	if !k.begun {
		k.begun = true
		row, err := s.isRow(p[0])
		if err != nil {
			return err
		}
		if k.row = row; row {
			s.rows.begin(s.columns, s.command == mysqlExecute)
			s.count += mysqlRowCost + mysqlColumnCost*len(s.columns)
		}
	}
	if k.row {
		return s.rows.feed(p)
	}
	k.collect(p)
	return nil
}

// isRow distinguishes rows from other packets by the packet's first byte.
func (s *MySQL) isRow(first byte) (bool, error) {
	k, row := &s.packet, false
	if s.phase == phaseRows {
		if s.command == mysqlExecute {
			row = first == mysqlOK
		} else { // 0xfe could begin a value of 16 MiB or more, which is too long
			row = first != mysqlERR && first != mysqlEOF
		}
	}
	switch {
	case k.outOfOrder && first != mysqlERR:
		return false, &ProtocolError{Rule: "packet out of order"}
	case !row && k.size > maxMySQLControl:
		return false, &ProtocolError{Rule: "packet is too long for its kind"}
	}
	return row, nil
}

func (s *MySQL) endPacket() error {
	k := &s.packet
	defer k.reset()
	if k.row {
		if s.streams {
			s.count = 0
			s.onRow()
		}
		return s.rows.end()
	}
	return s.control(k.content())
}

// control checks a packet that is not a row and determines what may follow it.
func (s *MySQL) control(p []byte) error {
	switch s.phase {
	case phaseGreeting:
		return s.greeting(p)
	case phaseAuth:
		return s.auth(p)
	case phaseResult:
		return s.result(p)
	case phasePrepared:
		return s.prepared(p)
	case phaseParams, phaseColumns:
		return s.definition(p)
	case phaseParamsEnd, phaseColumnsEnd:
		if !isMySQLEOF(p) {
			return &ProtocolError{Rule: "no end of the column definitions"}
		}
		if s.phase == phaseParamsEnd {
			s.afterParams()
			return nil
		}
		return s.afterColumns()
	case phaseRows:
		return s.endOfRows(p)
	default: // idle
		return s.refusal(p, phaseEnded)
	}
}

// refusal checks an ERR packet. After an ERR packet at an unexpected point, the
// driver closes the connection.
func (s *MySQL) refusal(p []byte, then mysqlPhase) error {
	if !isMySQLERR(p) {
		return &ProtocolError{Rule: "unexpected packet"}
	}
	if s.packet.outOfOrder {
		then = phaseEnded
	}
	s.phase = then
	return nil
}
