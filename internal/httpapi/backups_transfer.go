package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/keyring"
)

const (
	// transferTimeout limits the transfer of an archive. A client that makes no progress is
	// cut off much sooner.
	transferTimeout = 12 * time.Hour
	// maxArchive is the limit of an uploaded archive.
	maxArchive = 64 << 30
	octetType  = "application/octet-stream"
)

func (a *api) transferRoutes(tags []string) {
	file := map[string]*huma.MediaType{octetType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}
	route(a, routeOptions{timeout: transferTimeout, rate: rateDatabaseWait, scope: scope(authz.DownloadBackup), maxBody: maxJSON},
		huma.Operation{OperationID: "backups.download", Method: http.MethodPost, Path: backupsPath + "/{backupId}/download", Tags: tags,
			Summary: "Download an archive",
			Description: "For owners, in person; it is in the audit log. The file is encrypted with age for what the body names. docs/archive-format.md describes the format. " +
				"A file that was cut off is recognised when it is read.",
			Responses: map[string]*huma.Response{"200": {Description: "The archive", Content: file}},
			Errors:    []int{400, 401, 403, 404, 413, 422, 502}}, a.downloadBackup)
	route(a, routeOptions{timeout: transferTimeout, rate: rateDatabaseWait, scope: scope(authz.ManageBackups), maxBody: maxArchive, streamed: true},
		huma.Operation{OperationID: "backups.upload", Method: http.MethodPost, Path: backupsPath + "/upload", Tags: tags, DefaultStatus: http.StatusCreated,
			Summary: "Upload an archive",
			Description: "For owners, in person. The body is the file as it was downloaded, here or at another installation, and a header has the key. It is encrypted anew for " +
				"this store, read whole, and kept until somebody deletes it. One of another store can be cloned, not restored.",
			RequestBody: &huma.RequestBody{Required: true, Content: file},
			Errors:      []int{400, 401, 403, 404, 413, 422, 502}}, a.uploadBackup)
}

type downloadInput struct {
	BackupPath
	Body downloadBody
}

type downloadBody struct {
	Passphrase keyring.Secret `json:"passphrase,omitempty" doc:"Of at least 12 bytes: who has the file and the passphrase has the store's data"`
	Recipient  string         `json:"recipient,omitempty" maxLength:"200" doc:"A public key of age instead of a passphrase" example:"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"`
}

func (a *api) downloadBackup(ctx context.Context, in *downloadInput) (*huma.StreamResponse, error) {
	store, id, err := in.ids()
	if err != nil {
		return nil, err
	}
	d, err := a.Backups.Download(ctx, principal(ctx), store, id, backups.FileKey{Passphrase: in.Body.Passphrase, Recipient: in.Body.Recipient})
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		ctx.SetHeader("Content-Type", octetType)
		ctx.SetHeader("Content-Disposition", attachment(d.FileName()))
		ctx.SetStatus(http.StatusOK)
		if err := d.WriteTo(ctx.Context(), ctx.BodyWriter()); err != nil {
			a.Log.WarnContext(ctx.Context(), "download of an archive ended early", "request_id", requestID(ctx.Context()), "err", err)
			panic(http.ErrAbortHandler) // the client must not take a part for the whole
		}
	}}, nil
}

type uploadInput struct {
	StorePath
	Passphrase string `header:"Stoa-Archive-Passphrase" maxLength:"1000" doc:"The passphrase that the file is encrypted with"`
	Identity   string `header:"Stoa-Archive-Identity" maxLength:"200" doc:"The secret key of age (AGE-SECRET-KEY-1…) that opens the file, instead of a passphrase"`
}

func (a *api) uploadBackup(ctx context.Context, in *uploadInput) (*backupOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	k := backups.FileKey{Passphrase: keyring.NewSecret(in.Passphrase), Identity: keyring.NewSecret(in.Identity)}
	b, err := a.Backups.Upload(ctx, principal(ctx), id, k, requestOf(ctx).body)
	if err != nil {
		return nil, bodyError(err)
	}
	return a.backupOutput(b), nil
}

// steadyBody is a request body that may take long to arrive, but not to make progress.
type steadyBody struct {
	io.ReadCloser
	w http.ResponseWriter
}

// Read implements io.Reader.
func (b steadyBody) Read(p []byte) (int, error) {
	setReadDeadline(b.w, stallTimeout)
	n, err := b.ReadCloser.Read(p)
	if err != nil { // the deadline would end the work on what has arrived
		_ = http.NewResponseController(b.w).SetReadDeadline(time.Time{}) // a writer without a connection has none
	}
	return n, err
}

// bodyError returns the error for a body that did not arrive.
func bodyError(err error) error {
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return stoa.Errorf(stoa.PayloadTooLarge, "The file is longer than %d GiB, which is the limit here.", maxArchive>>30).WithCause(err)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, io.ErrUnexpectedEOF):
		return stoa.Errorf(stoa.InvalidRequest, "The file did not arrive whole. Try again.").WithCause(err)
	}
	return err
}
