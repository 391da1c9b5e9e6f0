package app_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/doctor"
	"github.com/stoahq/stoa/internal/masterdb"
)

// TestDoctorLooksAtUsers checks that doctor names operators whose address is not
// verified, and addresses that can be confused with others.
func TestDoctorLooksAtUsers(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		users := func() cli.Finding {
			t.Helper()
			findings, _ := doctor.Examine(context.WithoutCancel(t.Context()), s.Cfg, nil)
			for _, f := range findings {
				if f.Check == "users" {
					return f
				}
			}
			t.Fatalf("nothing about users in %+v", findings)
			return cli.Finding{}
		}
		register(t, s, "owner@example.com")
		register(t, s, "sam@example.com")
		if f := users(); !f.OK {
			t.Errorf("ordinary users: %+v", f)
		}
		err := s.Master.Tx(t.Context(), func(tx *masterdb.Tx) error {
			if _, err := tx.Exec(t.Context(), `UPDATE users SET email = $1 WHERE email = 'sam@example.com'`, "\u017fam@example.com"); err != nil {
				return err
			}
			_, err := tx.Exec(t.Context(), `UPDATE users SET role = 'admin' WHERE email = 'owner@example.com'`)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		f := users()
		if f.OK || f.Remedy == "" || !strings.Contains(f.Detail, `"\u017fam@example.com"`) || !strings.Contains(f.Detail, "owner@example.com") {
			t.Errorf("%+v", f)
		}
	})
}

// TestTakeOver checks that the owner of an address that another person registered can
// take the account over, through the pages that the mails link to.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		squatter, id := register(t, s, "victim@example.com")
		visitor := client{t: t, url: s.URL}
		visitor.mailed("verify")
		visitor.call("POST", "/forgot", "email=victim%40example.com", "Content-Type", "application/x-www-form-urlencoded").want(http.StatusOK)
		visitor.submit(visitor.mailed("reset"), map[string][]string{"password": {"quite another one"}}).want(http.StatusSeeOther)
		squatter.call("GET", "/api/auth/me", nil).problem(http.StatusUnauthorized, "session_revoked")
		login := object{"email": "victim@example.com", "password": testPassword}
		visitor.call("POST", "/api/auth/login", login).problem(http.StatusUnauthorized, "invalid_credentials")
		login["password"] = "quite another one"
		a := visitor.call("POST", "/api/auth/login", login).want(http.StatusOK).is(true, "user", "emailVerified")
		victim := client{t: t, url: s.URL, token: a.text("accessToken")}
		victim.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("owner", "role")
	})
}
