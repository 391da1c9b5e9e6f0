package archive

import (
	"os"
	"testing"

	"filippo.io/age"

	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestStoredArchives loads an archive that an earlier release has written from SQLite, reading
// its tables in pages, into each engine, and archives it again.
func TestStoredArchives(t *testing.T) {
	t.Parallel()
	want := Summary{Rows: 364, Bytes: 28855, Checksum: "8ea90c361922518a411d823d541e1ed06c3542ea2fbeeaf263ba2183ed17b137"}
	file, err := os.ReadFile("testdata/format-1.stoa")
	testkit.Must(t, err)
	opener, err := age.NewScryptIdentity("format 1")
	testkit.Must(t, err)
	for _, engine := range tenantdbtest.All() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			db := tenantdbtest.Open(t, tenantdbtest.Create(t, engine))
			testkit.Must(t, Load(t.Context(), db, reader(t, file, opener), LoadOptions{}))
			if _, _, got := archived(t, db, newIdentity(t), WriteOptions{}); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}
