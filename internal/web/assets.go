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
	//go:embed static/store.svg
	storeFaviconSVG []byte
	//go:embed static/icon.ico
	faviconICO []byte
	//go:embed static/store.ico
	storeFaviconICO []byte

	stylesheet   = NewAsset("style", ".css", "text/css; charset=utf-8", styleCSS)
	favicon      = NewAsset("icon", ".svg", "image/svg+xml", faviconSVG)
	storeFavicon = NewAsset("store", ".svg", "image/svg+xml", storeFaviconSVG)
)

// The paths of the files that Assets serves. They change with the content, so
// browsers may cache them forever.
var (
	StylesheetURL   = assetsPath + stylesheet.Name
	FaviconURL      = assetsPath + favicon.Name
	StoreFaviconURL = assetsPath + storeFavicon.Name
)

// Assets serves the stylesheet and the icons at /assets/, and 404 for every
// other path. It takes the whole path of the request.
func Assets() http.Handler {
	return ServeAssets(assetsPath, http.NotFoundHandler(), stylesheet, favicon, storeFavicon)
}

// ServeFavicon serves /favicon.ico, which browsers request for documents that name no
// icon: the platform's icon, or one that stands for any store.
func ServeFavicon(w http.ResponseWriter, r *http.Request, store bool) {
	icon := faviconICO
	if store {
		icon = storeFaviconICO
	}
	w.Header().Set("Content-Type", "image/vnd.microsoft.icon")
	w.Header().Set("Cache-Control", "public, max-age=86400")
	http.ServeContent(w, r, "favicon.ico", time.Time{}, bytes.NewReader(icon))
}

// ServeAssets serves the assets by their exact path under prefix, and every other
// path with otherwise. It uses no file system, so no path can leave it.
func ServeAssets(prefix string, otherwise http.Handler, assets ...Asset) http.Handler {
	byPath := make(map[string]Asset, len(assets))
	for _, a := range assets {
		byPath[prefix+a.Name] = a
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a, ok := byPath[r.URL.Path]; ok {
			a.ServeHTTP(w, r)
			return
		}
		otherwise.ServeHTTP(w, r)
	})
}

// Asset is an embedded file whose name contains a hash of its content.
type Asset struct {
	Name string // of the file, with the hash

	contentType, etag string
	body              []byte
}

// NewAsset returns the asset <stem>-<hash><extension>.
func NewAsset(stem, extension, contentType string, body []byte) Asset {
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:8])
	return Asset{Name: stem + "-" + hash + extension, contentType: contentType, etag: `"` + hash + `"`, body: body}
}

// ServeHTTP implements http.Handler.
func (a Asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
	http.ServeContent(w, r, a.Name, time.Time{}, bytes.NewReader(a.body))
}
