package backups

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestDiscover finds an archive that the master does not know, and leaves out what is none.
func TestDiscover(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, f fixture) {
		p, s := f.store(t, credential.SQLite)
		b := f.made(t, p, s.ID)
		if found, err := f.Discover(t.Context(), authz.Principal{}, s.ID); err != nil || len(found) != 0 {
			t.Errorf("a known archive is found: %v, %v", found, err)
		}
		f.exec(t, `DELETE FROM backups WHERE id = $1`, b.ID)
		fake := filepath.Join(f.folder, filepath.FromSlash(archive.FileName(s.ID, *b.SnapshotAt, "fake")))
		testkit.Must(t, os.WriteFile(fake, []byte("no archive"), 0o600))
		found, err := f.Discover(t.Context(), authz.Principal{}, s.ID)
		testkit.Must(t, err)
		if len(found) != 1 || found[0].Manifest.Checksum != b.Manifest.Checksum || !found[0].SnapshotAt.Equal(*b.SnapshotAt) {
			t.Fatalf("found %+v, want %+v", found, b)
		}
		if c := f.checked(t, found[0]); c.CheckState != CheckPassed || !c.CheckRestored {
			t.Errorf("the check of a found archive: %+v", c)
		}
		f.addProduct(t, s.ID, "cake")
		r, err := f.Restore(t.Context(), p, s.ID, found[0].ID, RestoreOptions{})
		testkit.Must(t, err)
		if r = f.restored(t, r); r.State != Succeeded || len(f.products(t, s.ID)) != 1 {
			t.Errorf("restore of a found archive: %+v, %+v", r, r.Fault)
		}
	})
}
