package moves

import (
	"context"
	"database/sql"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestStatementsWhileTriggersAreMade writes with the ordinary driver, as a store's own
// software does, while triggers are made and removed. No statement fails that was prepared
// before and is executed afterwards.
func TestStatementsWhileTriggersAreMade(t *testing.T) {
	t.Parallel()
	if !slices.Contains(engines(), credential.MySQL) {
		t.Skip("there is no MySQL server")
	}
	tr := newTrial(t, credential.MySQL, credential.MySQL)
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Net, c.DBName = tr.own.User, tr.own.Password.Reveal(), "tcp", tr.own.Database
	c.Addr = net.JoinHostPort(tr.own.Host, strconv.Itoa(tr.own.Port))
	db, err := sql.Open("mysql", c.FormatDSN())
	testkit.Must(t, err)
	t.Cleanup(func() { testkit.Must(t, db.Close()) })
	product := uuidOf()
	testkit.Must(t, insertProduct(t.Context(), tr.writer, product, "bread"))
	ctx, end := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 5 {
		variant := uuidOf()
		mustExec(t, tr.writer, `INSERT INTO product_variants (id, product_id, name, price_minor, stock, created_at, updated_at) VALUES (?, ?, 'v', 0, 0, ?, ?)`, variant, product, now, now)
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := sell(t.Context(), db, product, variant); err != nil {
					t.Errorf("a write: %v", err)
					return
				}
			}
		})
	}
	for range 3 {
		testkit.Must(t, tr.from.begin(t.Context(), tr.move, tr.tables))
		testkit.Must(t, tr.from.record(t.Context(), tr.tables))
		testkit.Must(t, tr.from.end(t.Context(), tr.tables))
	}
	end()
	wg.Wait()
}

// sell changes two tables in one transaction.
func sell(ctx context.Context, db *sql.DB, product, variant string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	if _, err := tx.ExecContext(ctx, `INSERT INTO product_images (id, product_id, url, alt_text, created_at) VALUES (?, ?, 'https://example.com/a.webp', '', ?)`, uuidOf(), product, now); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE product_variants SET stock = stock + 1 WHERE id = ?`, variant); err != nil {
		return err
	}
	return tx.Commit()
}
