package archive

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/signer"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/testkit"
)

// s3Env is the environment variable with the URL of an S3 server, its keys included.
// scripts/with-servers sets it.
const s3Env = "STOA_TEST_S3_URL"

// bucketServer is a proxy in front of one bucket of a real S3 server. Each request passes
// through fault, if set, which returns false if it has answered.
type bucketServer struct {
	answer  http.HandlerFunc // of the S3 server
	uploads func() int       // the number of incomplete uploads in the bucket

	mu    sync.Mutex
	fault func(w http.ResponseWriter, r *http.Request) bool
}

// newBucket creates a bucket. The Storage reaches it through the proxy.
func newBucket(t *testing.T) (*bucketServer, *S3) {
	t.Helper()
	given := os.Getenv(s3Env)
	if given == "" {
		testkit.Unavailable(t, s3Env+" is not set; run the tests with scripts/with-servers")
	}
	target, err := url.Parse(given)
	testkit.Must(t, err)
	secret, _ := target.User.Password()
	bucket := "archives-" + strings.ToLower(crand.Text()[:16])
	direct, err := minio.NewCore(target.Host, &minio.Options{Creds: credentials.NewStaticV4(target.User.Username(), secret, ""), Region: "us-east-1"})
	testkit.Must(t, err)
	testkit.Must(t, direct.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{}))
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: target.Scheme, Host: target.Host})
			r.Out.Host = r.In.Host // which is signed
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     log.New(io.Discard, "", 0),
	}
	b := &bucketServer{answer: forward.ServeHTTP, uploads: func() int {
		list, err := direct.ListMultipartUploads(context.WithoutCancel(t.Context()), bucket, "", "", "", "", 100)
		testkit.Must(t, err)
		return len(list.Uploads)
	}}
	server := httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(server.Close)
	s, err := NewS3(S3Options{Endpoint: server.URL, Bucket: bucket, Prefix: "stoa/", AccessKey: target.User.Username(), Secret: keyring.NewSecret(secret)})
	testkit.Must(t, err)
	return b, s
}

// ignoreConditions makes the server one that completes uploads over existing objects, as
// older ones do.
func (b *bucketServer) ignoreConditions(s *S3) {
	forward := b.answer
	b.answer = func(w http.ResponseWriter, r *http.Request) {
		if isComplete(r) && r.Header.Get("If-None-Match") != "" {
			r.Header.Del("If-None-Match") // and that changes what is signed
			signed := signer.SignV4(*r, s.opts.AccessKey, s.opts.Secret.Reveal(), "", s.opts.Region)
			r.Header = signed.Header
		}
		forward(w, r)
	}
}

func (b *bucketServer) setFault(fault func(w http.ResponseWriter, r *http.Request) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault = fault
}

func (b *bucketServer) serve(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	fault := b.fault
	b.mu.Unlock()
	if fault == nil || fault(w, r) {
		b.answer(w, r)
	}
}

func isComplete(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
}

func isPart(r *http.Request) bool {
	return r.Method == http.MethodPut && r.URL.Query().Has("partNumber")
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>refused</Message></Error>`, code)
}

// random writes size bytes that a reader can compare.
func random(size int, seed uint64) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.CopyN(w, rand.NewChaCha8([32]byte{byte(seed)}), int64(size))
		return err
	}
}

func sumOf(t *testing.T, r io.Reader) string {
	t.Helper()
	h := sha256.New()
	_, err := io.Copy(h, r)
	testkit.Must(t, err)
	return fmt.Sprintf("%x", h.Sum(nil))
}

func wantStored(t *testing.T, s Storage, name string, size int) {
	t.Helper()
	r, err := s.Open(t.Context(), name)
	testkit.Must(t, err)
	defer r.Close()
	var want bytes.Buffer
	testkit.Must(t, random(size, 1)(&want))
	if sumOf(t, r) != sumOf(t, &want) {
		t.Errorf("%s does not come back as it was stored", name)
	}
}

func names(t *testing.T, s Storage, prefix string) (list []string) {
	t.Helper()
	testkit.Must(t, s.List(t.Context(), prefix, func(o Stored) error {
		list = append(list, o.Name)
		return nil
	}))
	slices.Sort(list)
	return list
}

// TestStorage runs the same steps on each kind of storage.
func TestStorage(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) Storage{
		"folder": func(t *testing.T) Storage { t.Helper(); return NewFolder(filepath.Join(t.TempDir(), "new")) },
		"s3":     func(t *testing.T) Storage { t.Helper(); _, s := newBucket(t); return s },
		"s3 without conditions": func(t *testing.T) Storage {
			t.Helper()
			b, s := newBucket(t)
			b.ignoreConditions(s)
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			notes, err := s.Check(t.Context())
			testkit.Must(t, err)
			if (len(notes) > 0) != strings.Contains(name, "without") {
				t.Errorf("notes: %v", notes)
			}
			if got := names(t, s, ""); got != nil {
				t.Errorf("Check left %v", got)
			}
			testStorage(t, s)
		})
	}
}

func testStorage(t *testing.T, s Storage) {
	t.Helper()
	ctx := t.Context()
	store := stoa.NewID[stoa.StoreID]()
	large := FileName(store, time.Now(), "1")
	for name, size := range map[string]int{large: 2*partSize + 5, "exact": partSize, "short": 1, "stores/a/b.stoa": 10} {
		stored, err := s.Create(ctx, name, random(size, 1))
		testkit.Must(t, err)
		if stored.Name != name || stored.Bytes != int64(size) || time.Since(stored.At).Abs() > time.Hour {
			t.Errorf("stored %+v", stored)
		}
		wantStored(t, s, name, size)
	}
	_, err := s.Create(ctx, "exact", random(3, 2))
	wantMessage(t, err, stoa.ArchiveStorageFailed, "already")
	wantStored(t, s, "exact", partSize)
	own := errors.New("own")
	_, err = s.Create(ctx, "broken", func(w io.Writer) error {
		testkit.Must(t, random(partSize+1, 1)(w))
		return own
	})
	if !errors.Is(err, own) {
		t.Errorf("the error is %v, want that of the caller", err)
	}
	want := []string{"exact", large, "short", "stores/a/b.stoa"}
	slices.Sort(want)
	if diff := cmp.Diff(want, names(t, s, "")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := names(t, s, "stores/"+store.String()+"/"); !slices.Equal(got, []string{large}) {
		t.Errorf("the store has %v", got)
	}
	if got := names(t, s, "none/"); got != nil {
		t.Errorf("there is %v", got)
	}
	err = s.List(ctx, "", func(Stored) error { return own })
	if !errors.Is(err, own) {
		t.Errorf("List returns %v, want the error of the caller", err)
	}
	testkit.Must(t, s.Delete(ctx, "exact"))
	testkit.Must(t, s.Delete(ctx, "exact"))
	_, err = s.Open(ctx, "exact")
	wantMessage(t, err, stoa.NotFound, "no archive")
	for _, bad := range []string{"", "/etc/passwd", "../a", "a/../b", "a//b", "a/", ".hidden", "a b", "a\x00", "ä", "a/.b", "-x", `a\b`, strings.Repeat("a", maxStoredName+1)} {
		_, err := s.Create(ctx, bad, random(1, 1))
		wantMessage(t, err, stoa.InvalidRequest)
		_, err = s.Open(ctx, bad)
		wantMessage(t, err, stoa.InvalidRequest)
		wantMessage(t, s.Delete(ctx, bad), stoa.InvalidRequest)
	}
	wantMessage(t, s.List(ctx, "../", nil), stoa.InvalidRequest)
	cancelled, cancel := context.WithCancel(ctx)
	_, err = s.Create(cancelled, "cancelled", func(w io.Writer) error {
		cancel()
		return random(partSize+1, 1)(w)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	testRace(t, s)
}

// testRace stores one name many times at once.
func testRace(t *testing.T, s Storage) {
	t.Helper()
	var done atomic.Int32
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Go(func() {
			if _, err := s.Create(t.Context(), "race", random(1000, uint64(i))); err == nil {
				done.Add(1)
			} else if stoa.CodeOf(err) != stoa.ArchiveStorageFailed {
				t.Errorf("the error is %v", err)
			}
		})
	}
	wait.Wait()
	if s3, ok := s.(*S3); done.Load() != 1 && (!ok || s3.conditional.Load()) {
		t.Errorf("%d writers stored one name", done.Load())
	}
}

func TestFolderFaults(t *testing.T) {
	t.Parallel()
	for cause, words := range map[error]string{
		syscall.ENOSPC: "full", syscall.EDQUOT: "full", syscall.EACCES: "refuses", syscall.EROFS: "refuses", syscall.EIO: "cannot be reached", fs.ErrExist: "already",
	} {
		wantMessage(t, folderFault(&fs.PathError{Op: "write", Path: "x", Err: cause}), stoa.ArchiveStorageFailed, words)
	}
}

// TestFolderKeepsNoPartialFile checks that an interrupted write leaves nothing that is listed.
func TestFolderKeepsNoPartialFile(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	f := NewFolder(root)
	testkit.Must(t, os.WriteFile(filepath.Join(root, "killed.ABC"+partial), []byte("x"), 0o600))
	testkit.Must(t, os.Symlink("/etc/passwd", filepath.Join(root, "link")))
	_, err := f.Create(t.Context(), "a", func(w io.Writer) error {
		_ = random(10, 1)(w)
		if got := names(t, f, ""); got != nil {
			t.Errorf("%v is listed before it is complete", got)
		}
		return errors.New("stop")
	})
	if err == nil {
		t.Error("no error")
	}
	left, err := os.ReadDir(root)
	testkit.Must(t, err)
	if len(left) != 2 {
		t.Errorf("the folder holds %v", left)
	}
	if got := names(t, f, ""); got != nil {
		t.Errorf("%v is listed", got)
	}
}

// TestS3Faults stores an archive of three parts on servers that fail.
func TestS3Faults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault func(parts int32, w http.ResponseWriter, r *http.Request) bool
		words string // of the error's message; "": Create succeeds
		// unreachable is set if the server cannot be told either that the upload has failed.
		unreachable bool
	}{
		"full": {func(n int32, w http.ResponseWriter, r *http.Request) bool {
			if n < 2 || !isPart(r) {
				return true
			}
			refuse(w, http.StatusInsufficientStorage, "InsufficientStorage")
			return false
		}, "full", false},
		"quota": {func(_ int32, w http.ResponseWriter, r *http.Request) bool {
			if !isPart(r) {
				return true
			}
			refuse(w, http.StatusForbidden, "QuotaExceeded")
			return false
		}, "full", false},
		"forbidden": {func(_ int32, w http.ResponseWriter, _ *http.Request) bool {
			refuse(w, http.StatusForbidden, "AccessDenied")
			return false
		}, "refuses", false},
		"forbidden to complete": {func(_ int32, w http.ResponseWriter, r *http.Request) bool {
			if !isComplete(r) {
				return true
			}
			refuse(w, http.StatusForbidden, "AccessDenied")
			return false
		}, "refuses", false},
		"no bucket": {func(_ int32, w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead {
				return true
			}
			refuse(w, http.StatusNotFound, "NoSuchBucket")
			return false
		}, "bucket", false},
		"gone in the middle": {func(n int32, w http.ResponseWriter, _ *http.Request) bool {
			if n < 2 {
				return true
			}
			hangUp(w)
			return false
		}, "cannot be reached", true},
		"overloaded for a moment": {func() func(int32, http.ResponseWriter, *http.Request) bool {
			var failed sync.Map
			return func(_ int32, w http.ResponseWriter, r *http.Request) bool {
				if _, again := failed.LoadOrStore(r.Method+r.URL.String(), true); again || !isPart(r) {
					return true
				}
				refuse(w, http.StatusServiceUnavailable, "SlowDown")
				return false
			}
		}(), "", false},
		"slow": {func(n int32, _ http.ResponseWriter, r *http.Request) bool {
			if n < 2 {
				return true
			}
			_, _ = io.Copy(io.Discard, r.Body) // the server sees the end of the connection only then
			<-r.Context().Done()
			return false
		}, "in time", true},
		"another checksum of a part": {func(_ int32, w http.ResponseWriter, r *http.Request) bool {
			if !isPart(r) {
				return true
			}
			w.Header().Set("ETag", `"0123456789abcdef0123456789abcdef"`)
			return false
		}, "part 1 has another checksum", false},
		"another checksum at the end": {func(_ int32, w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodHead {
				return true
			}
			w.Header().Set("ETag", `"0123456789abcdef0123456789abcdef-3"`)
			w.Header().Set("Content-Length", fmt.Sprint(2*partSize+1))
			w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
			return false
		}, "checksum", false},
		"shorter": {func(_ int32, w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodHead {
				return true
			}
			w.Header().Set("ETag", `"0123456789abcdef0123456789abcdef-3"`)
			w.Header().Set("Content-Length", "7")
			w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
			return false
		}, "7 bytes", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, s := newBucket(t)
			_, err := s.Check(t.Context())
			testkit.Must(t, err)
			if name == "slow" {
				s.opts.PartTimeout = time.Second
			}
			var parts atomic.Int32
			b.setFault(func(w http.ResponseWriter, r *http.Request) bool {
				if isPart(r) {
					parts.Add(1)
				}
				return c.fault(parts.Load(), w, r)
			})
			_, err = s.Create(t.Context(), "a", random(2*partSize+1, 1))
			b.setFault(nil)
			if c.words == "" {
				testkit.Must(t, err)
				wantStored(t, s, "a", 2*partSize+1)
				return
			}
			wantMessage(t, err, stoa.ArchiveStorageFailed, c.words)
			if got := names(t, s, ""); got != nil {
				t.Errorf("%v is stored", got)
			}
			if n := b.uploads(); n > 0 && !c.unreachable {
				t.Errorf("%d incomplete uploads are left", n)
			}
		})
	}
}

// hangUp closes the connection without an answer.
func hangUp(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

// TestS3LostAnswer completes an upload whose answer is lost, so that the retry finds no
// upload.
func TestS3LostAnswer(t *testing.T) {
	t.Parallel()
	b, s := newBucket(t)
	_, err := s.Check(t.Context())
	testkit.Must(t, err)
	var lost atomic.Bool
	b.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if !isComplete(r) || lost.Swap(true) {
			return true
		}
		b.answer(httptest.NewRecorder(), r)
		hangUp(w)
		return false
	})
	_, err = s.Create(t.Context(), "a", random(100, 1))
	testkit.Must(t, err)
	if !lost.Load() {
		t.Error("no answer was lost")
	}
	wantStored(t, s, "a", 100)
}

// brokenWriter ends a body after some bytes.
type brokenWriter struct {
	http.ResponseWriter
	left int
}

func (b *brokenWriter) Write(p []byte) (int, error) {
	if len(p) >= b.left {
		_, _ = b.ResponseWriter.Write(p[:b.left])
		_ = http.NewResponseController(b.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	b.left -= len(p)
	return b.ResponseWriter.Write(p)
}

// TestS3ReadsGoOn reads over connections that break.
func TestS3ReadsGoOn(t *testing.T) {
	t.Parallel()
	b, s := newBucket(t)
	const size = 3 << 20
	_, err := s.Create(t.Context(), "a", random(size, 1))
	testkit.Must(t, err)
	var reads atomic.Int32
	b.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && reads.Add(1) < 20 {
			b.answer(&brokenWriter{w, 200_000}, r)
			return false
		}
		return true
	})
	wantStored(t, s, "a", size)
	if n := reads.Load(); n < 10 {
		t.Errorf("%d reads", n)
	}

	reads.Store(0)
	b.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && reads.Add(1) > 2 {
			hangUp(w)
			return false
		}
		if r.Method == http.MethodGet {
			w = &brokenWriter{w, 200_000}
		}
		b.answer(w, r)
		return false
	})
	r, err := s.Open(t.Context(), "a")
	testkit.Must(t, err)
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	wantMessage(t, err, stoa.ArchiveStorageFailed, "cannot be reached")

	b.setFault(nil)
	r, err = s.Open(t.Context(), "a")
	testkit.Must(t, err)
	defer r.Close()
	_, err = io.CopyN(io.Discard, r, 1000)
	testkit.Must(t, err)
	testkit.Must(t, s.Delete(t.Context(), "a"))
	r.(*objectReader).closeBody() // as after a break
	_, err = io.Copy(io.Discard, r)
	wantMessage(t, err, stoa.NotFound)
}

// TestS3SlowRead reads from a server that stops in the middle.
func TestS3SlowRead(t *testing.T) {
	t.Parallel()
	b, s := newBucket(t)
	_, err := s.Create(t.Context(), "a", random(1000, 1))
	testkit.Must(t, err)
	s.opts.PartTimeout = 100 * time.Millisecond
	b.setFault(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet {
			<-r.Context().Done()
			return false
		}
		return true
	})
	r, err := s.Open(t.Context(), "a")
	testkit.Must(t, err)
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	wantMessage(t, err, stoa.ArchiveStorageFailed, "in time")
}

func TestS3Options(t *testing.T) {
	t.Parallel()
	for _, bad := range []S3Options{
		{Endpoint: "", Bucket: "b"}, {Endpoint: "s3.example.com", Bucket: "b"}, {Endpoint: "ftp://s3.example.com"}, {Endpoint: "https://user@s3.example.com"},
		{Endpoint: "https://s3.example.com:99999"}, {Endpoint: "https://s3.example.com:0"}, {Endpoint: "https://s3.example.com/path"}, {Endpoint: "https://s3.example.com?x"}, {Endpoint: "https://s3.example.com", Prefix: "a"}, {Endpoint: "https://s3.example.com", Prefix: "../"},
	} {
		if _, err := NewS3(bad); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}
