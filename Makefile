SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION  := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -X github.com/slipway-cd/slipway/cmd/internal/wire.Version=$(VERSION)
FUZZTIME ?= 10s
PKG      ?= ./...
TESTRUN  := go run ./e2e/testrun

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.PHONY: build
build: ## build slipway, slipway-agent and slipway-server into bin/
	@echo "building slipway, slipway-agent and slipway-server into bin/ (the first time takes some minutes)"
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/slipway ./cmd/slipway-agent ./cmd/slipway-server

.PHONY: demo
demo: build ## play the whole story on a Kubernetes of its own (KEEP=1 leaves it running)
	go run -trimpath ./e2e/demo -bin bin $(if $(KEEP),-keep)

.PHONY: test
test: ## everything that CI runs: lint, generated files, all tests; as root the demo as a normal user too
	@$(TESTRUN)

.PHONY: lint
lint: ## go vet, gofumpt, staticcheck
	@$(TESTRUN) lint

.PHONY: generate
generate: ## write the CRDs and the DeepCopy functions anew
	@$(TESTRUN) generate

.PHONY: verify
verify: ## check that the generated files are those that `make generate` writes
	@$(TESTRUN) verify

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (default 10s); PKG=./some/package for fewer
	@for p in $$(go list $(PKG)); do \
		for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
			echo "== $$p $$f"; \
			go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p; \
		done; \
	done

.PHONY: bench
bench: ## run the benchmarks; PKG=./some/package for fewer
	go test -run '^$$' -bench . -benchmem -timeout 60m $(PKG)

.PHONY: tools
tools: ## install the tools that the other targets use into the user's cache
	@$(TESTRUN) tools

.PHONY: vuln
vuln: ## look up known vulnerabilities in what is called (needs the network)
	@$(TESTRUN) vuln

.PHONY: clean
clean: ## remove bin/ (the test bed stays in the user's cache)
	rm -rf bin
