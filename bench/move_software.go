package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx of database/sql

	"github.com/stoahq/stoa/internal/tenantdb"
)

// writers is how many connections the software writes with, as docs/connect.md asks.
const writers = 5

// software is a store's own software: it writes into the store's database with the engine's
// ordinary driver. When the database says that the store has moved, it asks where to, and
// repeats the write there. It is safe for concurrent use.
type software struct {
	order    uuid.UUID // that has a row for each write
	variants [writers]uuid.UUID

	mu      sync.Mutex // held while the software connects anew
	db      *sql.DB
	address string // of db

	ids [writers][]uuid.UUID // of acknowledged writes; each writer's own
}

func isMySQL(address string) bool { return strings.HasPrefix(address, "mysql:") }

// openStoreDatabase connects as a store's own software does.
func openStoreDatabase(address string) (*sql.DB, error) {
	driver, dsn := "pgx", address
	if isMySQL(address) {
		u, err := url.Parse(address)
		if err != nil {
			return nil, errors.New("the database's address must be a URL") // err would contain the password
		}
		c := mysql.NewConfig()
		c.User, c.Net, c.Addr, c.DBName = u.User.Username(), "tcp", u.Host, strings.TrimPrefix(u.Path, "/")
		c.Passwd, _ = u.User.Password()
		driver, dsn = "mysql", c.FormatDSN()
	}
	db, err := sql.Open(driver, dsn)
	if err == nil {
		db.SetMaxOpenConns(writers)
		db.SetMaxIdleConns(writers)
	}
	return db, err
}

// startSoftware connects to a store's database, and makes an order for the rows of its
// writes, and a variant for each writer, whose stock counts them.
func startSoftware(ctx context.Context, address string) (*software, error) {
	s := &software{order: uuid.New(), address: address}
	db, err := openStoreDatabase(address)
	if err != nil {
		return nil, err
	}
	s.db = db
	now, product := time.Now().UTC(), uuid.New()
	_, err = db.ExecContext(ctx, `INSERT INTO orders (id, order_number, email, status, payment_status, shipping_status, currency, subtotal_minor, total_minor,
		billing_address, shipping_address, placed_at, created_at, updated_at) VALUES ($1, 'writes', 'w@bench.example', 'pending', 'unpaid', 'unshipped', 'EUR', 0, 0, '{}', '{}', $2, $2, $2)`, s.order, now)
	if err != nil {
		return nil, err
	}
	_, err = db.ExecContext(ctx, `INSERT INTO products (id, name, slug, description, currency, status, created_at, updated_at) VALUES ($1, 'writes', 'writes', '', 'EUR', 'draft', $2, $2)`, product, now)
	for i := range s.variants {
		s.variants[i] = uuid.New()
		if err == nil {
			_, err = db.ExecContext(ctx, `INSERT INTO product_variants (id, product_id, name, price_minor, stock, created_at, updated_at) VALUES ($1, $2, 'writer', 0, 0, $3, $3)`, s.variants[i], product, now)
		}
	}
	return s, err
}

func (s *software) close() { _ = s.connection().Close() }

func (s *software) connection() *sql.DB {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.db
}

func (s *software) total() (n int) {
	for _, ids := range s.ids {
		n += len(ids)
	}
	return n
}

// writing is the load of the software during one move.
type writing struct {
	*software
	next    string // address of the database that the store moves to
	swapped func(context.Context) (bool, error)
	stop    chan struct{}
	running sync.WaitGroup
	begun   time.Time

	mu     sync.Mutex
	took   []time.Duration // by acknowledged writes
	faults []error         // of writes that failed
}

// begin writes at a rate until end is called. swapped tells when the store uses the database
// at next.
func (s *software) begin(ctx context.Context, rate int, next string, swapped func(context.Context) (bool, error)) *writing {
	w := &writing{software: s, next: next, swapped: swapped, stop: make(chan struct{}), begun: time.Now()}
	due := make(chan struct{}, rate*60) // writes that wait while none can be made are made up for
	w.running.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		defer close(due)
		for {
			select {
			case <-w.stop:
				return
			case <-tick.C:
				due <- struct{}{}
			}
		}
	})
	for i := range writers {
		w.running.Go(func() {
			for range due {
				w.write(ctx, i)
			}
		})
	}
	return w
}

func (w *writing) acknowledged() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.took)
}

// end ends the load, after the writes that are due.
func (w *writing) end() result {
	close(w.stop)
	w.running.Wait()
	r := result{Requests: len(w.took), Errors: len(w.faults), Throughput: float64(len(w.took)) / time.Since(w.begun).Seconds()}
	if r.Errors > 0 {
		r.FirstError = w.faults[0].Error()
	}
	if n := len(w.took); n > 0 {
		slices.Sort(w.took)
		r.P50, r.P95, r.P99, r.Slowest = w.took[n/2], w.took[n*95/100], w.took[n*99/100], w.took[n-1]
	}
	return r
}

// write makes one write, in another database if this one refuses it.
func (w *writing) write(ctx context.Context, writer int) {
	id, begin := uuid.New(), time.Now()
	for {
		db := w.connection()
		err := w.insert(ctx, db, writer, id)
		if err == nil {
			break
		}
		if tenantdb.IsFenced(err) {
			err = w.follow(ctx, db)
		}
		if err != nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.faults = append(w.faults, fmt.Errorf("a write: %w", err))
			return
		}
	}
	took := time.Since(begin)
	w.ids[writer] = append(w.ids[writer], id)
	w.mu.Lock()
	w.took = append(w.took, took)
	w.mu.Unlock()
}

// insert writes a row and counts it, in one transaction.
func (w *writing) insert(ctx context.Context, db *sql.DB, writer int, id uuid.UUID) error {
	row := `INSERT INTO order_items (id, order_id, variant_id, product_name, variant_name, quantity, unit_price_minor, total_minor) VALUES ($1, $2, $3, 'write', '', 1, 1, 1)`
	count := `UPDATE product_variants SET stock = stock + 1 WHERE id = $1`
	if isMySQLDriver(db) {
		row = strings.NewReplacer("$1", "?", "$2", "?", "$3", "?").Replace(row)
		count = strings.ReplaceAll(count, "$1", "?")
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	variant := w.variants[writer].String()
	if _, err := tx.ExecContext(ctx, row, id.String(), w.order.String(), variant); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, count, variant); err != nil {
		return err
	}
	return tx.Commit()
}

func isMySQLDriver(db *sql.DB) bool {
	_, is := db.Driver().(*mysql.MySQLDriver)
	return is
}

// follow connects to the store's new database when the platform names it, unless another
// writer has done so.
func (w *writing) follow(ctx context.Context, refused *sql.DB) error {
	w.software.mu.Lock()
	defer w.software.mu.Unlock()
	if w.db != refused {
		return nil
	}
	for {
		swapped, err := w.swapped(ctx)
		if err != nil {
			return err
		}
		if swapped {
			break
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	db, err := openStoreDatabase(w.next)
	if err != nil {
		return err
	}
	w.db, w.address = db, w.next
	return refused.Close()
}

// losses says what was found wrong with the writes.
type losses struct{ lost, doubled int }

// verify compares all writes that were acknowledged with what the store's database has.
// Nobody writes meanwhile.
func (s *software) verify(ctx context.Context) (l losses, err error) {
	missing := map[string]bool{}
	for _, ids := range s.ids {
		for _, id := range ids {
			missing[id.String()] = true
		}
	}
	rows, err := s.db.QueryContext(ctx, `SELECT id FROM order_items WHERE order_id = '`+s.order.String()+`'`) //nolint:gosec // an id that this program has made
	if err != nil {
		return l, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what was missed
	var id string
	for rows.Next() {
		if err := rows.Scan(&id); err != nil {
			return l, err
		}
		if !missing[id] {
			l.doubled++
		}
		delete(missing, id)
	}
	if err := rows.Err(); err != nil {
		return l, err
	}
	l.lost = len(missing)
	counted, err := s.counted(ctx)
	l.lost, l.doubled = max(l.lost, counted.lost), max(l.doubled, counted.doubled)
	return l, err
}

// counted compares the counts of the writers with what was acknowledged.
func (s *software) counted(ctx context.Context) (l losses, err error) {
	for i, variant := range s.variants {
		var stock int
		if err := s.db.QueryRowContext(ctx, `SELECT stock FROM product_variants WHERE id = '`+variant.String()+`'`).Scan(&stock); err != nil {
			return l, err
		}
		l.lost += max(0, len(s.ids[i])-stock)
		l.doubled += max(0, stock-len(s.ids[i]))
	}
	return l, nil
}
