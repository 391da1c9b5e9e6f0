package app_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
)

// FuzzCreditsGrant checks that for any arguments the command either grants once and
// reports it, or grants nothing and reports why.
func FuzzCreditsGrant(f *testing.F) {
	for _, seed := range [][5]string{
		{"shop", "12.5", "Sorry", "2100-01-01", "case-1"},
		{"shop", "0.0001", "é\u202e", "36500d", ""},
		{"SHOP", "922337203685477.5807", "x", "9999-12-31T23:59:59Z", "k"},
		{"shop", "-1", "", "0001-01-01", "\x00"},
		{"shop", "١", "x\x00", "2100-01-01T00:00:00+23:59", strings.Repeat("k", 200)},
		{"", "1e9", "x", "9223372036854775807ns", "k"},
		{"--help", "--json", "--key", "-h", "--"},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3], seed[4])
	}
	c := newCounter(f, masterdb.SQLite)
	id := c.store("shop", "active")
	f.Fuzz(func(t *testing.T, store, amount, reason, expires, key string) {
		c := c
		c.t = t
		before := c.balance(id)
		args := append([]string{"credits", "grant", "--reason=" + reason, "--expires=" + expires, "--key=" + key}, c.flags...)
		status, out, errOut := command(t, append(args, "--", store, amount)...)
		after := c.balance(id)
		granted, rows := after.Balance-before.Balance, after.Seq-before.Seq
		switch {
		case status != 0:
			if out != "" || errOut == "" || rows != 0 || granted != 0 {
				t.Errorf("status %d, %d rows: %s%s", status, rows, out, errOut)
			}
		case strings.HasPrefix(out, "Nothing was changed"):
			if rows != 0 {
				t.Errorf("%d rows: %s", rows, out)
			}
		default:
			if want, err := credits.ParseAmount(amount); err != nil || rows != 1 || granted != want {
				t.Errorf("%d rows, %s credits: %s", rows, granted, out)
			}
		}
	})
}

// FuzzExpiry checks that a parsed expiry is a valid time, and is after now when it is
// given as a duration.
func FuzzExpiry(f *testing.F) {
	for _, seed := range []string{"", "30d", "+1d", "0d", "65536d", "-1h", "1h", "876000h", "876001h", "2027-01-31", "2027-02-30", "2027-01-31T18:00:00Z", "NaNd"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var x cli.Expiry
		if err := x.UnmarshalText([]byte(text)); err != nil {
			return
		}
		now := time.Now()
		at := x.From(now)
		if at != nil && x.After > 0 && (at.Before(now.Add(-time.Second)) || at.After(now.Add(cli.MaxAfter))) {
			t.Errorf("%q is %s", text, at)
		}
		if x.After < 0 || x.After > 0 && !x.At.IsZero() {
			t.Errorf("%q is %+v", text, x)
		}
	})
}
