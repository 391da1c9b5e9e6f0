package archive

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // S3 names contents by it
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
)

const (
	// partSize is the number of bytes of a part, which is kept in memory until it is
	// stored. All parts but the last have the same size, as some servers require.
	partSize = 16 << 20
	maxParts = 10_000                 // S3's limit
	s3Tries  = 5                      // attempts of each request
	s3Pause  = 100 * time.Millisecond // before an attempt, doubled each time
	// abortTimeout limits the removal of an incomplete upload.
	abortTimeout = 30 * time.Second
)

// S3Options describe a bucket.
type S3Options struct {
	Endpoint  string // URL of the server, such as https://s3.eu-west-1.amazonaws.com
	Region    string // default us-east-1
	Bucket    string
	Prefix    string // before every name; ends with / unless it is empty
	AccessKey string
	Secret    keyring.Secret
	// VirtualHost names the bucket in the host instead of the path.
	VirtualHost bool
	// PartTimeout limits the upload of a part, with its retries, and how long a read may
	// wait for the next bytes. The default is 5 minutes.
	PartTimeout time.Duration
	Transport   http.RoundTripper // nil: the default one
}

// S3 is a Storage in a bucket of an S3-compatible server.
type S3 struct {
	opts   S3Options
	client *minio.Core
	// These abilities are known after Check. Before, none is assumed.
	conditional atomic.Bool // the server refuses to complete an upload over an object
	md5         atomic.Bool // ETags are made of MD5 sums
}

// NewS3 returns a Storage in a bucket, which must exist. It makes no request: see Check.
func NewS3(opts S3Options) (*S3, error) {
	u, err := url.Parse(opts.Endpoint)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, errors.New("the endpoint is a URL such as https://s3.eu-west-1.amazonaws.com, without path and user")
	}
	if opts.Prefix != "" && (!strings.HasSuffix(opts.Prefix, "/") || checkPrefix(opts.Prefix) != nil) {
		return nil, errors.New("the prefix consists of letters, digits and . _ -, and ends with /")
	}
	if opts.Region == "" {
		opts.Region = "us-east-1"
	}
	if opts.PartTimeout == 0 {
		opts.PartTimeout = 5 * time.Minute
	}
	lookup := minio.BucketLookupPath
	if opts.VirtualHost {
		lookup = minio.BucketLookupDNS
	}
	client, err := minio.NewCore(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(opts.AccessKey, opts.Secret.Reveal(), ""), Secure: u.Scheme == "https",
		Region: opts.Region, BucketLookup: lookup, MaxRetries: s3Tries, Transport: opts.Transport,
	})
	if err != nil {
		return nil, err
	}
	return &S3{opts: opts, client: client}, nil
}

// Check implements Storage. It finds out what the server can do, with an object of its own.
func (s *S3) Check(ctx context.Context) (notes []string, err error) {
	name := "check-" + rand.Text()
	defer func() {
		if deleteErr := s.Delete(context.WithoutCancel(ctx), name); err == nil {
			err = deleteErr
		}
	}()
	write := func(content string) func(io.Writer) error {
		return func(w io.Writer) error {
			_, err := io.WriteString(w, content)
			return err
		}
	}
	up, err := s.upload(ctx, name, write(name), false)
	if err != nil {
		return nil, err
	}
	s.md5.Store(up.etag == up.expectedETag())
	if err := s.readsBack(ctx, name); err != nil {
		return nil, err
	}
	_, err = s.upload(ctx, name, write("another content"), true)
	s.conditional.Store(isStatus(err, http.StatusPreconditionFailed, http.StatusConflict))
	switch {
	case s.conditional.Load():
	case err != nil && !isStatus(err, http.StatusBadRequest, http.StatusNotImplemented):
		return nil, err
	default:
		notes = append(notes, "The object storage ignores If-None-Match when an upload completes. Whether an archive of the same name exists is asked before instead.")
	}
	if !s.md5.Load() {
		notes = append(notes, "The object storage's ETags are not MD5 sums, as with server-side encryption by KMS. Uploads are checked by their length, and each part by the server.")
	}
	return notes, nil
}

func (s *S3) readsBack(ctx context.Context, name string) error {
	r, err := s.Open(ctx, name)
	if err != nil {
		return err
	}
	defer r.Close()
	got, err := io.ReadAll(io.LimitReader(r, int64(len(name))+1))
	if err == nil && string(got) != name {
		err = storageLies("a test object came back changed")
	}
	return err
}

// Create implements Storage, with a multipart upload.
func (s *S3) Create(ctx context.Context, name string, write func(io.Writer) error) (Stored, error) {
	if err := checkName(name); err != nil {
		return Stored{}, err
	}
	conditional := s.conditional.Load()
	if !conditional {
		_, err := s.stat(ctx, name)
		if err == nil {
			return Stored{}, archiveExists(nil)
		}
		if stoa.CodeOf(err) != stoa.NotFound {
			return Stored{}, err
		}
	}
	up, err := s.upload(ctx, name, write, conditional)
	if err != nil {
		return Stored{}, err
	}
	return Stored{name, up.bytes, up.at}, nil
}

// upload is one multipart upload.
type upload struct {
	s    *S3
	ctx  context.Context //nolint:containedctx // of the one call that uses it
	key  string
	id   string
	err  error
	etag string
	at   time.Time

	buffer []byte
	parts  []minio.CompletePart
	sums   []byte // MD5 of each part
	bytes  int64
}

func (s *S3) upload(ctx context.Context, name string, write func(io.Writer) error, conditional bool) (_ *upload, err error) {
	up := &upload{s: s, ctx: ctx, key: s.opts.Prefix + name}
	if up.id, err = s.client.NewMultipartUpload(ctx, s.opts.Bucket, up.key, minio.PutObjectOptions{ContentType: "application/octet-stream"}); err != nil {
		return nil, s3Fault(ctx, err)
	}
	err = write(up)
	switch {
	case up.err != nil:
		err = up.err
	case err == nil:
		if err = up.flush(); err == nil {
			err = up.complete(conditional)
		}
	}
	if err != nil {
		up.abort()
		return nil, err
	}
	return up, nil
}

// Write implements io.Writer. It stores each part that is full.
func (up *upload) Write(p []byte) (n int, err error) {
	for len(p) > 0 && up.err == nil {
		if up.buffer == nil {
			up.buffer = make([]byte, 0, partSize)
		}
		take := min(len(p), partSize-len(up.buffer))
		up.buffer = append(up.buffer, p[:take]...)
		p, n = p[take:], n+take
		if len(up.buffer) == partSize {
			up.err = up.flush()
		}
	}
	return n, up.err
}

// flush stores the part in the buffer.
func (up *upload) flush() error {
	if len(up.buffer) == 0 && len(up.parts) > 0 {
		return nil
	}
	if len(up.parts) == maxParts {
		return stoa.Errorf(stoa.ArchiveStorageFailed, "The archive is larger than %d GiB, the most that one object of this storage may have.", int64(maxParts)*partSize>>30)
	}
	ctx, cancel := context.WithTimeout(up.ctx, up.s.opts.PartTimeout)
	defer cancel()
	// The server refuses a part that arrives with another content.
	sum, digest := md5.Sum(up.buffer), sha256.Sum256(up.buffer) //nolint:gosec // S3's own
	number := len(up.parts) + 1
	part, err := up.putPart(ctx, number,
		minio.PutObjectPartOptions{Md5Base64: base64.StdEncoding.EncodeToString(sum[:]), Sha256Hex: hex.EncodeToString(digest[:]), DisableContentSha256: true})
	if err != nil {
		return s3Fault(up.ctx, err)
	}
	if up.s.md5.Load() && strings.Trim(part.ETag, `"`) != hex.EncodeToString(sum[:]) {
		return storageLies(fmt.Sprintf("part %d has another checksum there", number))
	}
	up.parts = append(up.parts, minio.CompletePart{PartNumber: number, ETag: part.ETag})
	up.sums = append(up.sums, sum[:]...)
	up.bytes += int64(len(up.buffer))
	up.buffer = up.buffer[:0]
	return nil
}

// putPart stores the part in the buffer, in several attempts. Each attempt has a reader of
// its own, which the client cannot rewind, and what it reads is not used again after a
// failure: the connection may still read the body of an attempt that has failed.
func (up *upload) putPart(ctx context.Context, number int, opts minio.PutObjectPartOptions) (minio.ObjectPart, error) {
	content := up.buffer
	for try := 1; ; try++ {
		body := io.LimitReader(bytes.NewReader(content), int64(len(content)))
		part, err := up.s.client.PutObjectPart(ctx, up.s.opts.Bucket, up.key, up.id, number, body, int64(len(content)), opts)
		if err == nil || try == s3Tries || !isTemporary(err) {
			return part, err
		}
		up.buffer = slices.Clone(content)
		content = up.buffer
		select {
		case <-time.After(s3Pause << try):
		case <-ctx.Done():
			return part, err
		}
	}
}

// isTemporary reports whether a request may succeed when it is sent again.
func isTemporary(err error) bool {
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) {
		return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
	}
	switch answer.Code {
	case "RequestTimeout", "SlowDown", "SlowDownWrite", "InternalError", "Throttling", "RequestLimitExceeded":
		return true
	}
	switch answer.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// expectedETag returns the ETag of an object of these parts on a server that uses MD5 sums.
func (up *upload) expectedETag() string {
	sum := md5.Sum(up.sums) //nolint:gosec // S3's own
	return fmt.Sprintf("%x-%d", sum, len(up.parts))
}

// complete makes an object of the parts, and checks it. If the answer is lost, the object
// says whether the upload is complete.
func (up *upload) complete(conditional bool) error {
	opts := minio.PutObjectOptions{}
	if conditional {
		opts.SetMatchETagExcept("*")
	}
	_, completeErr := up.s.client.CompleteMultipartUpload(up.ctx, up.s.opts.Bucket, up.key, up.id, up.parts, opts)
	stored, err := up.s.statKey(up.ctx, up.key)
	etag := strings.Trim(stored.ETag, `"`)
	if completeErr != nil {
		// A retry of a request whose answer was lost fails. The checksum says whose object
		// it is, because no two archives are the same.
		if err == nil && up.s.md5.Load() && etag == up.expectedETag() {
			up.etag, up.at = etag, stored.LastModified
			return nil
		}
		return s3Fault(up.ctx, completeErr)
	}
	if err != nil {
		return s3Fault(up.ctx, err)
	}
	up.etag, up.at = etag, stored.LastModified
	switch {
	case stored.Size != up.bytes:
		err = storageLies(fmt.Sprintf("it has %d bytes there instead of %d", stored.Size, up.bytes))
	case up.s.md5.Load() && up.etag != up.expectedETag():
		err = storageLies("it has another checksum there")
	default:
		return nil
	}
	if !conditional {
		return err // the object may be another writer's, who completed an upload of this name meanwhile
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(up.ctx), min(abortTimeout, up.s.opts.PartTimeout))
	defer cancel()
	_ = up.s.client.RemoveObject(ctx, up.s.opts.Bucket, up.key, minio.RemoveObjectOptions{})
	return err
}

// abort removes the parts. If the server cannot be reached, a lifecycle rule of the bucket
// must remove them.
func (up *upload) abort() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(up.ctx), min(abortTimeout, up.s.opts.PartTimeout))
	defer cancel()
	_ = up.s.client.AbortMultipartUpload(ctx, up.s.opts.Bucket, up.key, up.id)
}

func (s *S3) stat(ctx context.Context, name string) (minio.ObjectInfo, error) {
	info, err := s.statKey(ctx, s.opts.Prefix+name)
	return info, s3Fault(ctx, err)
}

func (s *S3) statKey(ctx context.Context, key string) (minio.ObjectInfo, error) {
	return s.client.StatObject(ctx, s.opts.Bucket, key, minio.StatObjectOptions{})
}

// List implements Storage.
func (s *S3) List(ctx context.Context, prefix string, fn func(Stored) error) error {
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx) // ends the goroutine that lists
	defer cancel()
	for o := range s.client.Client.ListObjects(ctx, s.opts.Bucket, minio.ListObjectsOptions{Prefix: s.opts.Prefix + prefix, Recursive: true}) {
		if o.Err != nil {
			return s3Fault(ctx, o.Err)
		}
		name, ours := strings.CutPrefix(o.Key, s.opts.Prefix)
		if !ours || checkName(name) != nil {
			continue
		}
		if err := fn(Stored{name, o.Size, o.LastModified}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Delete implements Storage.
func (s *S3) Delete(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	err := s3Fault(ctx, s.client.RemoveObject(ctx, s.opts.Bucket, s.opts.Prefix+name, minio.RemoveObjectOptions{}))
	if stoa.CodeOf(err) == stoa.NotFound {
		return nil
	}
	return err
}

func isStatus(err error, statuses ...int) bool {
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) {
		return false
	}
	for _, status := range statuses {
		if answer.StatusCode == status {
			return true
		}
	}
	return false
}

// s3Fault returns the error for a failure of a request.
func s3Fault(ctx context.Context, err error) error {
	var (
		answer minio.ErrorResponse
		known  *stoa.Error
	)
	if err == nil || errors.As(err, &known) {
		return err
	}
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	if !errors.As(err, &answer) {
		return storageUnavailable(err)
	}
	switch answer.Code {
	case "NoSuchBucket":
		return stoa.Errorf(stoa.ArchiveStorageFailed, "The bucket of the archives does not exist. Create it, or correct its name.").WithCause(err)
	case "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "StorageFull", "InsufficientCapacity":
		return storageFull(err)
	}
	switch answer.StatusCode {
	case http.StatusInsufficientStorage:
		return storageFull(err)
	case http.StatusUnauthorized, http.StatusForbidden:
		return storageForbidden(err)
	case http.StatusNotFound:
		return noArchive(err)
	case http.StatusPreconditionFailed, http.StatusConflict:
		return archiveExists(err)
	}
	return storageUnavailable(err)
}
