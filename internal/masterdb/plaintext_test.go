package masterdb_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa/internal/masterdb"
)

func TestPlaintext(t *testing.T) {
	t.Parallel()
	for url, want := range map[string][]string{
		"sqlite:master.db":                                                             nil,
		"postgres://u:p@db.example.com/stoa":                                           {"db.example.com"}, // sslmode defaults to prefer
		"postgres://u:p@db.example.com/stoa?sslmode=disable":                           {"db.example.com"},
		"postgres://u:p@db.example.com/stoa?sslmode=allow":                             {"db.example.com"},
		"postgresql://u:p@db.example.com/stoa?sslmode=prefer":                          {"db.example.com"},
		"postgres://u:p@db.example.com/stoa?sslmode=require":                           nil,
		"postgres://u:p@db.example.com/stoa?sslmode=verify-full":                       nil,
		"postgres://u:p@one.example.com:5432,two.example.com:5432/stoa?sslmode=prefer": {"one.example.com", "two.example.com"},
		"postgres://u:p@/stoa?host=/run/postgresql&sslmode=disable":                    nil,
		"postgres://u:p@db.example.com:port/stoa":                                      nil,
	} {
		if diff := cmp.Diff(want, masterdb.Plaintext(url)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", url, diff)
		}
	}
}
