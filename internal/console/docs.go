package console

import (
	_ "embed"
	"net/http"
	"strings"

	swaggerfiles "github.com/swaggest/swgui/v5/static"
	"github.com/vearutop/statigz"

	"github.com/stoahq/stoa/internal/web"
)

// DocsContentSecurityPolicy is the policy of the API documentation, which needs
// script, pictures from its stylesheet, and calls to this host to try the API.
const DocsContentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; " +
	"img-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"

var (
	//go:embed static/docs.css
	docsCSS []byte
	//go:embed static/docs.js
	docsJS []byte

	docsStyle  = web.NewAsset("docs", ".css", "text/css; charset=utf-8", docsCSS)
	docsScript = web.NewAsset("docs", ".js", "text/javascript; charset=utf-8", docsJS)
)

// Docs serves the API documentation at basePath and the files that the page loads
// under it. Mount it at both basePath and basePath + "/". The page shows the OpenAPI
// document at openAPIURL, which must be on the same host, and sends no request to
// another host.
func Docs(openAPIURL, basePath string) http.Handler {
	basePath = strings.TrimSuffix(basePath, "/")
	page := docsPage(openAPIURL, basePath)
	files := web.ServeAssets(basePath+"/", swaggerUI(basePath), docsStyle, docsScript)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == basePath || r.URL.Path == basePath+"/" {
			web.ServeWithPolicy(w, r, http.StatusOK, page, DocsContentSecurityPolicy)
			return
		}
		files.ServeHTTP(w, r)
	})
}

const (
	swaggerScript = "swagger-ui-bundle.js"
	swaggerStyle  = "swagger-ui.css"
)

// swaggerUI serves the two files of Swagger UI that the page needs. It does not serve
// the module's own page, whose inline script would need a weaker policy, and whose
// template would keep the linker from leaving out unused methods.
func swaggerUI(basePath string) http.Handler {
	embedded := http.StripPrefix(basePath+"/", statigz.FileServer(swaggerfiles.FS))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch strings.TrimPrefix(r.URL.Path, basePath+"/") {
		case swaggerScript, swaggerStyle:
			w.Header().Set("X-Content-Type-Options", "nosniff")
			// Their names do not change with an upgrade, so the cache expires.
			w.Header().Set("Cache-Control", "public, max-age=3600")
			embedded.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	})
}
