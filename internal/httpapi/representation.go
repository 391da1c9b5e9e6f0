package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// minCompressed is the size of the smallest body that is compressed, in bytes.
const minCompressed = 1 << 10

// writeWhole sends the whole body of a JSON answer. An answer of success to GET, and each one
// that has a version in its ETag, gets an ETag: the version, if there is one, and a hash of
// the body. A client that has the body is answered 304.
//
// Only answers to GET are compressed: tokens, keys and codes are in answers to POST. A route
// whose GET holds secrets says so. So the length of a compressed answer tells nothing of a
// secret in it (BREACH).
func (w *responseWriter) writeWhole(body []byte) {
	h := w.Header()
	body = inVersion(w.version, body)
	read := w.request.Method == http.MethodGet || w.request.Method == http.MethodHead
	success := w.status == 0 || w.status >= http.StatusOK && w.status < http.StatusMultipleChoices
	tag := ""
	if version := strings.Trim(h.Get("ETag"), `"`); success && (read || version != "") {
		sum := sha256.Sum256(body)
		tag = strings.TrimPrefix(version+"."+hex.EncodeToString(sum[:10]), ".")
		h.Set("ETag", `"`+tag+`"`)
	}
	if !read {
		_, _ = w.Write(body) // the client may have gone
		return
	}
	if success && hasRepresentation(w.request.Header.Values("If-None-Match"), tag) {
		h.Del("Content-Type")
		w.status = http.StatusNotModified
		return
	}
	if !w.secret {
		h.Add("Vary", "Accept-Encoding")
		coding := ""
		if len(body) >= minCompressed {
			coding = acceptedCoding(w.request.Header.Values("Accept-Encoding"), "zstd", "gzip")
		}
		if coding != "" {
			body = compress(coding, body)
			h.Set("Content-Encoding", coding)
			if tag != "" {
				h.Set("ETag", `"`+tag+"-"+coding+`"`) // a strong ETag is one of a compressed form
			}
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client may have gone
}

// plainTag returns what an ETag names in whatever form it was sent: without W/, quotation
// marks and the name of a coding.
func plainTag(tag string) string {
	tag = strings.Trim(strings.TrimPrefix(strings.TrimSpace(tag), "W/"), `"`)
	for _, coding := range []string{"-zstd", "-gzip"} {
		tag = strings.TrimSuffix(tag, coding)
	}
	return tag
}

// hasRepresentation reports whether If-None-Match names the tag. Comparison is weak (RFC
// 9110, section 13.1.2).
func hasRepresentation(header []string, tag string) bool {
	for item := range strings.SplitSeq(strings.Join(header, ","), ",") {
		if item = strings.TrimSpace(item); item == "*" || item != "" && plainTag(item) == tag {
			return true
		}
	}
	return false
}

// acceptedCoding returns which of the codings an Accept-Encoding header prefers (RFC 9110,
// section 12.5.3), the first of several that it likes as much, or "" for none.
func acceptedCoding(header []string, codings ...string) string {
	likes := map[string]float64{}
	for item := range strings.SplitSeq(strings.Join(header, ","), ",") {
		name, params, _ := strings.Cut(item, ";")
		q := 1.0
		if key, value, found := strings.Cut(strings.TrimSpace(params), "="); found && strings.EqualFold(strings.TrimSpace(key), "q") {
			var err error
			if q, err = strconv.ParseFloat(strings.TrimSpace(value), 64); err != nil || q < 0 || q > 1 {
				q = 0
			}
		}
		if name = strings.ToLower(strings.TrimSpace(name)); name != "" {
			likes[name] = q
		}
	}
	best, most := "", likes["identity"]
	for _, coding := range codings {
		q, named := likes[coding]
		if !named {
			q = likes["*"]
		}
		if q > most || q > 0 && q == most && best == "" {
			best, most = coding, q
		}
	}
	return best
}

var (
	gzipWriters = sync.Pool{New: func() any {
		z, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
		if err != nil {
			panic(err) // the level is valid
		}
		return z
	}}
	zstdWriter = sync.OnceValue(func() *zstd.Encoder {
		z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20))
		if err != nil {
			panic(err) // the options are valid
		}
		return z
	})
)

// compress returns the body in a coding that acceptedCoding returned.
func compress(coding string, body []byte) []byte {
	if coding == "zstd" {
		return zstdWriter().EncodeAll(body, make([]byte, 0, len(body)/4))
	}
	var out bytes.Buffer
	z := gzipWriters.Get().(*gzip.Writer) //nolint:forcetypeassert // the pool holds no others
	defer gzipWriters.Put(z)
	z.Reset(&out)
	_, _ = z.Write(body) // a buffer takes everything
	_ = z.Close()
	return out.Bytes()
}
