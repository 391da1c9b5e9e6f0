package screen

import (
	"bytes"
	"encoding/binary"
)

// mysqlPacket is the packet that is being received. A packet of 2^24-1 bytes,
// which continues in another packet, exceeds the limit of an answer.
// Source: MySQL client/server protocol, "MySQL Packets".
type mysqlPacket struct {
	head [4]byte
	have int // bytes of head

	sequence   byte
	size       int
	left       int // bytes that have not arrived
	outOfOrder bool
	begun      bool // the first byte has arrived
	row        bool

	whole  []byte // the content, if it arrived in one piece
	pieces []byte // otherwise a copy of the content
}

func (k *mysqlPacket) inHeader() bool { return k.have < len(k.head) }

// header takes the bytes of a header from p. It subtracts shift from the
// sequence number in the header.
func (k *mysqlPacket) header(p []byte, shift byte) (n int, complete bool) {
	n = min(len(k.head)-k.have, len(p))
	if k.have+n == len(k.head) {
		p[n-1] -= shift
	}
	copy(k.head[k.have:], p[:n])
	k.have += n
	return n, k.have == len(k.head)
}

// begin checks a complete header.
func (k *mysqlPacket) begin(expected byte) error {
	k.size = int(k.head[0]) | int(k.head[1])<<8 | int(k.head[2])<<16
	k.left, k.sequence = k.size, k.head[3]
	k.outOfOrder = k.sequence != expected
	switch {
	case k.size == 0:
		return &ProtocolError{Rule: "empty packet"}
	case k.size > maxMySQLPacket:
		return &ProtocolError{Rule: "packet is too long"}
	}
	return nil
}

// collect keeps content that is parsed when the packet is complete. It copies
// only content that arrives in several pieces.
func (k *mysqlPacket) collect(p []byte) {
	if len(p) == k.size {
		k.whole = p
		return
	}
	k.pieces = append(k.pieces, p...)
}

func (k *mysqlPacket) content() []byte {
	if k.whole != nil {
		return k.whole
	}
	return k.pieces
}

func (k *mysqlPacket) reset() {
	*k = mysqlPacket{pieces: k.pieces[:0]}
}

// mysqlInteger reads a length-encoded integer at the beginning of p. ok is
// false if the integer is incomplete, is NULL, or has more bytes than it needs.
// Source: MySQL client/server protocol, "Protocol::LengthEncodedInteger".
func mysqlInteger(p []byte) (value uint64, n int, ok bool) {
	if len(p) == 0 {
		return 0, 0, false
	}
	n = mysqlIntegerSize(p[0])
	if n == 0 || len(p) < n {
		return 0, 0, false
	}
	value = mysqlIntegerValue(p[:n])
	return value, n, mysqlIsShortest(value, n)
}

// mysqlIntegerSize returns the number of bytes of an integer whose first byte
// is first, or 0 if no integer begins with that byte.
func mysqlIntegerSize(first byte) int {
	switch {
	case first < 0xfb:
		return 1
	case first == 0xfc:
		return 3
	case first == 0xfd:
		return 4
	case first == 0xfe:
		return 9
	}
	return 0
}

// mysqlIntegerValue reads a complete integer.
func mysqlIntegerValue(p []byte) uint64 {
	switch len(p) {
	case 1:
		return uint64(p[0])
	case 3:
		return uint64(binary.LittleEndian.Uint16(p[1:]))
	case 4:
		return uint64(p[1]) | uint64(p[2])<<8 | uint64(p[3])<<16
	default:
		return binary.LittleEndian.Uint64(p[1:])
	}
}

// mysqlIsShortest reports whether the value needs n bytes.
func mysqlIsShortest(value uint64, n int) bool {
	switch n {
	case 3:
		return value > 250
	case 4:
		return value > 1<<16-1
	case 9:
		return value > 1<<24-1
	}
	return true
}

// mysqlString returns the bytes after a length-encoded string at the beginning
// of p.
func mysqlString(p []byte) (rest []byte, ok bool) {
	length, n, ok := mysqlInteger(p)
	if !ok || length > uint64(len(p)-n) { //nolint:gosec // n bytes of p were read
		return nil, false
	}
	return p[n+int(length):], true //nolint:gosec // it is at most len(p)
}

// isMySQLERR checks an ERR packet: code, and a message with or without a
// SQLSTATE. Source: MySQL client/server protocol, "ERR_Packet".
func isMySQLERR(p []byte) bool {
	return len(p) >= 4 && p[0] == mysqlERR && (p[3] != '#' || len(p) >= 9)
}

// isMySQLEOF checks an EOF packet, which contains warnings and a status.
func isMySQLEOF(p []byte) bool { return len(p) == 5 && p[0] == mysqlEOF }

// mysqlStatus reads the status of an OK packet.
// Source: MySQL client/server protocol, "OK_Packet".
func mysqlStatus(p []byte) (status uint16, ok bool) {
	p = p[1:]
	for range 2 { // affected rows, last id
		_, n, ok := mysqlInteger(p)
		if !ok {
			return 0, false
		}
		p = p[n:]
	}
	if len(p) < 4 { // status, warnings
		return 0, false
	}
	return binary.LittleEndian.Uint16(p), true
}

// mysqlMoreResults is the status bit that announces another result.
const mysqlMoreResults = 0x0008

// mysqlText returns the text before the first NUL of p, and the bytes after the
// NUL.
func mysqlText(p []byte) (text string, rest []byte, ok bool) {
	end := bytes.IndexByte(p, 0)
	if end < 0 {
		return "", nil, false
	}
	return string(p[:end]), p[end+1:], true
}
