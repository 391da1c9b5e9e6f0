package app_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// browserProgram runs in a page of another origin than the platform's.
const browserProgram = `import("/index.js").then(async ({ Stoa, hasCode, pages, verifyWebhook }) => {
	const seen = {};
	const visitor = new Stoa({ baseUrl });
	seen.refused = await visitor.stores.list().catch((e) => hasCode(e, "token_invalid") && e.code);
	const { data: tokens } = await visitor.auth.login({ body: { email: "owner@example.com", password: "SecurePassword123!" } });
	const stoa = new Stoa({ baseUrl, tokens: { refreshToken: tokens.refreshToken }, onTokens: () => (seen.renewed = (seen.renewed ?? 0) + 1) });
	const headers = { "Idempotency-Key": "one" };
	const made = [await stoa.stores.create({ body: { name: "Second" }, headers }), await stoa.stores.create({ body: { name: "Second" }, headers })];
	seen.same = made[0].data.id === made[1].data.id;
	const path = { id: made[0].data.id };
	await stoa.database.connect({ path, body: { type: "managed" }, headers: { Prefer: "wait=0" } });
	for await (const event of (await stoa.provisioning.events({ path })).stream) seen.state = event.state;
	const { response } = await stoa.stores.get({ path });
	const edit = () => stoa.stores.update({ path, body: { description: "new" }, headers: { "If-Match": response.headers.get("ETag") } });
	seen.description = (await edit()).data.profile.description;
	seen.conflict = await edit().catch((e) => e.code);
	seen.names = [];
	for await (const store of pages((cursor) => stoa.stores.list({ query: { cursor, limit: 1 } }))) seen.names.push(store.name);
	seen.aborted = await stoa.stores.list({ signal: AbortSignal.abort() }).catch((e) => e.name);
	await verifyWebhook(signed);
	seen.forged = await verifyWebhook({ ...signed, body: "{}" }).catch((e) => e.reason);
	return seen;
})`

// TestTypeScriptClientInBrowser uses the TypeScript client in a page that the operator allows to
// call the API.
func TestTypeScriptClientInBrowser(t *testing.T) {
	t.Parallel()
	needNode(t)
	folder, err := buildTypeScript(repository(t))
	testkit.Must(t, err)
	files := http.FileServer(http.Dir(filepath.Join(folder, "dist")))
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			files.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html")
	}))
	t.Cleanup(page.Close)
	cfg := testConfig(t, masterdb.SQLite)
	cfg.CORSOrigins = []string{page.URL}
	s := startServer(t, cfg)
	afterReadme(t, s)
	c := startChromium(t, serverAt(page.URL))
	c.open("/")
	program := fmt.Sprintf("const baseUrl = %q", s.URL) + ", signed = " + signedWebhook(t) + ";\n" + browserProgram
	got := evaluate[object](c, "(() => {"+strings.Replace(program, "import(", "return import(", 1)+"})()")
	want := object{"refused": "token_invalid", "renewed": 1.0, "same": true, "state": "succeeded", "description": "new", "conflict": "edit_conflict",
		"names": []any{"Second", "My First Store"}, "aborted": "AbortError", "forged": "signature"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("in the page (-want +got):\n%s", diff)
	}
}
