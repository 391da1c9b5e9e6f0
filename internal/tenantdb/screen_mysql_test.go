package tenantdb_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// mysqlAttack is a case in which a server sends what its protocol does not
// allow.
type mysqlAttack struct {
	name   string
	server mysqlServer
}

// packets returns an answer that consists of these contents, framed.
func packets(contents ...string) func(*mysqlSession) {
	return func(c *mysqlSession) {
		for _, p := range contents {
			c.send([]byte(p))
		}
	}
}

// inTurn does the same as packets, but waits for an answer of the client after
// each content.
func inTurn(contents ...string) func(*mysqlSession) {
	return func(c *mysqlSession) {
		for _, p := range contents {
			c.send([]byte(p))
			_, _ = c.receive()
		}
	}
}

// raw returns an answer that consists of these bytes.
func raw(text string) func(*mysqlSession) { return func(c *mysqlSession) { c.raw(text) } }

// afterHead returns an answer that sends the head of a result with columns of
// these types, and then the packets.
func afterHead(types string, contents ...string) func(*mysqlSession) {
	return func(c *mysqlSession) {
		var columns [][]byte
		for _, kind := range []byte(types) {
			columns = append(columns, mysqlColumn(kind))
		}
		c.head(columns...)
		packets(contents...)(c)
	}
}

func greetingAttacks() (attacks []mysqlAttack) {
	add := func(name string, greeting string) {
		attacks = append(attacks, mysqlAttack{"greeting " + name, mysqlServer{greeting: []byte(greeting)}})
	}
	add("of one byte ff", "\xff")
	add("error of two bytes", "\xff\x10")
	add("error without a message", "\xff\x10\x04")
	add("error with half a state", "\xff\x10\x04#080")
	add("of an old version", "\x0900000000")
	add("without an end of the version", "\x0a"+strings.Repeat("8", 100))
	good := string(mysqlServer{}.goodGreeting("mysql_native_password"))
	for _, n := range []int{1, 2, 17, 18, 25, 30, 31, 32, 34, 40, 50, 59} { // offsets at which a parser stops
		add(fmt.Sprintf("cut after %d bytes", n), good[:n])
	}
	add("with a long plugin", good[:len(good)-1]+strings.Repeat("p", 100))
	add("too long", good+strings.Repeat("p", 9000))
	for name, text := range map[string]string{
		"header of 16 MiB": "\xff\xff\xff\x00\x0a", "empty": "\x00\x00\x00\x00", "out of order": "\x02\x00\x00\x05\x0a8",
	} {
		attacks = append(attacks, mysqlAttack{"greeting " + name, mysqlServer{first: raw(text)}})
	}
	return attacks
}

func authAttacks(t *testing.T) (attacks []mysqlAttack) {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	testkit.Must(t, err)
	der, err := x509.MarshalPKIXPublicKey(public)
	testkit.Must(t, err)
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	for name, answer := range map[string]func(*mysqlSession){
		"error of one byte":           packets("\xff"),
		"OK of one byte":              packets("\x00"),
		"OK without a status":         packets("\x00\x00\x00\x02"),
		"OK with more results":        packets("\x00\x00\x00\x08\x00\x00\x00"),
		"OK with endless numbers":     packets("\x00\xfe\xff"),
		"unknown":                     packets("\x42abc"),
		"old switch":                  packets("\xfe"),
		"switch without an end":       packets("\xfemysql_native_password"),
		"switch with a short nonce":   packets("\xfemysql_native_password\x00short\x00"),
		"switch without a nonce":      packets("\xfemysql_native_password\x00"),
		"switch of a long plugin":     packets("\xfe" + strings.Repeat("p", 100) + "\x00"),
		"key that is none":            inTurn("\xfesha256_password\x00"+strings.Repeat("n", 20)+"\x00", "\x01abc"),
		"key of another kind":         inTurn("\xfesha256_password\x00"+strings.Repeat("n", 20)+"\x00", "\x01"+key),
		"key of caching_sha2":         inTurn("\xfecaching_sha2_password\x00"+strings.Repeat("n", 20)+"\x00", "\x01\x04", "\x01"+key),
		"packet out of order":         raw("\x07\x00\x00\x09\x00\x00\x00\x02\x00\x00\x00"),
		"packet of 16 MiB":            raw("\xff\xff\xff\x02\x01"),
		"empty packet":                raw("\x00\x00\x00\x02"),
		"two packets after admission": packets("\x00\x00\x00\x02\x00\x00\x00", "\x00\x00\x00\x02\x00\x00\x00"),
		"data of no plugin":           packets("\x01\x03", "\x00\x00\x00\x02\x00\x00\x00"),
		"rounds without end": func(c *mysqlSession) {
			c.switchTo("caching_sha2_password")
			packets(slices.Repeat([]string{"\x01\x03"}, 100)...)(c)
		},
	} {
		attacks = append(attacks, mysqlAttack{"authentication " + name, mysqlServer{auth: answer}})
	}
	return attacks
}

func resultAttacks() (attacks []mysqlAttack) {
	add := func(name string, answer func(*mysqlSession)) {
		attacks = append(attacks, mysqlAttack{"result " + name, mysqlServer{query: answer}})
	}
	add("of 2^40 columns", packets(string(mysqlSize(1<<40))))
	add("of 2^64-16 columns", packets(string(mysqlSize(1<<64-16))))
	add("of 2^63 columns", packets(string(mysqlSize(1<<63))))
	add("of 4097 columns", packets("\xfc\x01\x10"))
	add("of half a number", packets("\xfc\x01"))
	add("of a long number", packets("\xfc\x01\x00"))
	add("of a number and more", packets("\x01\x00"))
	add("that wants a file", packets("\xfb/etc/passwd"))
	add("that is empty", raw("\x00\x00\x00\x01"))
	add("error of one byte", packets("\xff"))
	add("error without a message", packets("\xff\x10\x04"))
	add("error with half a state", packets("\xff\x10\x04#080"))
	add("OK of one byte", packets("\x00"))
	add("OK without a status", packets("\x00\x00\x00\x02"))
	add("out of order", raw("\x07\x00\x00\x09\x00\x00\x00\x02\x00\x00\x00"))
	add("without end", func(c *mysqlSession) {
		for range 100 {
			c.send(okPacket(8))
		}
	})
	add("head of 16 MiB", raw("\xff\xff\xff\x01\x01"))
	add("and another one", packets("\x00\x00\x00\x02\x00\x00\x00", "\x00\x00\x00\x02\x00\x00\x00"))
	definition := string(mysqlColumn(3))
	for _, n := range []int{1, 4, 8, 9, 10, 12, 16, 17, 18, 19, 20, 22} {
		add(fmt.Sprintf("column cut after %d bytes", n), packets("\x01", definition[:n]))
	}
	add("column of six zero bytes", packets("\x01", "\x00\x00\x00\x00\x00\x00"))
	add("column of NULLs", packets("\x01", strings.Repeat("\xfb", 6)))
	add("column of 2^63 bytes", packets("\x01", string(mysqlSize(1<<63))+definition))
	add("column of an error", packets("\x01", "\xff\x10\x04"+strings.Repeat("e", 300)))
	add("column too long", packets("\x01", "\xfc\x00\x70"+strings.Repeat("d", 0x7000)+definition))
	add("columns without an end", packets("\x01", definition, "\x00"))
	for name, id := range map[string]func(*mysqlSession){
		"without end": func(c *mysqlSession) {
			c.head(mysqlColumn(8))
			for range 1000 {
				c.send(append([]byte{0xfc, 0xff, 0x01}, bytes.Repeat([]byte("1"), 0x1ff)...))
			}
		},
		"of 16 MiB": func(c *mysqlSession) {
			c.head(mysqlColumn(0xfd))
			c.raw("\x00\x00\xff" + string([]byte{c.sequence}) + "\xfd")
		},
		"of two columns": afterHead("\x08\x08", "\x011\x011", "\xfe\x00\x00\x00\x00\x00\x00"),
	} {
		attacks = append(attacks, mysqlAttack{"connection id " + name, mysqlServer{id: id}})
	}
	return attacks
}

func rowAttacks() (attacks []mysqlAttack) {
	add := func(name, types string, row string) {
		attacks = append(attacks, mysqlAttack{"row " + name, mysqlServer{query: afterHead(types, row)}})
	}
	add("past its end", "\xfd", "\x05abc")
	add("of 2^63 bytes", "\xfd", string(mysqlSize(1<<63))+"abc")
	add("of 2^64-16 bytes", "\xfd", string(mysqlSize(1<<64-16))+strings.Repeat("x", 40))
	add("of half a length", "\xfd", "\xfc\x01")
	add("with an impossible length", "\x03\xfd", "\x011\xff")
	add("of a long length", "\xfd", "\xfd\x03\x00\x00abc")
	add("too short", "\xfd\xfd", "\x01a")
	add("too long", "\xfd", "\x01a\x01b")
	add("long number", "\x03", "\xfc\x00\x04"+strings.Repeat("1", 1024))
	add("error of one byte", "\xfd", "\xff")
	add("error without a message", "\xfd", "\xff\x10\x04")
	add("of no bytes", "\xfd", "")
	add("end of one byte", "\xfd", "\xfe")
	add("end of four bytes", "\xfd", "\xfe\x00\x00\x02")
	add("end that is long", "\xfd", "\xfe"+strings.Repeat("\x00", 9000))
	add("number of letters", "\x03", "\x03abc")
	add("date of letters", "\x0c", "\x03abc")
	attacks = append(attacks, mysqlAttack{"row after the end", mysqlServer{query: func(c *mysqlSession) {
		c.head(mysqlColumn(3))
		c.send([]byte("\x011"), c.endPacket(0), []byte("\x011"))
	}}})
	return attacks
}

func preparedAttacks() (attacks []mysqlAttack) {
	prepare := func(name string, answer func(*mysqlSession)) {
		attacks = append(attacks, mysqlAttack{"prepare " + name, mysqlServer{prepare: answer}})
	}
	for _, n := range []int{1, 4, 5, 7, 8, 11} {
		prepare(fmt.Sprintf("cut after %d bytes", n), packets("\x00\x01\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00"[:n]))
	}
	prepare("error of one byte", packets("\xff"))
	prepare("of 65535 columns", packets("\x00\x01\x00\x00\x00\xff\xff\x01\x00\x00\x00\x00"))
	prepare("of what is no answer", packets("\x01\x01\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00"))
	prepare("with a bad parameter", packets("\x00\x01\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00", "\x00\x00"))
	execute := func(name, types string, row string) {
		attacks = append(attacks, mysqlAttack{"binary row " + name, mysqlServer{execute: afterHead(types, row)}})
	}
	execute("of one byte", "\x03", "\x00")
	execute("with half its NULLs", strings.Repeat("\x03", 20), "\x00\x00")
	execute("cut in a number", "\x08", "\x00\x00\x01\x02")
	execute("too long", "\x01", "\x00\x00\x01\x02")
	execute("of an unknown type", "\x90", "\x00\x00\x01")
	execute("past its end", "\xfd", "\x00\x00\x05abc")
	execute("of 2^63 bytes", "\xfd", "\x00\x00"+string(mysqlSize(1<<63)))
	execute("of NULL as a length", "\xfd", "\x00\x00\xfb")
	execute("date of 255 bytes", "\x0c", "\x00\x00\xfc\xff\x00"+strings.Repeat("\x01", 255))
	execute("date of 2^63 bytes", "\x0c", "\x00\x00"+string(mysqlSize(1<<63)))
	execute("date of 5 bytes", "\x0c", "\x00\x00\x05\x01\x01\x01\x01\x01")
	execute("date past its end", "\x0c", "\x00\x00\x0b\x01\x01\x01\x01")
	execute("time of 9 bytes", "\x0b", "\x00\x00\x09\x01\x01\x01\x01\x01\x01\x01\x01\x01")
	execute("time past its end", "\x0b", "\x00\x00\x0c\x01\x01\x01\x01")
	execute("time of 200 minutes", "\x0b", "\x00\x00\x08\x00\x00\x00\x00\x00\x00\xc8\x00")
	execute("time of 2^32-1 microseconds", "\x0b", "\x00\x00\x0c\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff")
	execute("date of the year 65535", "\x0c", "\x00\x00\x04\xff\xff\x01\x01")
	execute("date of month 255", "\x0c", "\x00\x00\x04\xe8\x07\xff\x01")
	execute("date of hour 255", "\x0c", "\x00\x00\x07\xe8\x07\x01\x01\xff\x00\x00")
	execute("end of one byte", "\x03", "\xfe")
	execute("of what is no row", "\x03", "\x05\x00\x01\x00\x00\x00")
	attacks = append(attacks,
		mysqlAttack{"columns of no statement", mysqlServer{mode: withCaching, query: packets("\x01\x00")}},
		mysqlAttack{"other columns than prepared", mysqlServer{mode: withCaching, execute: packets("\x02\x00")}},
		mysqlAttack{"columns neither known nor not", mysqlServer{mode: withCaching, execute: packets("\x01\x02")}},
	)
	return attacks
}

// TestMySQLAttacks checks that whatever a MySQL server sends, its owner gets
// one general error, and the platform loses neither the process nor a goroutine
// nor memory.
func TestMySQLAttacks(t *testing.T) { // not parallel: it counts goroutines and memory
	config, authority := playedTLS()
	attacks := slices.Concat(greetingAttacks(), authAttacks(t), resultAttacks(), rowAttacks(), preparedAttacks())
	for _, encrypted := range []bool{false, true} {
		for _, mode := range []mysqlMode{0, withoutEOF, withCaching, withoutEOF | withCaching} {
			for _, attack := range attacks {
				name := fmt.Sprintf("%s, mode %d, TLS %v", attack.name, mode, encrypted)
				server := attack.server
				server.mode |= mode
				if encrypted {
					server.tls = config
				}
				if attack.name == "row of 2^63 bytes" && mode&withoutEOF != 0 {
					continue // in this case 0xfe begins the packet that ends the rows
				}
				if encrypted && mode != 0 || mode != 0 && strings.HasPrefix(attack.name, "greeting") {
					continue // the same applies
				}
				t.Run(name, func(t *testing.T) { attackMySQL(t, server, authority) })
			}
		}
	}
}

func attackMySQL(t *testing.T, server mysqlServer, authority string) {
	t.Helper()
	c := playMySQL(t, server)
	if server.tls != nil {
		c.CACertificate = authority
	}
	db := tenantdbtest.Open(t, c)
	goroutines := runtime.NumGoroutine()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	checkBroken(t, use(ctx, db), c)
	testkit.Must(t, db.Close())
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("%d bytes were allocated", grown)
	}
	testkit.Eventually(t, testkit.Timeout, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
}

// use does the operations of the platform on a database until one fails.
func use(ctx context.Context, db *tenantdb.DB) error {
	if err := db.Ping(ctx); err != nil {
		return err
	}
	var text []string
	if err := db.Select(ctx, &text, `SELECT a FROM t`); err != nil {
		return err
	}
	if err := db.Select(ctx, &text, `SELECT a FROM t WHERE a > ?`, 1); err != nil {
		return err
	}
	if _, err := db.Exec(ctx, `UPDATE t SET a = ?`, 1); err != nil {
		return err
	}
	return db.Tx(ctx, func(tx *tenantdb.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM t`)
		return err
	})
}

// checkBroken fails the test unless err says that the server does not speak the
// protocol, and contains nothing that the server sent.
func checkBroken(t *testing.T, err error, c credential.Credentials) {
	t.Helper()
	checkFault(t, err, stoa.DatabaseUnreachable, c)
	if !strings.Contains(err.Error(), "does not speak the protocol correctly") {
		t.Errorf("got %v", err)
	}
	if tenantdb.IsTransient(err) {
		t.Errorf("%v is tried again", err)
	}
	for _, theirs := range []string{"/etc/passwd", "eeee", "abc"} {
		if strings.Contains(err.Error(), theirs) {
			t.Errorf("the server's own words in %v", err)
		}
	}
}

// TestPlayedMySQLServerWorks checks that the server that the attacks modify
// works. Otherwise the attacks would prove nothing.
func TestPlayedMySQLServerWorks(t *testing.T) {
	t.Parallel()
	config, authority := playedTLS()
	for _, mode := range []mysqlMode{0, withoutEOF, withCaching, withoutEOF | withCaching} {
		for _, encrypted := range []bool{false, true} {
			server := mysqlServer{mode: mode}
			if encrypted {
				server.tls = config
			}
			c := playMySQL(t, server)
			if encrypted {
				c.CACertificate = authority
			}
			db := tenantdbtest.Open(t, c)
			testkit.Must(t, use(t.Context(), db))
			var n []int
			testkit.Must(t, db.Select(t.Context(), &n, `SELECT a FROM t WHERE a > ?`, 1))
			if !slices.Equal(n, []int{1}) {
				t.Errorf("got %v", n)
			}
		}
	}
}

// TestMySQLRowsWithoutEnd checks that the size of an answer of many small rows
// includes the memory that the rows need.
func TestMySQLRowsWithoutEnd(t *testing.T) {
	t.Parallel()
	c := playMySQL(t, mysqlServer{query: func(c *mysqlSession) {
		c.head(mysqlColumn(0xfd))
		rows := bytes.Repeat([]byte("\x01\x00\x00\x00\x00"), 256)
		for i := range 256 {
			rows[5*i+3] = c.sequence + byte(i)
		}
		for range 1 << 14 { // four million rows in 20 MiB
			if _, err := c.Write(rows); err != nil {
				return
			}
		}
	}})
	db := tenantdbtest.Open(t, c)
	var rows []string
	err := db.Select(t.Context(), &rows, `SELECT a FROM t`)
	if stoa.CodeOf(err) != stoa.DatabaseContentInvalid || len(rows) > screen.MaxAnswer/160 {
		t.Errorf("%d rows: %v", len(rows), err)
	}
}

// TestMySQLStream has a server stream rows: any number of them may come, but each must be no
// longer than an answer.
func TestMySQLStream(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		size, rows int
		code       stoa.Code // "": none
	}{"20 MiB": {1 << 20, 20, ""}, "a row of 9 MiB": {9 << 20, 1, stoa.DatabaseContentInvalid}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row := append([]byte{0xfd, byte(test.size), byte(test.size >> 8), byte(test.size >> 16)}, bytes.Repeat([]byte{'x'}, test.size)...)
			c := playMySQL(t, mysqlServer{query: func(c *mysqlSession) {
				if c.count == 1 { // the beginning of the snapshot
					c.send(okPacket(0))
					return
				}
				c.head(mysqlColumn(0xfd))
				for range test.rows {
					c.send(row)
				}
				c.end(0)
			}})
			db, n := tenantdbtest.Open(t, c), 0
			err := db.Snapshot(t.Context(), func(s *tenantdb.Snapshot) error {
				_, err := s.Stream(t.Context(), "t", []tenantdb.StreamColumn{{Name: "a", Type: tenantdb.TypeText}}, "", func(row tenantdb.StreamRow) error {
					if text, _ := row.Values[0].([]byte); len(text) == test.size {
						n++
					}
					return nil
				})
				return err
			})
			if stoa.CodeOf(err) != test.code && (test.code != "" || err != nil) || test.code == "" && n != test.rows {
				t.Errorf("%d rows, %v", n, err)
			}
		})
	}
}
