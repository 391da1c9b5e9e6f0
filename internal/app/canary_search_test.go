package app_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
)

// canaries are secrets by name. The tests fail when one is found where the server
// writes data.
type canaries map[string]string

// add adds a secret. It rejects a short one, which could be found by chance.
func (c canaries) add(t *testing.T, name, secret string) string {
	t.Helper()
	if len(secret) < 10 {
		t.Fatalf("%s is too short to look for: %q", name, secret)
	}
	c[name] = secret
	return secret
}

// forms returns the encodings in which a secret may appear, by name.
func forms(secret string) map[string]string {
	quoted, _ := json.Marshal(secret)
	all := map[string]string{
		"as it is":   secret,
		"in JSON":    strings.Trim(string(quoted), `"`),
		"in a query": url.QueryEscape(secret),
		"in a path":  url.PathEscape(secret),
		"in hex":     hex.EncodeToString([]byte(secret)),
		"in HEX":     strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"reversed":   reversed(secret),
	}
	// In base64 the preceding bytes shift the secret, so its inner characters have one
	// of three forms.
	for offset := range 3 {
		padded := append(make([]byte, offset), secret...)
		for name, encoding := range map[string]*base64.Encoding{"base64 ": base64.RawStdEncoding, "base64url ": base64.RawURLEncoding} {
			text := encoding.EncodeToString(padded)
			all[name+string(rune('0'+offset))] = text[(offset*8+5)/6 : len(padded)*8/6]
		}
	}
	return all
}

func reversed(s string) string {
	b := []byte(s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}

// search fails the test for every canary that the content of a place contains.
func (c canaries) search(t *testing.T, place string, content []byte) {
	t.Helper()
	for name, secret := range c {
		for form, text := range forms(secret) {
			if i := bytes.Index(content, []byte(text)); i >= 0 {
				t.Errorf("%s is in %s, %s: …%q…", name, place, form, content[max(0, i-80):min(len(content), i+len(text)+40)])
				break
			}
		}
	}
}

// TestFormsAreFound checks that the search finds a secret in each encoding.
func TestFormsAreFound(t *testing.T) {
	t.Parallel()
	const secret = "Pä/ss w0rd+?&\"x"
	quoted, err := json.Marshal(object{"password": secret})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"password=" + secret, string(quoted), url.Values{"p": {secret}}.Encode(), "/" + url.PathEscape(secret),
		base64.StdEncoding.EncodeToString([]byte("user:" + secret)), base64.StdEncoding.EncodeToString([]byte("us:" + secret + "!")),
		base64.URLEncoding.EncodeToString([]byte("u:" + secret + "\n")), base64.URLEncoding.EncodeToString([]byte(secret)),
		hex.EncodeToString([]byte("user:" + secret)),
	} {
		found := false
		for _, form := range forms(secret) {
			found = found || strings.Contains(text, form)
		}
		if !found {
			t.Errorf("not found in %s", text)
		}
	}
	for name, form := range forms(secret) {
		if len(form) < 10 {
			t.Errorf("%s is only %q", name, form)
		}
	}
}

// filesBelow returns the content of all files in a directory and its subdirectories.
func filesBelow(t *testing.T, dir string) []byte {
	t.Helper()
	var all bytes.Buffer
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		all.WriteString("\n" + path + "\n")
		all.Write(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.Bytes()
}

// masterBytes returns everything that the master database holds, the job queue's tables
// with the job arguments included. On SQLite it also returns the database files, which
// contain deleted rows.
func masterBytes(t *testing.T, db *masterdb.DB) []byte {
	t.Helper()
	var all bytes.Buffer
	for _, c := range dump(t, db) {
		all.WriteString(c.Table + "." + c.Column + ": " + c.Value + "\n")
		// A column of bytes is printed in hex.
		if raw, err := hex.DecodeString(strings.TrimPrefix(c.Value, `\x`)); err == nil {
			all.Write(raw)
		}
	}
	if db.Engine == masterdb.SQLite {
		var path string
		if err := db.Get(t.Context(), &path, `SELECT file FROM pragma_database_list WHERE name = 'main'`); err != nil {
			t.Fatal(err)
		}
		all.Write(filesBelow(t, filepath.Dir(path)))
	}
	return all.Bytes()
}
