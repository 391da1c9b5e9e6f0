package cli

// Examples are the command lines that the help of each command begins with, by the words
// of the command. A test parses them.
var Examples = map[string][]string{
	"": {"stoa serve", "stoa stores list --status active", "stoa doctor", "stoa help settings"},

	"serve":      {"stoa serve", "stoa serve --port 8080 --data-dir /var/lib/stoa", "STOA_ENV=production MASTER_DB_URL=postgres://… stoa serve"},
	"migrate":    {"stoa migrate", "stoa migrate --grant-to stoa_serve"},
	"health":     {"stoa health", "stoa health --private-listen 127.0.0.1:9090 --json"},
	"doctor":     {"stoa doctor", "stoa doctor --fleet", "stoa doctor --fleet --repair"},
	"demo":       {"stoa demo"},
	"openapi":    {"stoa openapi > openapi.json"},
	"version":    {"stoa version", "stoa version --json"},
	"completion": {"source <(stoa completion bash)", "stoa completion zsh > ~/.zfunc/_stoa", "stoa completion fish > ~/.config/fish/completions/stoa.fish"},
	"man":        {"stoa man --output /usr/local/share/man/man1"},
	"help":       {"stoa help stores move", "stoa help settings", "stoa help exit-codes"},

	"keys generate": {"stoa keys generate", "stoa keys generate --identity > identity.txt"},
	"keys list":     {"stoa keys list"},
	"keys rotate":   {"stoa keys rotate"},

	"backup":           {"stoa backup my-first-store", "stoa backup --master", "stoa backup --master --output master.stoa"},
	"restore":          {"stoa restore my-first-store", "stoa restore --lost", "stoa restore --master newest --identity identity.txt"},
	"backups list":     {"stoa backups list my-first-store"},
	"backups verify":   {"stoa backups verify my-first-store --drill"},
	"backups download": {"stoa backups download my-first-store ID --output store.stoa --recipient age1…"},
	"backups discover": {"stoa backups discover my-first-store"},
	"backups upload":   {"stoa backups upload my-first-store store.stoa --identity key.txt"},
	"backups clone": {"stoa backups list bakery", `stoa backups clone bakery ID --name "Bakery, second branch" --slug bakery-two`,
		`stoa backups clone bakery ID --name "Bakery, to try things in" --without customers`},
	"backups delete": {"stoa backups delete my-first-store ID"},

	"stores list":           {"stoa stores list", "stoa stores list --status suspended --limit 0 --json"},
	"stores show":           {"stoa stores show my-first-store"},
	"stores suspend":        {"stoa stores suspend my-first-store"},
	"stores resume":         {"stoa stores resume my-first-store"},
	"stores delete":         {"stoa stores delete my-first-store", "stoa stores delete my-first-store --yes --json"},
	"stores restore":        {"stoa stores restore my-first-store"},
	"stores dsn":            {`psql "$(stoa stores dsn my-first-store --access read)"`},
	"stores reset-password": {"stoa stores reset-password my-first-store --access read"},
	"stores hostnames":      {"stoa stores hostnames my-first-store"},
	"stores move": {"stoa stores move bakery --to managed:postgresql --wait", `echo "$URL" | stoa stores move bakery --to -`,
		"stoa stores move bakery --rollback --wait"},
	"stores import": {"stoa stores import stores.csv --dry-run", "stoa stores import stores.csv"},

	"credits grant":      {`stoa credits grant my-first-store 50 --reason "Sorry for Tuesday" --bonus --expires 30d`},
	"credits verify":     {"stoa credits verify"},
	"payments list":      {"stoa payments list --state mismatched"},
	"payments reconcile": {"stoa payments reconcile"},
	"prices list":        {"stoa prices list", "stoa prices list --history"},
	"prices set":         {"stoa prices set product_import 0.12 --from 2027-01-01T00:00:00Z"},

	"tenants status":  {"stoa tenants status"},
	"tenants migrate": {"stoa tenants migrate", "stoa tenants migrate --canary 5 --max-failures 1%"},
	"tenants check":   {"stoa tenants check --store my-first-store"},

	"users list":    {"stoa users list --operators"},
	"users verify":  {"stoa users verify owner@example.com"},
	"users promote": {"stoa users promote owner@example.com"},
	"users demote":  {"stoa users demote owner@example.com"},
	"users quota":   {"stoa users quota owner@example.com --stores 10"},

	"webhooks listen": {"stoa webhooks listen my-first-store --forward-to http://localhost:4000/webhooks"},
}
