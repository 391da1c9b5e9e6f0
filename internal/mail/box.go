package mail

import (
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"mime"
	"mime/quotedprintable"
	netmail "net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Written is a message that was written to a file, without a server.
type Written struct {
	ID      string
	At      time.Time
	To      string
	Subject string
	Text    string
}

// maxBox is how many messages Box shows.
const maxBox = 100

// Box returns the messages that were written to files, newest first, at most 100.
// It returns none with a server.
func (s *Sender) Box() ([]Written, error) {
	if s.server != nil || s.opts.Dir == "" {
		return nil, nil
	}
	files, err := os.ReadDir(s.opts.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var box []Written
	for _, f := range files {
		info, err := f.Info()
		id, isMail := strings.CutSuffix(f.Name(), ".eml")
		if err == nil && isMail && info.Mode().IsRegular() {
			box = append(box, Written{ID: id, At: info.ModTime().UTC()})
		}
	}
	slices.SortFunc(box, func(a, b Written) int { return b.At.Compare(a.At) })
	box = box[:min(len(box), maxBox)]
	return box, s.fill(box)
}

// fill reads the contents of the messages.
func (s *Sender) fill(box []Written) error {
	for i := range box {
		file, err := os.Open(filepath.Join(s.opts.Dir, box[i].ID+".eml"))
		if err != nil {
			return err
		}
		err = box[i].read(file)
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (w *Written) read(r io.Reader) error {
	msg, err := netmail.ReadMessage(r)
	if err != nil {
		w.Subject = "(cannot be read)"
		return nil //nolint:nilerr // another program wrote the file; it is shown as unreadable
	}
	var words mime.WordDecoder
	if w.Subject, err = words.DecodeHeader(msg.Header.Get("Subject")); err != nil {
		w.Subject = msg.Header.Get("Subject")
	}
	if w.To, err = words.DecodeHeader(msg.Header.Get("To")); err != nil {
		w.To = msg.Header.Get("To")
	}
	body := msg.Body
	switch strings.ToLower(msg.Header.Get("Content-Transfer-Encoding")) {
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	}
	text, err := io.ReadAll(io.LimitReader(body, 1<<20))
	w.Text = strings.ReplaceAll(string(text), "\r\n", "\n")
	return err
}
