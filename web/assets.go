package web

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/http"
	"time"
)

// assetsPath is where Assets is mounted.
const assetsPath = "/assets/"

var (
	//go:embed static/style.css
	styleCSS []byte
	//go:embed static/icon.svg
	faviconSVG []byte

	stylesheet = newAsset("style", ".css", "text/css; charset=utf-8", styleCSS)
	favicon    = newAsset("icon", ".svg", "image/svg+xml", faviconSVG)
)

// The addresses of what Assets serves. They change with the content, so that
// a browser may keep what it has for ever.
var (
	StylesheetURL = assetsPath + stylesheet.name
	FaviconURL    = assetsPath + favicon.name
)

// Assets serves the stylesheet and the icon at /assets/, and 404 for every
// other path. It takes the whole path of the request.
func Assets() http.Handler {
	return serveAssets(assetsPath, http.NotFoundHandler(), stylesheet, favicon)
}

// serveAssets answers for the assets by their exact path under prefix. There
// is no file system behind it, so no path leads out of it.
func serveAssets(prefix string, otherwise http.Handler, assets ...asset) http.Handler {
	byPath := make(map[string]asset, len(assets))
	for _, a := range assets {
		byPath[prefix+a.name] = a
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a, ok := byPath[r.URL.Path]; ok {
			a.ServeHTTP(w, r)
			return
		}
		otherwise.ServeHTTP(w, r)
	})
}

// asset is an embedded file, named by its content.
type asset struct {
	name, contentType, etag string
	body                    []byte
}

func newAsset(stem, extension, contentType string, body []byte) asset {
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:8])
	return asset{name: stem + "-" + hash + extension, contentType: contentType, etag: `"` + hash + `"`, body: body}
}

func (a asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	h.Set("Content-Type", a.contentType)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("ETag", a.etag)
	http.ServeContent(w, r, a.name, time.Time{}, bytes.NewReader(a.body))
}
