package console

import (
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/web"
)

func (c *Console) backupTransferRoutes() []Route {
	download, manage := scopeOf(authz.DownloadBackup), scopeOf(authz.ManageBackups)
	return []Route{
		{Pattern: "GET /stores/{slug}/backups/{backup}/download", RouteOptions: view(download), Handle: c.backupDownload},
		{Pattern: "POST /stores/{slug}/backups/{backup}/download", RouteOptions: RouteOptions{Kind: FileForm, Scope: download}, Handle: c.downloadBackup},
		{Pattern: "GET /stores/{slug}/backups/upload", RouteOptions: view(manage), Handle: c.backupUpload},
		{Pattern: "POST /stores/{slug}/backups/upload", RouteOptions: RouteOptions{Kind: Upload, Scope: manage}, Handle: c.uploadBackup},
	}
}

// backupDownloadView fills the page that downloads a backup.
type backupDownloadView struct {
	Form   ui.Form
	Store  stores.Store
	Backup backups.Backup
}

func (c *Console) backupDownload(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.DownloadBackup)
	if err != nil {
		return err
	}
	b, err := c.backupNamed(r, store)
	if err != nil {
		return err
	}
	return c.showBackupDownload(w, r, backupDownloadView{Store: store, Backup: b})
}

func (c *Console) showBackupDownload(w http.ResponseWriter, r *Request, v backupDownloadView) error {
	return c.render(w, r, v.Form.Status(), storeFrame(v.Store, "backups", "Download a backup"), backupDownloadPage(v))
}

// downloadBackup answers the form with the file.
func (c *Console) downloadBackup(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.DownloadBackup)
	if err != nil {
		return askPasswordFirst(w, r, err)
	}
	b, err := c.backupNamed(r, store)
	if err != nil {
		return err
	}
	begun, err := c.sendBackup(w, r, store, b)
	switch {
	case err == nil:
		return nil
	case begun:
		c.Log.WarnContext(r.Context(), "download of an archive ended early", "backup", b.ID.String(), "err", err)
		panic(http.ErrAbortHandler) // the browser must not take a part for the whole
	}
	v := backupDownloadView{Store: store, Backup: b}
	if v.Form, err = refused(r, err); err != nil {
		return err
	}
	return c.showBackupDownload(w, r, v)
}

// sendBackup sends the file, and reports whether it has begun to.
func (c *Console) sendBackup(w http.ResponseWriter, r *Request, store stores.Store, b backups.Backup) (begun bool, err error) {
	passphrase := r.PostForm.Get("passphrase")
	if passphrase != r.PostForm.Get("passphraseAgain") {
		var faults stoa.Invalid
		faults.Add("passphraseAgain", "is not the same passphrase")
		return false, faults.Err()
	}
	d, err := c.Backups.Download(r.Context(), r.Principal, store.ID, b.ID, backups.FileKey{
		Passphrase: keyring.NewSecret(passphrase), Recipient: r.PostForm.Get("recipient"),
	})
	if err != nil {
		return false, err
	}
	return web.Download(w, d.FileName(), "application/octet-stream", func(out io.Writer) error { return d.WriteTo(r.Context(), out) })
}

// backupUploadView fills the page that uploads a backup.
type backupUploadView struct {
	Form  ui.Form
	Store stores.Store
}

func (c *Console) backupUpload(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ManageBackups)
	if err != nil {
		return err
	}
	return c.showBackupUpload(w, r, backupUploadView{Store: store})
}

func (c *Console) showBackupUpload(w http.ResponseWriter, r *Request, v backupUploadView) error {
	return c.render(w, r, v.Form.Status(), storeFrame(v.Store, "backups", "Upload a backup"), backupUploadPage(v))
}

// uploadBackup stores a file as it arrives.
func (c *Console) uploadBackup(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ManageBackups)
	if err != nil {
		return askPasswordFirst(w, r, err)
	}
	b, err := c.receiveBackup(w, r, store)
	if err == nil {
		return redirect(w, r, backupsPath(store)+"/"+b.ID.String(), "The backup was uploaded and read whole.")
	}
	r.PostForm = url.Values{"passphrase": {""}, "identity": {""}, "file": {""}} // what the form has; no secret is sent back
	// A browser that is still sending may not read the answer.
	_, _ = io.CopyN(io.Discard, r.Body, uploadRest)
	v := backupUploadView{Store: store}
	if v.Form, err = refused(r, uploadFault(err)); err != nil {
		return err
	}
	return c.showBackupUpload(w, r, v)
}

const (
	// uploadRest is how much of the rest of a refused upload is read.
	uploadRest = 64 << 20
	// uploadFields limits the parts before the file, and uploadField the bytes of one.
	uploadFields = 10
	uploadField  = 4 << 10
)

// receiveBackup reads the fields of the form, then hands the file on as it arrives.
func (c *Console) receiveBackup(w http.ResponseWriter, r *Request, store stores.Store) (backups.Backup, error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return backups.Backup{}, stoa.Errorf(stoa.InvalidRequest, "This is not the form of the page. Open the page and send its form.").WithCause(err)
	}
	var key backups.FileKey
	for range uploadFields {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return backups.Backup{}, err
		}
		if part.FormName() == "file" {
			if part.FileName() == "" {
				break
			}
			if key.Passphrase.IsZero() && key.Identity.IsZero() {
				return backups.Backup{}, stoa.Errorf(stoa.InvalidRequest, "The passphrase or the identity must come before the file: fill it in, and send the fields of the form in their order.")
			}
			return c.Backups.Upload(r.Context(), r.Principal, store.ID, key, arriving{part, http.NewResponseController(w)})
		}
		if err := readKeyField(&key, part); err != nil {
			return backups.Backup{}, err
		}
	}
	var faults stoa.Invalid
	faults.Add("file", "choose the file of the backup")
	return backups.Backup{}, faults.Err()
}

// readKeyField reads a field of the form that says what the file is encrypted with.
func readKeyField(key *backups.FileKey, part *multipart.Part) error {
	value, err := io.ReadAll(io.LimitReader(part, uploadField+1))
	if err != nil {
		return err
	}
	name := part.FormName()
	if len(value) > uploadField {
		var faults stoa.Invalid
		faults.Add(name, "is too long")
		return faults.Err()
	}
	switch name {
	case "passphrase":
		key.Passphrase = keyring.NewSecret(string(value))
	case "identity":
		key.Identity = keyring.NewSecret(string(value))
	}
	return nil
}

// arriving is a file as it arrives. When it is complete, the deadline for its next bytes
// ends: one that passes would end the request while the file is read back.
type arriving struct {
	io.Reader
	control *http.ResponseController
}

// Read implements io.Reader.
func (a arriving) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		_ = a.control.SetReadDeadline(time.Time{}) // a writer without a connection has none
	}
	return n, err
}

// uploadFault returns the error for a file that did not arrive.
func uploadFault(err error) error {
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return stoa.Errorf(stoa.PayloadTooLarge, "The file is larger than %s, which is the limit here.", sizeWords(long.Limit)).WithCause(err)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, io.ErrUnexpectedEOF):
		return stoa.Errorf(stoa.InvalidRequest, "The file did not arrive whole. Try again.").WithCause(err)
	}
	return err
}
