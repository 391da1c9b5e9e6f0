package httpapi

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"sync"
	"time"
)

const openAPIPath = "/api/openapi"

// documentRoutes serves the OpenAPI document, which does not change while the server runs.
func (a *api) documentRoutes() {
	doc := a.huma.OpenAPI()
	for _, form := range []struct {
		name, kind string
		marshal    func() ([]byte, error)
	}{
		{".json", "application/openapi+json", doc.MarshalJSON},
		{"-3.0.json", "application/openapi+json", doc.Downgrade},
		{".yaml", "application/openapi+yaml", doc.YAML},
		{"-3.0.yaml", "application/openapi+yaml", doc.DowngradeYAML},
	} {
		made := sync.OnceValues(func() (document, error) { return newDocument(form.kind, form.marshal) })
		a.page("GET "+openAPIPath+form.name, routeOptions{timeout: requestTimeout, rate: rateAddress, scope: scopePublic, maxBody: noBody},
			func(w http.ResponseWriter, r *http.Request) {
				d, err := made()
				if err != nil {
					a.writeError(w, r, err)
					return
				}
				d.serve(w, r)
			})
	}
}

// document is a text that can be cached.
type document struct {
	kind, etag       string
	text, compressed []byte
}

func newDocument(kind string, marshal func() ([]byte, error)) (document, error) {
	text, err := marshal()
	if err != nil {
		return document{}, err
	}
	var compressed bytes.Buffer
	z := gzip.NewWriter(&compressed)
	if _, err := z.Write(text); err != nil {
		return document{}, err
	}
	if err := z.Close(); err != nil {
		return document{}, err
	}
	sum := sha256.Sum256(text)
	return document{kind: kind, etag: hex.EncodeToString(sum[:16]), text: text, compressed: compressed.Bytes()}, nil
}

// serve answers with the document, or with 304 if the client has it.
func (d document) serve(w http.ResponseWriter, r *http.Request) {
	text, etag := d.text, `"`+d.etag+`"`
	h := w.Header()
	if acceptedCoding(r.Header.Values("Accept-Encoding"), "gzip") != "" {
		text, etag = d.compressed, `"`+d.etag+`-gzip"`
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Type", d.kind)
	h.Set("Cache-Control", "public, max-age=300")
	h.Set("ETag", etag)
	h.Add("Vary", "Accept-Encoding")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
}
