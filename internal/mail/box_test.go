package mail_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/mail"
)

func TestBox(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "mail")
	s, err := mail.New(mail.Options{From: "Stoa <no-reply@example.com>", Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if box, err := s.Box(); err != nil || len(box) != 0 {
		t.Errorf("before the first: %v, %v", box, err)
	}
	text := "Grüße,\n\n" + strings.Repeat("a long line ", 100) + "\nhttps://example.com/?token=a=b\n"
	for _, id := range []string{"first", "second"} {
		m := mail.Message{ID: id, To: mail.Address{Name: "Jürgen", Email: "j@example.com"}, Subject: "Öl " + id, Text: text}
		if err := s.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	hour := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "first.eml"), hour, hour); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"notes.txt": "not a mail", "broken.eml": "no header\x00"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := hour.Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "broken.eml"), old, old); err != nil {
		t.Fatal(err)
	}
	box, err := s.Box()
	if err != nil || len(box) != 3 {
		t.Fatalf("%+v, %v", box, err)
	}
	if m := box[0]; m.ID != "second" || m.Subject != "Öl second" || !strings.Contains(m.To, "Jürgen") || !strings.Contains(m.To, "j@example.com") || m.Text != text {
		t.Errorf("newest %+v", m)
	}
	if box[1].ID != "first" || box[2].ID != "broken" {
		t.Errorf("order %s, %s", box[1].ID, box[2].ID)
	}
}
