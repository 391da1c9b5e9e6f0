package backups

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// files returns the files of archives in the folder.
func (f fixture) files(t *testing.T) (paths []string) {
	t.Helper()
	testkit.Must(t, filepath.WalkDir(f.folder, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			paths = append(paths, path)
		}
		return err
	}))
	return paths
}

// TestBackupAndRestore archives a store, changes it, and restores it. What was there before
// the restore is an archive that can be restored as well.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f fixture, engine credential.EngineName) {
		p, s := f.store(t, engine)
		b := f.made(t, p, s.ID)
		if b.State != Succeeded || b.CheckState != CheckPassed || !b.CheckRestored || b.Bytes == 0 || b.RowCount == 0 || b.Manifest.StoreID != s.ID || b.CheckMS == nil {
			t.Fatalf("archive %+v", b)
		}
		f.addProduct(t, s.ID, "cake")
		r, err := f.Restore(t.Context(), p, s.ID, b.ID, RestoreOptions{})
		testkit.Must(t, err)
		if r = f.restored(t, r); r.State != Succeeded || r.SavedID == nil {
			t.Fatalf("restore %+v: %+v", r, r.Fault)
		}
		if diff := cmp.Diff([]string{"bread"}, f.products(t, s.ID)); diff != "" {
			t.Errorf("products after the restore (-want +got):\n%s", diff)
		}
		saved, err := f.get(t.Context(), s.ID, *r.SavedID)
		testkit.Must(t, err)
		if saved.Origin != Saved || saved.KeepUntil == nil {
			t.Errorf("saved %+v", saved)
		}
		r, err = f.Restore(t.Context(), p, s.ID, saved.ID, RestoreOptions{Unsaved: true})
		testkit.Must(t, err)
		if r = f.restored(t, r); r.State != Succeeded || r.SavedID != nil {
			t.Fatalf("second restore %+v: %+v", r, r.Fault)
		}
		if diff := cmp.Diff([]string{"bread", "cake"}, f.products(t, s.ID)); diff != "" {
			t.Errorf("products after the second restore (-want +got):\n%s", diff)
		}
	})
}

// TestClone clones a store into a new one that belongs to the caller, with the choice to
// leave out customers and orders.
func TestClone(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f fixture, engine credential.EngineName) {
		p, s := f.store(t, engine)
		f.within(t, s.ID, func(db *tenantdb.DB) error { return addCustomer(t.Context(), db) })
		b := f.made(t, p, s.ID)
		for without, want := range map[string][2]int{"": {1, 1}, WithoutOrders: {1, 0}, WithoutCustomers: {0, 0}} {
			clone := Clone{New: stores.NewStore{Name: "Copy", IdempotencyKey: "key-" + string(engine) + without}, Without: strings.Fields(without)}
			created, r, err := f.Clone(t.Context(), p, s.ID, b.ID, clone)
			testkit.Must(t, err)
			again, r2, err := f.Clone(t.Context(), p, s.ID, b.ID, clone)
			testkit.Must(t, err)
			if again.ID != created.ID || r2.ID != r.ID {
				t.Errorf("the same key makes another clone")
			}
			if r = f.restored(t, r); r.State != Succeeded {
				t.Fatalf("clone without %q: %+v: %+v", without, r, r.Fault)
			}
			if diff := cmp.Diff([]string{"bread"}, f.products(t, created.ID)); diff != "" {
				t.Errorf("products (-want +got):\n%s", diff)
			}
			f.within(t, created.ID, func(db *tenantdb.DB) error {
				profile, err := storedata.ReadProfile(t.Context(), db, created.ID)
				if err == nil && profile.Slug != created.Slug {
					t.Errorf("the clone's profile has the slug %q, want %q", profile.Slug, created.Slug)
				}
				var n [3]int
				for i, query := range []string{`SELECT count(*) FROM customers`, `SELECT count(*) FROM orders`, `SELECT count(*) FROM users WHERE role = 'owner'`} {
					testkit.Must(t, db.Get(t.Context(), &n[i], query))
				}
				if n != [3]int{want[0], want[1], 1} {
					t.Errorf("without %q: %v customers, orders, owners; want %v and 1", without, n, want)
				}
				return err
			})
		}
		_, _, err := f.Clone(t.Context(), f.user(t), s.ID, b.ID, Clone{New: stores.NewStore{Name: "Theft"}})
		wantCode(t, err, stoa.StoreNotFound)
		_, _, err = f.Clone(t.Context(), p, s.ID, b.ID, Clone{New: stores.NewStore{Name: "Copy"}, Without: []string{"everything"}})
		wantCode(t, err, stoa.InvalidRequest)
	})
}

// addCustomer adds a customer with an order.
func addCustomer(ctx context.Context, db *tenantdb.DB) error {
	const at = "2026-01-02 03:04:05"
	customer, order := stoa.NewID[stoa.EventID](), stoa.NewID[stoa.EventID]()
	_, err := db.Exec(ctx, `INSERT INTO customers (id, email, first_name, last_name, created_at, updated_at) VALUES (?, 'c@example.com', 'C', 'D', '`+at+`', '`+at+`')`, customer)
	if err != nil {
		return err
	}
	_, err = db.Exec(ctx, `INSERT INTO orders (id, order_number, customer_id, email, status, payment_status, shipping_status, currency, subtotal_minor, total_minor,
		billing_address, shipping_address, placed_at, created_at, updated_at)
		VALUES (?, '1', ?, 'c@example.com', 'pending', 'unpaid', 'unshipped', 'USD', 1, 1, '{}', '{}', '`+at+`', '`+at+`', '`+at+`')`, order, customer)
	return err
}

// TestLostDatabase restores a store whose embedded database is gone.
func TestLostDatabase(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, f fixture) {
		p, s := f.store(t, credential.SQLite)
		b := f.made(t, p, s.ID)
		f.tenants.Forget(s.ID)
		testkit.Must(t, f.tenants.AwaitClosed(t.Context(), s.ID))
		c, err := f.tenants.Load(t.Context(), f.db, s.ID)
		testkit.Must(t, err)
		db, err := f.tenants.OpenUnleased(c)
		testkit.Must(t, err)
		var path string
		testkit.Must(t, db.Get(t.Context(), &path, `SELECT file FROM pragma_database_list WHERE name = 'main'`))
		testkit.Must(t, db.Close())
		remove := func() {
			for _, end := range []string{"", "-wal", "-shm"} {
				_ = os.Remove(path + end)
			}
		}
		remove()
		restore := func() {
			t.Helper()
			r, err := f.Restore(t.Context(), p, s.ID, b.ID, RestoreOptions{})
			testkit.Must(t, err)
			if r = f.restored(t, r); r.State != Succeeded || r.SavedID != nil {
				t.Fatalf("restore %+v: %+v", r, r.Fault)
			}
		}
		restore() // there is no file
		f.tenants.Forget(s.ID)
		testkit.Must(t, f.tenants.AwaitClosed(t.Context(), s.ID))
		remove()
		if lost, err := f.Lost(t.Context(), s.ID); err != nil || !lost {
			t.Errorf("lost: %t, %v", lost, err)
		}
		lost := f.made(t, p, s.ID) // it finds an empty file
		if lost.State != Failed || !strings.Contains(lost.Fault.Message, "mark") {
			t.Errorf("an archive of a lost database: %+v, %+v", lost, lost.Fault)
		}
		restore()
		if lost, err := f.Lost(t.Context(), s.ID); err != nil || lost {
			t.Errorf("lost afterwards: %t, %v", lost, err)
		}
		if diff := cmp.Diff([]string{"bread"}, f.products(t, s.ID)); diff != "" {
			t.Errorf("products (-want +got):\n%s", diff)
		}
	})
}

// TestDamagedArchive checks that a damaged, shortened or missing file is found by the check
// and refused by a restore, which then changes nothing.
func TestDamagedArchive(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, f fixture) {
		p, s := f.store(t, credential.SQLite)
		b := f.made(t, p, s.ID)
		path := f.files(t)[0]
		whole, err := os.ReadFile(path)
		testkit.Must(t, err)
		flipped := slices.Clone(whole)
		flipped[len(flipped)-20] ^= 1
		for name, content := range map[string][]byte{"flipped": flipped, "short": whole[:len(whole)/2], "empty": {}, "missing": nil} {
			testkit.Must(t, os.Remove(path))
			if content != nil {
				testkit.Must(t, os.WriteFile(path, content, 0o600))
			}
			_, err := f.Check(t.Context(), p, s.ID, b.ID)
			testkit.Must(t, err)
			if c := f.checked(t, b); c.CheckState != CheckFailed || c.CheckMessage == nil {
				t.Errorf("%s: the check says %+v", name, c)
			}
			wantCode(t, f.CheckByOperator(t.Context(), s.ID, b.ID, false), stoa.ArchiveDamaged)
			r, err := f.Restore(t.Context(), p, s.ID, b.ID, RestoreOptions{})
			testkit.Must(t, err)
			if r = f.restored(t, r); r.State != Failed || r.Fault.Code != stoa.ArchiveDamaged || r.SavedID != nil {
				t.Errorf("%s: restore %+v, %+v", name, r, r.Fault)
			}
			testkit.Must(t, os.WriteFile(path, whole, 0o600))
			if got := f.products(t, s.ID); len(got) != 1 {
				t.Errorf("%s: products %v", name, got)
			}
		}
	})
}

// TestFailedLoadIsUndone checks that a store whose database refuses the archive's rows gets
// its own back and is open again.
func TestFailedLoadIsUndone(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, f fixture) {
		p, s := f.store(t, credential.SQLite)
		b := f.made(t, p, s.ID)
		f.addProduct(t, s.ID, "cake")
		f.within(t, s.ID, func(db *tenantdb.DB) error {
			_, err := db.Exec(t.Context(), `UPDATE products SET slug = 'new-bread' WHERE slug = 'bread'`)
			if err == nil {
				_, err = db.Exec(t.Context(), `CREATE TRIGGER refuse BEFORE INSERT ON products WHEN NEW.slug = 'bread' BEGIN SELECT RAISE(ABORT, 'no bread'); END`)
			}
			return err
		})
		r, err := f.Restore(t.Context(), p, s.ID, b.ID, RestoreOptions{})
		testkit.Must(t, err)
		if r = f.restored(t, r); r.State != Failed || r.Step != stepOpen {
			t.Fatalf("restore %+v: %+v", r, r.Fault)
		}
		if diff := cmp.Diff([]string{"cake", "new-bread"}, f.products(t, s.ID)); diff != "" {
			t.Errorf("products (-want +got):\n%s", diff)
		}
	})
}

// TestDownloadAndUpload takes an archive out of the platform, with a passphrase, and into
// another store, where it can be cloned and not restored.
func TestDownloadAndUpload(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, f fixture) {
		p, s := f.store(t, credential.SQLite)
		b := f.made(t, p, s.ID)
		k := FileKey{Passphrase: keyring.NewSecret("correct horse battery")}
		d, err := f.Download(t.Context(), p, s.ID, b.ID, k)
		testkit.Must(t, err)
		var file bytes.Buffer
		testkit.Must(t, d.WriteTo(t.Context(), &file))
		testkit.Must(t, f.Delete(t.Context(), p, s.ID, b.ID))
		testkit.Eventually(t, time.Minute, "the file is deleted", func() bool { return len(f.files(t)) == 0 })

		up, err := f.Upload(t.Context(), p, s.ID, k, bytes.NewReader(file.Bytes()))
		testkit.Must(t, err)
		f.addProduct(t, s.ID, "cake")
		r, err := f.Restore(t.Context(), p, s.ID, up.ID, RestoreOptions{})
		testkit.Must(t, err)
		if r = f.restored(t, r); r.State != Succeeded || len(f.products(t, s.ID)) != 1 {
			t.Errorf("restore of an upload: %+v, %+v", r, r.Fault)
		}

		q, other := f.store(t, credential.SQLite)
		foreign, err := f.Upload(t.Context(), q, other.ID, k, bytes.NewReader(file.Bytes()))
		testkit.Must(t, err)
		if foreign = f.checked(t, foreign); foreign.CheckState != CheckPassed {
			t.Errorf("check of a foreign archive: %+v", foreign)
		}
		r, err = f.Restore(t.Context(), q, other.ID, foreign.ID, RestoreOptions{})
		testkit.Must(t, err)
		if r = f.restored(t, r); r.State != Failed || r.Fault.Code != stoa.ArchiveOfOtherStore {
			t.Errorf("restore of another store's archive: %+v, %+v", r, r.Fault)
		}
		_, r, err = f.Clone(t.Context(), q, other.ID, foreign.ID, Clone{New: stores.NewStore{Name: "Copy"}})
		testkit.Must(t, err)
		if r = f.restored(t, r); r.State != Succeeded {
			t.Errorf("clone of another store's archive: %+v, %+v", r, r.Fault)
		}
		before := len(f.files(t))
		for name, c := range map[string]struct {
			content []byte
			key     FileKey
			want    stoa.Code
		}{
			"another passphrase": {file.Bytes(), FileKey{Passphrase: keyring.NewSecret("incorrect horse")}, stoa.ArchiveKeyUnknown},
			"no key":             {file.Bytes(), FileKey{}, stoa.InvalidRequest},
			"half":               {file.Bytes()[:file.Len()/2], k, stoa.ArchiveDamaged},
			"no archive":         {[]byte("hello"), k, stoa.ArchiveDamaged},
		} {
			_, err := f.Upload(t.Context(), p, s.ID, c.key, bytes.NewReader(c.content))
			if stoa.CodeOf(err) != c.want {
				t.Errorf("%s: %v, want %s", name, err, c.want)
			}
		}
		testkit.Eventually(t, time.Minute, "refused uploads leave no file", func() bool { return len(f.files(t)) == before })
		for name, bad := range map[string]FileKey{
			"no key": {}, "two keys": {Passphrase: k.Passphrase, Recipient: "age1x"}, "a short passphrase": {Passphrase: keyring.NewSecret("short")}, "no recipient": {Recipient: "age1x"},
		} {
			if _, err := f.Download(t.Context(), p, s.ID, up.ID, bad); stoa.CodeOf(err) != stoa.InvalidRequest {
				t.Errorf("download with %s: %v", name, err)
			}
		}
	})
}

// TestRights checks who may do what with archives.
func TestRights(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, f fixture) {
		p, s := f.store(t, credential.SQLite)
		b := f.made(t, p, s.ID)
		stranger := f.user(t)
		for name, call := range map[string]func(authz.Principal) error{
			"list":     func(p authz.Principal) error { _, err := f.List(t.Context(), p, s.ID, 0, ""); return err },
			"get":      func(p authz.Principal) error { _, err := f.Get(t.Context(), p, s.ID, b.ID); return err },
			"make":     func(p authz.Principal) error { _, err := f.Make(t.Context(), p, s.ID); return err },
			"check":    func(p authz.Principal) error { _, err := f.Check(t.Context(), p, s.ID, b.ID); return err },
			"delete":   func(p authz.Principal) error { return f.Delete(t.Context(), p, s.ID, b.ID) },
			"schedule": func(p authz.Principal) error { _, err := f.SetSchedule(t.Context(), p, s.ID, nil, nil); return err },
			"restore": func(p authz.Principal) error {
				_, err := f.Restore(t.Context(), p, s.ID, b.ID, RestoreOptions{})
				return err
			},
			"download": func(p authz.Principal) error { _, err := f.Download(t.Context(), p, s.ID, b.ID, FileKey{}); return err },
			"upload":   func(p authz.Principal) error { _, err := f.Upload(t.Context(), p, s.ID, FileKey{}, nil); return err },
		} {
			if err := call(stranger); stoa.CodeOf(err) != stoa.StoreNotFound {
				t.Errorf("%s by a stranger: %v", name, err)
			}
		}
		q, other := f.store(t, credential.SQLite)
		_, err := f.Get(t.Context(), q, other.ID, b.ID)
		wantCode(t, err, stoa.NotFound)
		_, err = f.Restore(t.Context(), q, other.ID, b.ID, RestoreOptions{})
		wantCode(t, err, stoa.NotFound)
		wantCode(t, f.Delete(t.Context(), q, other.ID, b.ID), stoa.NotFound)
	})
}

// TestBackupWaitsForRestore checks that no archive is made of a store whose rows are being
// replaced.
func TestBackupWaitsForRestore(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, f fixture) {
		p, s := f.store(t, credential.SQLite)
		set := func(change func(context.Context, *masterdb.Tx, stoa.StoreID) error) {
			testkit.Must(t, f.db.Tx(t.Context(), func(tx *masterdb.Tx) error { return change(t.Context(), tx, s.ID) }))
		}
		set(tenantdb.BeginRestore)
		_, err := f.tenants.Acquire(t.Context(), s.ID)
		wantCode(t, err, stoa.TenantUnavailable)
		b, err := f.Make(t.Context(), p, s.ID)
		testkit.Must(t, err)
		testkit.Eventually(t, time.Minute, "the job has looked at the store", func() bool {
			r, err := read(t.Context(), f.db, `b.id = $1`, b.ID)
			testkit.Must(t, err)
			return r.Attempt > 0
		})
		if got, err := f.get(t.Context(), s.ID, b.ID); err != nil || got.State != Running || len(f.files(t)) > 0 {
			t.Errorf("while it is being restored: %+v, %v", got, err)
		}
		set(tenantdb.EndRestore)
		if b = f.checked(t, b); b.State != Succeeded || b.CheckState != CheckPassed {
			t.Errorf("afterwards: %+v", b)
		}
	})
}

// TestContentIsBounded checks that an archive whose content is too long is refused and not
// kept, whether it is made here or uploaded: it would fill the server's disk.
func TestContentIsBounded(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		f := setup(t, db, Options{MaxContent: 2000}).start(t)
		p, s := f.store(t, credential.SQLite)
		b := f.made(t, p, s.ID)
		if b.CheckState != CheckPassed {
			t.Fatalf("archive %+v", b)
		}
		f.within(t, s.ID, func(db *tenantdb.DB) error {
			now := time.Now().UTC()
			_, err := db.Exec(t.Context(), `INSERT INTO pages (id, slug, title, body, published, created_at, updated_at) VALUES (?, 'a', 't', ?, true, ?, ?)`,
				"018f2b6c-7d1e-7c3a-9f00-000000000001", strings.Repeat("x", 3<<20), now, now)
			return err
		})
		if long := f.made(t, p, s.ID); long.State != Failed || long.Fault.Code != stoa.ArchiveRefused || !strings.Contains(long.Fault.Message, "2000 bytes") {
			t.Errorf("an archive of more: %+v, %+v", long, long.Fault)
		}
		k := FileKey{Passphrase: keyring.NewSecret("correct horse battery")}
		to, err := k.recipient(10)
		testkit.Must(t, err)
		var file bytes.Buffer
		f.within(t, s.ID, func(db *tenantdb.DB) error {
			_, _, err := archive.Write(t.Context(), db, s.ID, &file, archive.WriteOptions{}, to)
			return err
		})
		_, err = f.Upload(t.Context(), p, s.ID, k, &file)
		wantCode(t, err, stoa.PayloadTooLarge)
		testkit.Eventually(t, time.Minute, "the refused file is gone", func() bool { return len(f.files(t)) == 1 })
	})
}
