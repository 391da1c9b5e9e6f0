package archive

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

// Open implements Storage. The reader asks for the rest of the archive if the connection
// breaks.
func (s *S3) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	info, err := s.stat(ctx, name)
	if err != nil {
		return nil, err
	}
	return &objectReader{s: s, ctx: ctx, key: s.opts.Prefix + name, etag: strings.Trim(info.ETag, `"`), size: info.Size}, nil
}

// objectReader reads an object that does not change meanwhile.
type objectReader struct {
	s      *S3
	ctx    context.Context //nolint:containedctx // of the reader, as in http.Request
	key    string
	etag   string
	size   int64
	offset int64
	tries  int // failures without a byte in between

	body   io.ReadCloser
	cancel context.CancelFunc
	stall  *time.Timer
}

// Read implements io.Reader.
func (r *objectReader) Read(p []byte) (int, error) {
	for {
		if r.offset == r.size {
			return 0, io.EOF
		}
		n, err := r.readOnce(p[:min(int64(len(p)), r.size-r.offset)])
		if n > 0 {
			r.offset, r.tries = r.offset+int64(n), 0
			return n, nil
		}
		if len(p) == 0 {
			return 0, nil
		}
		r.closeBody()
		if r.tries++; r.tries >= s3Tries || r.ctx.Err() != nil || isStatus(err, 403, 404, 412) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, s3Fault(r.ctx, err)
		}
	}
}

func (r *objectReader) readOnce(p []byte) (int, error) {
	if r.body == nil {
		if err := r.open(); err != nil {
			return 0, err
		}
	}
	r.stall.Reset(r.s.opts.PartTimeout)
	defer r.stall.Stop()
	return r.body.Read(p)
}

// open asks for the bytes from the offset on.
func (r *objectReader) open() error {
	ctx, cancel := context.WithCancel(r.ctx)
	r.cancel, r.stall = cancel, time.AfterFunc(r.s.opts.PartTimeout, cancel)
	opts := minio.GetObjectOptions{}
	err := opts.SetMatchETag(r.etag)
	if err == nil && r.offset > 0 {
		err = opts.SetRange(r.offset, r.size-1)
	}
	if err == nil {
		r.body, _, _, err = r.s.client.GetObject(ctx, r.s.opts.Bucket, r.key, opts)
	}
	return err
}

func (r *objectReader) closeBody() {
	if r.cancel == nil {
		return
	}
	r.stall.Stop()
	r.cancel()
	if r.body != nil {
		_ = r.body.Close()
	}
	r.body, r.cancel = nil, nil
}

// Close implements io.Closer.
func (r *objectReader) Close() error {
	r.closeBody()
	return nil
}
