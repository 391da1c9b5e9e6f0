package provisioning

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// talkMySQL returns a server that accepts every log-in and answers the queries that are
// not needed to connect with these packets. Without a greeting it sends a valid one.
func talkMySQL(greeting string, answer ...string) func(net.Conn) {
	if greeting == "" {
		greeting = "\x0a10.11.0-MariaDB\x00\x01\x00\x00\x0012345678\x00\xff\xf7\x2d\x02\x00\xff\x81\x15" + strings.Repeat("\x00", 10) +
			"123456789012\x00mysql_native_password\x00"
	}
	const ok, end = "\x00\x00\x00\x02\x00\x00\x00", "\xfe\x00\x00\x02\x00\x00\x00"
	return func(conn net.Conn) {
		sequence := byte(0)
		send := func(contents ...string) {
			for _, p := range contents {
				head := binary.LittleEndian.AppendUint32(nil, uint32(len(p))|uint32(sequence)<<24)
				_, _ = conn.Write(append(head, p...))
				sequence++
			}
		}
		send(greeting)
		for first := true; ; first = false {
			head := make([]byte, 4)
			if _, err := io.ReadFull(conn, head); err != nil {
				return
			}
			body := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16)
			if _, err := io.ReadFull(conn, body); err != nil {
				return
			}
			sequence = head[3] + 1
			switch {
			case first, body[0] == 0x0e, bytes.HasPrefix(body[1:], []byte("SET ")):
				send(ok)
			case string(body[1:]) == "SELECT CONNECTION_ID()":
				send("\x01", columnOf("\x08"), "\x0242", end)
			default:
				send(answer...)
			}
		}
	}
}

// columnOf returns the definition of a column of that type.
func columnOf(kind string) string {
	return "\x03def\x00\x00\x00\x01a\x00\x0c\x3f\x00\x14\x00\x00\x00" + kind + "\x00\x00\x00\x00\x00"
}

// TestHostileMySQLServer checks that a server that violates its protocol, or answers as
// no database does, causes a fault of the database for its owner, never an internal
// error.
func TestHostileMySQLServer(t *testing.T) {
	t.Parallel()
	const end = "\xfe\x00\x00\x02\x00\x00\x00"
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db).start(t)
		for _, tt := range []struct {
			name, step string
			talk       func(net.Conn)
			code       stoa.Code
		}{
			{"a greeting of one byte", "connect", talkMySQL("\xff"), stoa.DatabaseUnreachable},
			{"a greeting that is cut", "connect", talkMySQL("\x0a8.0.36\x0012"), stoa.DatabaseUnreachable},
			{"2^40 columns", "connect", talkMySQL("", "\xfe\x00\x00\x00\x00\x00\x01\x00\x00"), stoa.DatabaseUnreachable},
			{"2^64-16 columns", "connect", talkMySQL("", "\xfe\xf0\xff\xff\xff\xff\xff\xff\xff"), stoa.DatabaseUnreachable},
			{"a column of six zero bytes", "connect", talkMySQL("", "\x01", "\x00\x00\x00\x00\x00\x00"), stoa.DatabaseUnreachable},
			{"an error of one byte", "connect", talkMySQL("", "\xff"), stoa.DatabaseUnreachable},
			{"a row past its end", "connect", talkMySQL("", "\x01", columnOf("\xfd"), "\x64abc", end), stoa.DatabaseUnreachable},
			{"an error to every query", "connect", talkMySQL("", "\xff\x28\x04#42000no such syntax"), stoa.TenantError},
			{"no rows", "connect", talkMySQL("", "\x01", columnOf("\xfd"), end), stoa.DatabaseContentInvalid},
			{"no result", "connect", talkMySQL("", "\x00\x00\x00\x02\x00\x00\x00"), stoa.DatabaseContentInvalid},
			{"NULL to every query", "connect", talkMySQL("", "\x01", columnOf("\xfd"), "\xfb", end), stoa.DatabaseContentInvalid},
			{"letters for a number", "connect", talkMySQL("", "\x01", columnOf("\x03"), "\x03abc", end), stoa.DatabaseUnreachable},
		} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				host, port := hostileServer(t, tt.talk)
				c := credential.Credentials{
					Kind: credential.KindMySQL, Engine: credential.MySQL, Host: host, Port: port,
					Database: "d", User: "u", Password: keyring.NewSecret("p"), TLS: credential.TLSDisable,
				}
				p, s := b.store(t)
				found, err := b.Test(t.Context(), p, s.ID, &c)
				testkit.Must(t, err)
				if codeOf(found.Fault) != tt.code {
					t.Errorf("the test found %+v", found.Fault)
				}
				b.failed(t, p, b.connect(t, p, s.ID, c), tt.step, tt.code)
				b.succeeded(t, p, b.connect(t, p, s.ID, managedCredentials))
			})
		}
	})
}
