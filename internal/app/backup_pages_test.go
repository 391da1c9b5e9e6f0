package app_test

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cdpbrowser "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

const archivePassphrase = "twelve bytes at least"

// addBackups gives the busy store a checked backup, a failed one and a failed restore, and
// another store ones that go on for ever.
func (w *pageWorld) addBackups(busy, going string) {
	w.t.Helper()
	ctx, owner := w.t.Context(), authz.Principal{UserID: w.ids["owner"]}
	store, err := stoa.ParseID[stoa.StoreID](busy)
	testkit.Must(w.t, err)
	other, err := stoa.ParseID[stoa.StoreID](going)
	testkit.Must(w.t, err)
	made, err := w.s.Backups.Make(ctx, owner, store)
	testkit.Must(w.t, err)
	testkit.Eventually(w.t, testkit.Timeout, "the backup is checked", func() bool {
		made, err = w.s.Backups.Get(ctx, owner, store, made.ID)
		testkit.Must(w.t, err)
		return made.CheckState == backups.CheckPassed
	})
	w.values["{backup}"] = made.ID.String()
	w.tx(func(tx *masterdb.Tx) error {
		for _, b := range []struct {
			store         stoa.StoreID
			state         string
			code, message any
		}{
			{store, "failed", "tenant_unavailable", "The server " + hostileNames[0] + " cannot be reached. " + hostileNames[2]},
			{other, "running", nil, nil},
		} {
			id := stoa.NewID[stoa.BackupID]()
			if b.state == "failed" {
				w.values["{failed}"] = id.String()
			}
			if _, err := tx.Exec(ctx, `INSERT INTO backups (id, store_id, origin, state, tables_done, error_code, error_message, created_at) VALUES ($1, $2, 'schedule', $3, 7, $4, $5, $6)`,
				id, b.store, b.state, b.code, b.message, tx.Now); err != nil {
				return err
			}
			step := map[string]string{"failed": "open", "running": "undo"}[b.state]
			if _, err := tx.Exec(ctx, `INSERT INTO backup_restores (id, store_id, backup_id, source_id, state, step, without, unsaved, error_code, error_message, created_at)
				VALUES ($1, $2, $3, $2, $4, $5, '', $6, 'archive_refused', $7, $8)`,
				stoa.NewID[stoa.RestoreID](), b.store, made.ID, b.state, step, false, "A row of the table "+hostileNames[0]+" was refused.", tx.Now); err != nil {
				return err
			}
		}
		return nil
	})
}

// addMoves gives the busy store a move that can be rolled back and one that failed, and
// another store one that goes on for ever.
func (w *pageWorld) addMoves(busy, going string) {
	w.t.Helper()
	w.tx(func(tx *masterdb.Tx) error {
		for _, m := range []struct {
			store, state, step string
			message, finished  any
		}{
			{busy, "failed", "", "The server " + hostileNames[0] + " cannot be reached. " + hostileNames[2], tx.Now},
			{busy, "kept", "keep", nil, nil},
			{going, "running", "copy", nil, nil},
		} {
			id, far := stoa.NewID[stoa.MoveID](), tx.Now.Add(24*time.Hour)
			w.values[map[string]string{"failed": "{failedMove}", "kept": "{move}", "running": "{running}"}[m.state]] = id.String()
			if _, err := tx.Exec(w.t.Context(), `INSERT INTO store_moves (id, store_id, state, step, schema_version, source_kind, source_engine, source_host, source_port, source_name, source_credentials,
					target_kind, target_engine, target_host, target_port, target_name, target_credentials, rows_copied, changes, frozen_ms, error_code, error_message,
					claimed_by, claimed_until, created_at, swapped_at, keep_until, finished_at)
				VALUES ($1, $2, $3, $4, 1, 'managed', 'sqlite', '', 0, '', '', 'postgresql', 'postgresql', $5, 5432, 'd', '', 1234567, 89, 1999, 'tenant_unavailable', $6,
					'nobody/1', $7, $8, $8, $7, $9)`, id, m.store, m.state, m.step, hostileNames[0]+".example.com", m.message, far, tx.Now, m.finished); err != nil {
				return err
			}
		}
		return nil
	})
}

// part is a part of a form with a file.
type part struct{ name, file, content string }

// upload sends a form with a file, as a browser does. The body ends after cut bytes.
func (b *browserClient) upload(path string, cut int, parts ...part) pageAnswer {
	b.t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for _, p := range parts {
		var w io.Writer
		var err error
		if p.file != "" {
			w, err = form.CreateFormFile(p.name, p.file)
		} else {
			w, err = form.CreateFormField(p.name)
		}
		testkit.Must(b.t, err)
		_, err = io.WriteString(w, p.content)
		testkit.Must(b.t, err)
	}
	testkit.Must(b.t, form.Close())
	if cut > 0 {
		body.Truncate(cut)
	}
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.url+path, &body)
	testkit.Must(b.t, err)
	r.Header = http.Header{"Origin": {b.url}, "Sec-Fetch-Site": {"same-origin"}, "Accept": {"text/html"}, "Content-Type": {form.FormDataContentType()}}
	answer, err := b.http.Do(r)
	testkit.Must(b.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	testkit.Must(b.t, err)
	return pageAnswer{Status: answer.StatusCode, Location: answer.Header.Get("Location"), Header: answer.Header, Body: string(text)}
}

// says fails the test unless the page has the status and the text.
func (a pageAnswer) says(t *testing.T, what string, status int, text string) {
	t.Helper()
	if a.Status != status || !strings.Contains(a.Body, text) {
		t.Errorf("%s: %d to %q, want %d with %q\n%.1500s", what, a.Status, a.Location, status, text, mainText(a.Body))
	}
}

// TestBackupFilesInABrowser downloads a backup and uploads it again, as it should be and in
// all the ways in which it should not.
func TestBackupFilesInABrowser(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	s := startServer(t, cfg)
	w := newPageWorld(t, s)
	b := w.browser("owner")
	page := "/stores/" + w.values["{slug}"] + "/backups"
	download := page + "/" + w.values["{backup}"] + "/download"

	b.post(download, url.Values{"passphrase": {"short"}, "passphraseAgain": {"short"}}).says(t, "a short passphrase", http.StatusUnprocessableEntity, "between 12 and 1000")
	b.post(download, url.Values{"passphrase": {archivePassphrase}, "passphraseAgain": {archivePassphrase + "s"}}).says(t, "two passphrases", http.StatusUnprocessableEntity, "not the same passphrase")
	b.post(download, url.Values{}).says(t, "nothing", http.StatusUnprocessableEntity, "either a passphrase or a recipient")
	b.post(download, url.Values{"recipient": {"age1x"}}).says(t, "a wrong recipient", http.StatusUnprocessableEntity, "Is no public key")
	got := b.post(download, url.Values{"passphrase": {archivePassphrase}, "passphraseAgain": {archivePassphrase}})
	if got.Status != http.StatusOK || !strings.HasPrefix(got.Header.Get("Content-Disposition"), `attachment; filename="`) || !strings.HasPrefix(got.Body, "age-encryption.org") {
		t.Fatalf("download: %d %v\n%.200s", got.Status, got.Header, got.Body)
	}
	if strings.Contains(got.Body, archivePassphrase) || strings.Contains(b.post(download, url.Values{"passphrase": {archivePassphrase}, "recipient": {"x"}, "passphraseAgain": {archivePassphrase}}).Body, archivePassphrase) {
		t.Error("the passphrase is sent back")
	}

	file, key, none := part{"file", "a.stoa", got.Body}, part{name: "passphrase", content: archivePassphrase}, part{name: "identity"}
	for _, c := range []struct {
		what  string
		cut   int
		parts []part
		want  string
	}{
		{"the file before its key", 0, []part{file, key}, "must come before the file"},
		{"no file", 0, []part{key, none}, "Choose the file"},
		{"no chosen file", 0, []part{key, none, {name: "file"}}, "Choose the file"},
		{"a wrong passphrase", 0, []part{{name: "passphrase", content: "another passphrase"}, none, file}, "passphrase"},
		{"a long passphrase", 0, []part{{name: "passphrase", content: strings.Repeat("x", 5000)}, file}, "too long"},
		{"a wrong identity", 0, []part{{name: "identity", content: "AGE-SECRET-KEY-1X"}, file}, "identity"},
		{"two keys", 0, []part{key, {name: "identity", content: "AGE-SECRET-KEY-1X"}, file}, "either the passphrase or the identity"},
		{"no archive", 0, []part{key, {"file", "a.stoa", strings.Repeat("no archive ", 1000)}}, ""},
		{"half a file", len(got.Body) / 2, []part{key, none, file}, "did not arrive whole"},
		{"half a field", 125, []part{key, none, file}, "did not arrive whole"},
	} {
		b.upload(page+"/upload", c.cut, c.parts...).says(t, c.what, http.StatusUnprocessableEntity, c.want)
	}
	b.post(page+"/upload", url.Values{"passphrase": {archivePassphrase}}).says(t, "another form", http.StatusUnprocessableEntity, "not the form of the page")

	up := b.upload(page+"/upload", 0, key, none, file)
	if up.Status != http.StatusSeeOther || !strings.HasPrefix(up.Location, page+"/") {
		t.Fatalf("upload: %d to %q\n%s", up.Status, up.Location, mainText(up.Body))
	}
	testkit.Eventually(t, testkit.Timeout, "the uploaded backup is checked", func() bool { return strings.Contains(b.get(up.Location).Body, "Restored and equal") })
	b.get(page).says(t, "the list", http.StatusOK, "Uploaded")

	// The same file is another store's there: it can be cloned, not restored.
	theirs := b.newStore("Another")
	testkit.Eventually(t, testkit.Timeout, "the other store is open", func() bool { return strings.Contains(b.get(theirs+"/provisioning").Body, "The store is open") })
	up = b.upload(theirs+"/backups/upload", 0, key, file)
	foreign := b.get(up.Location)
	foreign.says(t, "a backup of another store", http.StatusOK, "It can be cloned into a new store, not restored")
	if strings.Contains(foreign.Body, "/restore\"") {
		t.Error("a backup of another store can be restored")
	}

	// Without a recent password, a form with a secret or a file leads back to its page.
	execMaster(t, s, `UPDATE sessions SET authenticated_at = NULL`)
	sent := map[string]pageAnswer{
		download:         b.post(download, url.Values{"passphrase": {archivePassphrase}, "passphraseAgain": {archivePassphrase}}),
		page + "/upload": b.upload(page+"/upload", 0, key, file),
	}
	for path, a := range sent {
		if a.Status != http.StatusSeeOther || a.Location != "/reauthenticate?next="+url.QueryEscape(path) {
			t.Errorf("%s without a recent password: %d to %q", path, a.Status, a.Location)
		}
	}
}

// TestBackupScheduleInABrowser changes the schedule and gives it back to the platform.
func TestBackupScheduleInABrowser(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	b := signUpInBrowser(t, startServer(t, cfg), "ada@example.com")
	page := b.newStore("Bakery") + "/backups"
	b.post("/reauthenticate", url.Values{"password": {browserPassword}})
	b.get(page).says(t, "the platform's", http.StatusOK, "7 daily, 4 weekly and 6 monthly are kept")
	b.post(page+"/schedule", url.Values{"use": {"own"}, "hourly": {"many"}, "daily": {"-1"}}).says(t, "no number", http.StatusUnprocessableEntity, "Must be a number")
	b.post(page+"/schedule", url.Values{"use": {"own"}, "hourly": {"1001"}}).says(t, "too many", http.StatusUnprocessableEntity, "between 0 and 1000")
	b.post(page+"/schedule", url.Values{"hourly": {"1"}}).says(t, "no choice", http.StatusUnprocessableEntity, "Choose one")
	if a := b.post(page+"/schedule", url.Values{"use": {"own"}, "hourly": {"24"}, "weekly": {"2"}}); a.Location != page {
		t.Fatalf("saved: %d to %q", a.Status, a.Location)
	}
	b.get(page).says(t, "its own", http.StatusOK, "A backup is made every hour. Of these, 24 hourly and 2 weekly are kept.")
	b.post(page+"/schedule", url.Values{"use": {"own"}})
	b.get(page).says(t, "none", http.StatusOK, "No backups are made unless somebody asks for one.")
	b.post(page+"/schedule", url.Values{"use": {"platform"}})
	b.get(page).says(t, "the platform's again", http.StatusOK, "7 daily, 4 weekly and 6 monthly are kept")
}

// TestBackupsInChromium backs a store up, restores it, clones it, downloads the backup and
// uploads it again, as its owner does.
func TestBackupsInChromium(t *testing.T) {
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	s := startServer(t, cfg)
	owner := signUpInBrowser(t, s, "ada@example.com")
	path := owner.newStore("Bakery")
	testkit.Eventually(t, testkit.Timeout, "the store is open", func() bool { return strings.Contains(owner.get(path+"/provisioning").Body, "The store is open") })
	c := startChromium(t, s)
	c.open("/signin")
	c.fill("email", "ada@example.com")
	c.fill("password", browserPassword)
	c.press("Sign in")
	describe := func(text string) {
		c.open(path + "/settings")
		c.fill("description", text)
		c.press("Save")
	}

	describe("Before the backup")
	c.open(path + "/backups")
	c.shows("No backups yet")
	c.press("Back up now")
	c.shows("Asked for", "Complete", "Restored and equal") // by itself
	c.noFaults("a backup")
	c.open(path)
	c.shows("Last backup", "Restored and equal")

	describe("After the backup")
	c.open(path + "/backups")
	c.press("just now")
	c.shows("What it contains", "products", "SQLite")
	execMaster(t, s, `UPDATE sessions SET authenticated_at = NULL`)
	c.press("Restore…")
	c.fill("password", browserPassword)
	c.press("Confirm")
	c.shows("The present rows are backed up before they are replaced.")
	c.fill("confirm", "wrong")
	c.press("Restore the backup")
	c.shows("This is not the name.")
	c.refusedForm("a wrong name")
	c.fill("confirm", strings.TrimPrefix(path, "/stores/"))
	c.press("Restore the backup")
	c.shows("Last restore", "The rows of the backup are in the store", "Saved before a restore")
	c.noFaults("a restore")
	c.open(path + "/settings")
	c.await("the text of before", `document.querySelector('[name="description"]').value === "Before the backup"`)

	c.open(path + "/backups")
	c.press("this backup")
	backup := c.path()
	c.press("Clone…")
	c.fill("name", "Bakery to try things")
	c.choose("without", "customers")
	c.press("Clone into a new store")
	c.shows("This store was cloned from a backup", "The rows of the backup are in the store")
	c.noFaults("a clone")
	c.open("/stores/bakery-to-try-things/settings")
	c.await("the text of the backup in the clone", `document.querySelector('[name="description"]').value === "Before the backup"`)

	file := c.download(func() {
		c.open(backup + "/download")
		c.fill("passphrase", archivePassphrase)
		c.fill("passphraseAgain", archivePassphrase)
		c.click("Download")
	})
	c.open(path + "/backups/upload")
	c.fill("passphrase", archivePassphrase)
	c.do(chromedp.SetUploadFiles(chromedp.CSS(`main input[type=file]`), []string{file}))
	c.press("Upload")
	c.shows("Uploaded", "by Ada Lovelace", "Restored and equal")
	c.noFaults("an upload")
	c.press("Delete…")
	c.fill("confirm", strings.TrimPrefix(path, "/stores/"))
	c.press("Delete the backup")
	c.shows("The backup was deleted.")
	if strings.Contains(owner.get(path+"/backups").Body, "Uploaded") {
		t.Error("the deleted backup is listed")
	}
}

// download returns the file that the browser downloads in answer to ask.
func (c *chromium) download(ask func()) string {
	c.t.Helper()
	folder := c.t.TempDir()
	call(c, cdpbrowser.SetDownloadBehavior, cdpbrowser.SetDownloadBehaviorParams{Behavior: cdpbrowser.SetDownloadBehaviorBehaviorAllow, DownloadPath: folder})
	ask()
	name := ""
	testkit.Eventually(c.t, testkit.Timeout, "the download is complete", func() bool {
		files, err := os.ReadDir(folder)
		testkit.Must(c.t, err)
		if len(files) == 1 && strings.HasSuffix(files[0].Name(), ".stoa") {
			name = filepath.Join(folder, files[0].Name())
		}
		return name != ""
	})
	return name
}
