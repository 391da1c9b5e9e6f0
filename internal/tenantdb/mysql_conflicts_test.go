package tenantdb_test

import (
	"net"
	"sync/atomic"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestMySQLStatementsOfChangedTables reads and writes on a server that refuses to execute a
// prepared statement, as servers do while others create triggers of a table, or alter it: at
// both ends of a move, and in a migration. Nothing was executed, and the next attempt succeeds.
func TestMySQLStatementsOfChangedTables(t *testing.T) {
	t.Parallel()
	const refusals = 2
	for number, text := range map[uint16]string{
		1020: "Record has changed since last read in table 'products'",
		1412: "Table definition has changed, please retry transaction",
		1615: "Prepared statement needs to be re-prepared",
	} {
		for name, statement := range map[string]func(*testing.T, *tenantdb.DB) error{
			"read": func(t *testing.T, db *tenantdb.DB) error {
				var n []int
				return db.Select(t.Context(), &n, `SELECT a FROM products WHERE a = ?`, 1)
			},
			"read of one row": func(t *testing.T, db *tenantdb.DB) error {
				var n int
				return db.Get(t.Context(), &n, `SELECT a FROM products WHERE a = ?`, 1)
			},
			"write": func(t *testing.T, db *tenantdb.DB) error {
				_, err := db.Exec(t.Context(), `DELETE FROM products WHERE a = ?`, 1)
				return err
			},
			"transaction": func(t *testing.T, db *tenantdb.DB) error {
				return db.Tx(t.Context(), func(tx *tenantdb.Tx) error {
					_, err := tx.Exec(t.Context(), `DELETE FROM products WHERE a = ?`, 1)
					return err
				})
			},
		} {
			t.Run(text+"/"+name, func(t *testing.T) {
				t.Parallel()
				var executed atomic.Int32
				c := at(t, credential.MySQL, credential.TLSDisable, func(conn net.Conn) {
					mysqlServer{
						execute: func(s *mysqlSession) {
							switch {
							case executed.Add(1) <= refusals:
								s.send(errorPacket(number, "HY000", text))
							case name == "write" || name == "transaction":
								s.send(okPacket(0))
							default:
								s.result(oneAsText(0x17), mysqlColumn(3))
							}
						},
						query: func(s *mysqlSession) { s.send(okPacket(0)) }, // START TRANSACTION and its end
					}.serve(conn)
				})
				testkit.Must(t, statement(t, tenantdbtest.Open(t, c)))
				if n := executed.Load(); n != refusals+1 {
					t.Errorf("executed %d times", n)
				}
			})
		}
	}
}

// errorPacket is the packet of an error.
func errorPacket(number uint16, state, text string) []byte {
	return append([]byte{0xff, byte(number), byte(number >> 8), '#'}, state+text...)
}
