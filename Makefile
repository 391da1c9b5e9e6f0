# `make` lists the targets.

VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOLANGCI := v2.15.0
CADDY    := v2.11.9
HELM     := v3.22.0
TESTFLAGS ?=
SHORT ?= -short
FUZZTIME ?= 60s

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

.PHONY: run
run: ## start the platform on this machine
	go run ./cmd/stoa serve

.PHONY: supabase-dev
supabase-dev: ## run a stand-in for Supabase, to try connections with; it keeps its refs, ports and CA in SUPABASE_STATE
	scripts/with-servers go run ./internal/supabase/supabasetest/supabase-dev --state "$(or $(SUPABASE_STATE),.supabase-dev)"

.PHONY: stripe-dev
stripe-dev: ## run a stand-in for Stripe, to try payments with
	go run ./internal/payments/stripetest/stripe-dev

.PHONY: build
build: ## build bin/stoa as it is released
	scripts/build

# What linux/amd64 had when this was set, and 3 %: 49,344,674 bytes.
MAX_SIZE := 50800000

.PHONY: size-check
size-check: build ## check that bin/stoa is no larger than it was, and that its command line and its API work
	@size=$$(wc -c < bin/stoa) && echo "bin/stoa has $$size bytes, at most $(MAX_SIZE)" && [ "$$(go env GOOS)/$$(go env GOARCH)" != linux/amd64 -o "$$size" -le $(MAX_SIZE) ]
	go run -ldflags "-X github.com/stoahq/stoa.linkedVersion=$(VERSION)" ./cmd/stoa openapi --base-url https://stoa.example.com | cksum > bin/build/openapi.published
	bin/stoa openapi --base-url https://stoa.example.com | cksum | cmp - bin/build/openapi.published
	go test -modfile bin/build/go.mod -run '^Test(Help|Examples|Health|Version|Completion)' ./internal/cli
	CGO_ENABLED=0 go test -tags grpcnotrace -trimpath -modfile bin/build/go.mod ./internal/httpapi

# goreleaser from v2.17 needs a module that the Go proxy does not have.
GORELEASER := v2.16.0
CYCLONEDX := v1.10.0

.PHONY: release-tools
release-tools:
	@[ -x bin/tools/goreleaser ] && bin/tools/goreleaser --version | grep -q "$(GORELEASER)" || { \
		echo "installing goreleaser $(GORELEASER) into bin/tools"; \
		GOBIN="$(CURDIR)/bin/tools" go install github.com/goreleaser/goreleaser/v2@$(GORELEASER); }
	@[ -x bin/tools/cyclonedx-gomod ] || { \
		echo "installing cyclonedx-gomod $(CYCLONEDX) into bin/tools"; \
		GOBIN="$(CURDIR)/bin/tools" go install github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$(CYCLONEDX); }

.PHONY: release
release: release-tools ## make the archives, deb, rpm, checksums and SBOMs of this commit in bin/dist
	scripts/release

.PHONY: release-check
release-check: release-tools ## check that two builds of a release are equal (TARGETS="linux_arm64", COLD=1)
	scripts/release-check $(TARGETS)

.PHONY: image
image: ## build the container image stoa:latest (needs buildah or podman)
	scripts/image

.PHONY: image-test
image-test: image ## run a store's first steps against the image
	scripts/image-journey

# The variable turns a test that finds no server from a skip into a failure.
.PHONY: test
test: ## run every test, on private servers and a real browser (TESTFLAGS="-run X -v")
	STOA_TEST_REQUIRE_SERVERS=1 scripts/with-servers go test -timeout 60m -parallel 4 $(SHORT) $(TESTFLAGS) ./...
	go test -C bench $(SHORT) $(TESTFLAGS) ./...

# The long forms kill, flood and repeat several times as often.
.PHONY: test-long
test-long: ## run every test in its long form
	@$(MAKE) --no-print-directory test SHORT=

# FAULT="fail-over" tries those with such a name.
.PHONY: faults
faults: ## run the fault suite in its long form: replicas, fail-over, full disk (FAULT="part of a name")
	STOA_TEST_FAULTS="$(FAULT)" STOA_TEST_REQUIRE_SERVERS=1 STOA_NEW_SERVERS=0 scripts/with-servers go test -timeout 45m -run '^TestFaults$$' -v -count 1 $(TESTFLAGS) ./internal/app

# For half an hour: three replicas of the release before this one, and of this one.
.PHONY: upgrades
upgrades: ## upgrade and roll back replicas under load for 30 minutes
	STOA_TEST_REQUIRE_SERVERS=1 STOA_NEW_SERVERS=0 scripts/with-servers go test -timeout 60m -run '^TestUpgrade$$' -v -count 1 $(TESTFLAGS) ./internal/app

DOMAINS := masterdb credits accounts stores hostnames idempotency events payments provisioning webhooks jobs presence backups fleet moves imports keyrotation apikeys authz operations masterbackup lease

.PHONY: test-serializable
test-serializable: ## run the domains' tests on a master whose transactions are serializable
	STOA_TEST_REQUIRE_SERVERS=1 STOA_NEW_SERVERS=0 STOA_TEST_MASTER_PARAMETERS=default_transaction_isolation=serializable scripts/with-servers go test -timeout 45m -parallel 4 -short -count 1 $(TESTFLAGS) $(addprefix ./internal/,$(DOMAINS))

# Jobs wait for River's next look there: it takes four times as long as with notifications.
.PHONY: test-without-listen
test-without-listen: ## run the domains' tests on a master whose notifications never arrive
	STOA_TEST_REQUIRE_SERVERS=1 STOA_NEW_SERVERS=0 STOA_TEST_MASTER_WITHOUT_NOTIFICATIONS=1 scripts/with-servers go test -timeout 45m -parallel 4 -short -count 1 $(TESTFLAGS) $(addprefix ./internal/,$(DOMAINS))

.PHONY: test-pooled
test-pooled: ## run the domains' tests on a master behind PgBouncer in transaction mode
	STOA_TEST_REQUIRE_SERVERS=1 STOA_NEW_SERVERS=0 scripts/with-servers sh -c 'psql -q -c "ALTER ROLE CURRENT_USER SET synchronous_commit = on" $$STOA_TEST_POSTGRES_URL && STOA_TEST_MASTER_POOLER_URL=$$STOA_TEST_PGBOUNCER_URL go test -timeout 45m -parallel 4 -short -count 1 $(TESTFLAGS) $(addprefix ./internal/,$(DOMAINS))'

.PHONY: test-quick
test-quick: ## run the tests that need nothing but SQLite
	env -u STOA_TEST_REQUIRE_SERVERS -u STOA_TEST_POSTGRES_URL -u STOA_TEST_MYSQL_URL -u STOA_TEST_PGBOUNCER_URL -u STOA_TEST_REDIS_URL -u STOA_TEST_S3_URL -u STOA_TEST_CHROMIUM go test $(TESTFLAGS) ./...

.PHONY: race
# SQLite's own code, translated from C, the C library that it calls, and argon2 and scrypt,
# which hash passwords, are left out: they have no races to be found here, and took most of
# the time (a password 344 ms instead of 47). `make vet` checks the same code, and need not do
# so again as it is built here. The collector took a fifth of the time: it runs less often.
race: ## run every test under the race detector
	@GOGC=400 GOMEMLIMIT=2GiB $(MAKE) --no-print-directory test TESTFLAGS="-race -vet=off -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=modernc.org/libc=-race=false -gcflags=modernc.org/memory=-race=false -gcflags=golang.org/x/crypto/argon2=-race=false -gcflags=golang.org/x/crypto/scrypt=-race=false $(TESTFLAGS)"

# go test fuzzes one target at a time.
.PHONY: fuzz
fuzz: ## run each fuzz target for a while (FUZZTIME=60s)
	@for package in $$(go list ./...); do \
		targets=$$(go test -list '^Fuzz' "$$package") || { echo "$$targets"; exit 1; }; \
		for target in $$(echo "$$targets" | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" || exit 1; \
		done; \
	done

# Each measurement has a server of its own: what one leaves behind does not
# slow the next.
BENCHES := micro reads fleet embedded victim attacks provision migrate credits ledger calls peers operator archive move webhooks backlog tracing scale

.PHONY: bench
bench: ## measure the platform (BENCH="reads victim" for some, BENCHFLAGS=--json)
	@for name in $(or $(BENCH),$(BENCHES)); do $(MAKE) --no-print-directory bench-$$name || exit; done

.PHONY: bench-quick
bench-quick: ## run every measurement in a small size, to see that it works
	@$(MAKE) --no-print-directory bench BENCHFLAGS="--quick $(BENCHFLAGS)" BENCHTIME=100x

.PHONY: bench-micro
bench-micro: ## measure single calls (BENCHTIME=1s)
	go test -run '^$$' -bench '^Benchmark(AcquireWarm|ResolverHit)$$' -benchmem -benchtime $(BENCHTIME) ./internal/tenantdb ./internal/hostnames

BENCHTIME ?= 1s

bench-%:
	scripts/with-servers go run -C bench . $* $(BENCHFLAGS)

# A golangci-lint of another version would find other faults than CI does.
.PHONY: lint
lint: bin/tools/golangci-lint ## check the code with golangci-lint
	bin/tools/golangci-lint run ./...
	cd bench && ../bin/tools/golangci-lint run ./...
	cd deploy/check && ../../bin/tools/golangci-lint run ./...

# The linter of the OpenAPI document is a package of npm.
REDOCLY = @redocly/cli@2.77.0

.PHONY: openapi-lint
openapi-lint: ## check the OpenAPI document with redocly's recommended rules (needs Node.js)
	@file=$$(mktemp -d)/openapi.json && go run ./cmd/stoa openapi --base-url https://stoa.invalid > "$$file" && \
	REDOCLY_TELEMETRY=off npx --yes $(REDOCLY) lint "$$file" --extends recommended; status=$$?; rm -rf "$$(dirname "$$file")"; exit $$status

.PHONY: bin/tools/golangci-lint
bin/tools/golangci-lint:
	@if [ "v$$($@ version --short 2>/dev/null)" != "$(GOLANGCI)" ]; then \
		echo "installing golangci-lint $(GOLANGCI) into bin/tools"; \
		GOBIN="$(CURDIR)/bin/tools" go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI); \
	fi

# tool builds one program at one version into bin/tools, unless it is there.
define tool
	@if ! go version -m bin/tools/$(1) 2>/dev/null | grep -q '^	mod	$(2)	$(3)	'; then \
		echo "installing $(1) $(3) into bin/tools"; \
		GOBIN="$(CURDIR)/bin/tools" CGO_ENABLED=0 go install $(2)/cmd/$(1)@$(3); \
	fi
endef

.PHONY: bin/tools/caddy bin/tools/helm
bin/tools/caddy:
	$(call tool,caddy,github.com/caddyserver/caddy/v2,$(CADDY))
bin/tools/helm:
	$(call tool,helm,helm.sh/helm/v3,$(HELM))

# promtool is of Debian's package prometheus, which is unpacked and not installed.
.PHONY: bin/tools/promtool
bin/tools/promtool:
	@command -v promtool >/dev/null || [ -x $@ ] || { \
		echo "unpacking promtool into bin/tools"; dir=$$(mktemp -d) && mkdir -p bin/tools && \
		(cd "$$dir" && apt-get download -qq -o APT::Sandbox::User=root prometheus && dpkg -x prometheus_*.deb .) && \
		cp "$$dir/usr/bin/promtool" $@; status=$$?; rm -rf "$$dir"; \
		[ $$status -eq 0 ] || { echo "promtool is missing: install Debian's package prometheus"; exit 1; }; }

.PHONY: alerts-check
alerts-check: bin/tools/promtool ## check and test the alert rules, and parse the dashboard's queries, with promtool
	@PATH="$$PATH:$(CURDIR)/bin/tools" deploy/prometheus/check

.PHONY: helm-check
helm-check: bin/tools/helm ## lint and render the chart with many values, and check each object strictly
	go test -C deploy/check -count 1 ./chart

.PHONY: systemd-check
systemd-check: ## measure the exposure of the systemd unit, at most 2.0, and start Stoa under its restrictions
	go test -C deploy/check -count 1 ./sandbox
	deploy/systemd/check

# Go keeps the results of tests whose files did not change, and does not see those of
# deploy: hence -count 1. What the walk does not find it says: WALK=processes or WALK=containers decides.
.PHONY: compose-walk
compose-walk: bin/tools/caddy ## bring deploy/compose up and walk to a store over TLS, with containers or processes
	STOA_NEW_SERVERS=0 scripts/with-servers deploy/compose/walk $(WALK)

.PHONY: compose-check
compose-check: bin/tools/caddy ## check compose.yaml, its .env.example and its Caddyfile
	go test -C deploy/check -count 1 ./composefile
	STOA_BASE_DOMAIN=shops.example.com ACME_EMAIL=operator@example.com bin/tools/caddy adapt --config deploy/compose/Caddyfile --adapter caddyfile >/dev/null

OAPI_CODEGEN := v2.8.2

# The generator of the pages has the version of the library that its output calls.
.PHONY: generate
generate: ## write the code of the templ pages and of the clients, and the documents on error codes
	go run github.com/a-h/templ/cmd/templ@$$(go list -m -f '{{.Version}}' github.com/a-h/templ) generate -path internal
	go generate ./internal/httpapi
	@$(MAKE) --no-print-directory generate-clients

.PHONY: generate-clients
generate-clients: ## write the code of the clients from the OpenAPI document (needs Node.js)
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	go run ./cmd/stoa openapi --base-url https://stoa.example.com > "$$dir/openapi.json" && \
	go run ./client/internal/generate -document "$$dir/openapi.json" -operations client/operations.gen.go -prepared "$$dir/go.json" && \
	go run github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@$(OAPI_CODEGEN) -config client/oapi-codegen.yaml "$$dir/go.json" && \
	cd clients/typescript && { [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --loglevel=error; } && \
	npm run --silent generate -- "$$dir/openapi.json"

GENERATED = find internal client clients/typescript/src docs/errors \( -name '*_templ.go' -o -name '*.gen.*' -o -path '*/generated/*' -o -path 'docs/errors/*' \) -type f | sort | xargs cat | cksum

.PHONY: generate-check
generate-check: ## check that the generated files are fresh
	@before=$$($(GENERATED)) && $(MAKE) --no-print-directory generate && \
	if [ "$$before" != "$$($(GENERATED))" ]; then \
		echo "the generated files were not fresh: commit what 'make generate' has written"; exit 1; \
	fi

.PHONY: screenshots
screenshots: ## take a picture of every page into screenshots/, by a desktop, a phone and in the dark (CHROMIUM=path)
	STOA_SCREENSHOTS=$(CURDIR)/screenshots STOA_TEST_CHROMIUM="$(CHROMIUM)" go test -count 1 -run '^TestScreenshots$$' ./internal/app
	@ls screenshots | wc -l

CHROMIUM ?= $(or $(STOA_TEST_CHROMIUM),$(shell command -v chromium || command -v chromium-browser || command -v google-chrome))

.PHONY: vet
vet: ## check the code with go vet
	go vet ./...
	go vet -C bench ./...
	go vet -C deploy/check ./...

.PHONY: fmt
fmt: ## format the code
	go fmt ./...
	go fmt -C bench ./...
	go fmt -C deploy/check ./...

.PHONY: tidy-check
tidy-check: ## check that go.mod and go.sum are exact
	go mod tidy -diff
	go mod tidy -C bench -diff
	go mod tidy -C deploy/check -diff

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
