package archive

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // S3 names contents by it
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/stoahq/stoa"
)

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
