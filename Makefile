# `make` lists the targets.

VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOLANGCI := v2.15.0
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
build: ## build bin/stoa
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/stoahq/stoa.Version=$(VERSION)" -o bin/stoa ./cmd/stoa

# The variable turns a test that finds no server from a skip into a failure.
.PHONY: test
test: ## run every test, on private servers and a real browser (TESTFLAGS="-run X -v")
	STOA_TEST_REQUIRE_SERVERS=1 scripts/with-servers go test -timeout 45m -parallel 4 $(SHORT) $(TESTFLAGS) ./...
	go test -C bench $(SHORT) $(TESTFLAGS) ./...

# The long forms kill, flood and repeat several times as often.
.PHONY: test-long
test-long: ## run every test in its long form
	@$(MAKE) --no-print-directory test SHORT=

# FAULT="fail-over" tries those with such a name.
.PHONY: faults
faults: ## run the fault suite in its long form: replicas, fail-over, full disk (FAULT="part of a name")
	STOA_TEST_FAULTS="$(FAULT)" STOA_TEST_REQUIRE_SERVERS=1 STOA_NEW_SERVERS=0 scripts/with-servers go test -timeout 45m -run '^TestFaults$$' -v -count 1 $(TESTFLAGS) ./internal/app

.PHONY: test-quick
test-quick: ## run the tests that need nothing but SQLite
	env -u STOA_TEST_REQUIRE_SERVERS -u STOA_TEST_POSTGRES_URL -u STOA_TEST_MYSQL_URL -u STOA_TEST_PGBOUNCER_URL -u STOA_TEST_REDIS_URL -u STOA_TEST_S3_URL -u STOA_TEST_CHROMIUM go test $(TESTFLAGS) ./...

.PHONY: race
# SQLite's own code, translated from C, and argon2 and scrypt, which hash passwords, are
# left out: they import nothing that Go synchronizes by, have no races to be
# found here, and took most of the time (a password 344 ms instead of 47).
race: ## run every test under the race detector
	@$(MAKE) --no-print-directory test TESTFLAGS="-race -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=golang.org/x/crypto/argon2=-race=false -gcflags=golang.org/x/crypto/scrypt=-race=false $(TESTFLAGS)"

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
BENCHES := micro reads fleet embedded victim attacks provision migrate credits operator archive tracing

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

.PHONY: fmt
fmt: ## format the code
	go fmt ./...
	go fmt -C bench ./...

.PHONY: tidy-check
tidy-check: ## check that go.mod and go.sum are exact
	go mod tidy -diff
	go mod tidy -C bench -diff

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
