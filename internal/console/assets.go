package console

import (
	"bytes"
	"embed"
	"io/fs"
	"net/http"
	"path"

	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/web"
)

// assetsPath is where Assets is mounted.
const assetsPath = "/assets/"

//go:embed static/css/*.css static/js/*.js static/vendor/*.js
var static embed.FS

var (
	stylesheet = web.NewAsset("console", ".css", "text/css; charset=utf-8", concatenate("static/css"))
	scripts    = scriptAssets("static/vendor/htmx-2.0.11.min.js", "static/vendor/idiomorph-ext-0.8.0.min.js", "static/vendor/htmx-ext-sse-2.2.4.min.js",
		"static/js/console.js", "static/js/passkeys.js")
	frameAssets = ui.Assets{Stylesheet: assetsPath + stylesheet.Name, Icon: web.FaviconURL, Scripts: assetURLs(scripts)}
)

// concatenate joins the files of a folder in the order of their names.
func concatenate(folder string) []byte {
	entries, err := fs.ReadDir(static, folder)
	if err != nil {
		panic(err) // the folder is embedded
	}
	var all bytes.Buffer
	for _, e := range entries {
		all.Write(read(path.Join(folder, e.Name())))
	}
	return all.Bytes()
}

func read(name string) []byte {
	body, err := static.ReadFile(name)
	if err != nil {
		panic(err) // the file is embedded
	}
	return body
}

func scriptAssets(names ...string) []web.Asset {
	list := make([]web.Asset, len(names))
	for i, name := range names {
		stem := path.Base(name)
		list[i] = web.NewAsset(stem[:len(stem)-len(".js")], ".js", "text/javascript; charset=utf-8", read(name))
	}
	return list
}

func assetURLs(assets []web.Asset) []string {
	urls := make([]string, len(assets))
	for i, a := range assets {
		urls[i] = assetsPath + a.Name
	}
	return urls
}

// Assets serves the console's files and those of all pages at /assets/.
func Assets() http.Handler {
	return web.ServeAssets(assetsPath, web.Assets(), append([]web.Asset{stylesheet}, scripts...)...)
}
