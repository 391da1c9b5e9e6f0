package tenantdb_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// mysqlServer is a server that the test implements. It behaves correctly except
// for what the fields change.
type mysqlServer struct {
	first    func(*mysqlSession) // sends everything; nil: the other fields apply
	greeting []byte              // content of the greeting; nil: a valid one
	mode     mysqlMode
	tls      *tls.Config
	auth     func(*mysqlSession)              // called after the client's response; nil: OK
	prepare  func(*mysqlSession)              // answers COM_STMT_PREPARE; nil: one parameter, one column INT
	execute  func(*mysqlSession)              // answers COM_STMT_EXECUTE; nil: as query
	id       func(*mysqlSession)              // answers the query for the connection's id; nil: 42
	query    func(*mysqlSession)              // answers COM_QUERY; nil: a row with an INT, 1
	heard    func(command byte, query string) // called for each command, unless nil
}

// mysqlMode is a set of capabilities of the server.
type mysqlMode byte

const (
	withoutEOF  mysqlMode = 1 << iota // CLIENT_DEPRECATE_EOF
	withCaching                       // MariaDB's capability for the columns of prepared statements
)

func (s mysqlServer) goodGreeting(plugin string) []byte {
	low, high, extended := []byte{0xff, 0xf7}, []byte{0xff, 0x80}, make([]byte, 4)
	if s.tls != nil {
		low[1] = 0xff
	}
	if s.mode&withoutEOF != 0 {
		high[1] |= 1
	}
	if s.mode&withCaching != 0 {
		low[0], extended[0] = 0xfe, 1<<4
	}
	p := append([]byte{10}, "10.11.0-MariaDB\x00\x01\x00\x00\x0012345678\x00"...)
	p = append(append(p, low...), 45, 2, 0)
	p = append(append(p, high...), 21, 0, 0, 0, 0, 0, 0)
	p = append(append(p, extended...), "123456789012\x00"...)
	return append(append(p, plugin...), 0)
}

// mysqlSession is one connection to a mysqlServer.
type mysqlSession struct {
	mysqlServer
	net.Conn
	in       *bufio.Reader
	sequence byte   // of the next packet
	response []byte // the client's response to the greeting
	switched bool   // the plugin was switched
	count    int    // number of commands, without those of connecting
}

// bufferedConn returns the bytes that were read ahead first, because a client's
// first TLS record may arrive with its request for TLS.
type bufferedConn struct {
	net.Conn
	in *bufio.Reader
}

func (c bufferedConn) Read(p []byte) (int, error) { return c.in.Read(p) }

// serve is a function for at.
func (s mysqlServer) serve(conn net.Conn) {
	c := &mysqlSession{mysqlServer: s, Conn: conn, in: bufio.NewReader(conn)}
	if s.first != nil {
		s.first(c)
		_, _ = io.Copy(io.Discard, conn)
		return
	}
	if s.greeting == nil {
		s.greeting = s.goodGreeting("mysql_native_password")
	}
	c.send(s.greeting)
	var err error
	if c.response, err = c.receive(); err != nil {
		return
	}
	if s.tls != nil { // the response was the request for TLS
		c.Conn = tls.Server(bufferedConn{conn, c.in}, s.tls)
		c.in = bufio.NewReader(c.Conn)
		if c.response, err = c.receive(); err != nil {
			return
		}
	}
	if s.auth == nil {
		c.send(okPacket(0))
	} else {
		s.auth(c)
	}
	for {
		p, err := c.receive()
		if err != nil {
			return
		}
		c.answer(p[0], string(p[1:]))
	}
}

func (c *mysqlSession) answer(command byte, query string) {
	if c.heard != nil {
		c.heard(command, query)
	}
	answer := c.query
	switch command {
	case 0x18, 0x19: // COM_STMT_SEND_LONG_DATA, COM_STMT_CLOSE
		return
	case 0x0e: // COM_PING
		c.send(okPacket(0))
		return
	case 0x16: // COM_STMT_PREPARE
		if answer = c.prepare; answer == nil {
			answer = func(c *mysqlSession) { c.prepared(7, mysqlColumn(3)) }
		}
	case 0x17: // COM_STMT_EXECUTE
		if c.execute != nil {
			answer = c.execute
		}
	}
	switch {
	case strings.HasPrefix(query, "SET "):
		c.send(okPacket(0))
		return
	case query == "SELECT CONNECTION_ID()":
		if c.id == nil {
			c.result([]byte("\x0242"), mysqlColumn(8))
		} else {
			c.id(c)
		}
		return
	case answer == nil:
		answer = func(c *mysqlSession) { c.result(oneAsText(command), mysqlColumn(3)) }
	}
	c.count++
	answer(c)
}

func oneAsText(command byte) []byte {
	if command == 0x17 {
		return []byte{0, 0, 1, 0, 0, 0}
	}
	return []byte("\x011")
}

// receive returns the content of a packet.
func (c *mysqlSession) receive() ([]byte, error) {
	var whole []byte
	for {
		head := make([]byte, 4)
		if _, err := io.ReadFull(c.in, head); err != nil {
			return nil, err
		}
		n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
		c.sequence = head[3] + 1
		p := make([]byte, n)
		if _, err := io.ReadFull(c.in, p); err != nil {
			return nil, err
		}
		if whole = append(whole, p...); n < 1<<24-1 {
			return whole, nil
		}
	}
}

// send frames packets and sends them in one piece.
func (c *mysqlSession) send(contents ...[]byte) {
	var all []byte
	for _, p := range contents {
		for {
			n := min(len(p), 1<<24-1)
			all = append(all, byte(n), byte(n>>8), byte(n>>16), c.sequence)
			all = append(all, p[:n]...)
			c.sequence++
			if p = p[n:]; n < 1<<24-1 {
				break
			}
		}
	}
	_, _ = c.Write(all)
}

// raw sends bytes without framing.
func (c *mysqlSession) raw(text string) { _, _ = io.WriteString(c.Conn, text) }

// head sends the beginning of a result: everything before its rows.
func (c *mysqlSession) head(columns ...[]byte) {
	count := []byte{byte(len(columns))}
	if c.mode&withCaching != 0 {
		count = append(count, 1)
	}
	c.send(append([][]byte{count}, c.withEnd(columns)...)...)
}

// withEnd adds the EOF that ends definitions.
func (c *mysqlSession) withEnd(columns [][]byte) [][]byte {
	if c.mode&withoutEOF == 0 {
		columns = append(columns, eofPacket(0))
	}
	return columns
}

// end sends the packet that ends rows.
func (c *mysqlSession) end(status byte) { c.send(c.endPacket(status)) }

func (c *mysqlSession) endPacket(status byte) []byte {
	if c.mode&withoutEOF == 0 {
		return eofPacket(status)
	}
	p := okPacket(status)
	p[0] = 0xfe
	return p
}

// result sends one row.
func (c *mysqlSession) result(row []byte, columns ...[]byte) {
	c.head(columns...)
	c.send(row)
	c.end(0)
}

// prepared answers a prepare of a statement with one parameter.
func (c *mysqlSession) prepared(id byte, columns ...[]byte) {
	packets := [][]byte{{0, id, 0, 0, 0, byte(len(columns)), 0, 1, 0, 0, 0, 0}}
	packets = append(packets, c.withEnd([][]byte{mysqlColumn(3)})...)
	if len(columns) > 0 {
		packets = append(packets, c.withEnd(columns)...)
	}
	c.send(packets...)
}

func okPacket(status byte) []byte  { return []byte{0, 0, 0, status, 0, 0, 0} }
func eofPacket(status byte) []byte { return []byte{0xfe, 0, 0, status, 0} }

// mysqlColumn returns the definition of a column named a.
func mysqlColumn(kind byte) []byte {
	return append([]byte("\x03def\x00\x00\x00\x01a\x00"), 12, 63, 0, 20, 0, 0, 0, kind, 0, 0, 0, 0, 0)
}

// mysqlSize encodes a length.
func mysqlSize(n uint64) []byte {
	return binary.LittleEndian.AppendUint64([]byte{0xfe}, n)
}

// playMySQL returns credentials for a server that the test implements.
func playMySQL(t *testing.T, s mysqlServer) credential.Credentials {
	t.Helper()
	mode := credential.TLSDisable
	if s.tls != nil {
		mode = credential.TLSVerify
	}
	return at(t, credential.MySQL, mode, s.serve)
}
