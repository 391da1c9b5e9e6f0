package archive

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"net/url"
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
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || !stoa.HasValidPort(u) || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
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
