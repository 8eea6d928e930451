# Lodge. `make` lists the targets; `make up` and `make test` need nothing beforehand but Go.
SHELL      := /bin/bash -euo pipefail
GO         ?= go
IMAGE      ?= debian-13
IMAGES     ?= /var/lib/lodge/images
FUZZTIME   ?= 500x
E2EFLAGS   ?= -v
CADDY      ?= v2.11.9
VERSITYGW  ?= v1.8.0
MINIO      ?= v0.0.0-20260212201848-7aac2a2c5b7c
LINT       := $(GO) tool -modfile=.lint/golangci-lint.mod golangci-lint
export PATH := $(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin
# Go cannot stamp the version where git rejects the clone, such as one that another user owns.
export GOFLAGS := $(GOFLAGS) $(shell git rev-parse --git-dir >/dev/null 2>&1 || echo -buildvcs=false)

.DEFAULT_GOAL := help
.PHONY: help up down purge build man image test check unit e2e soak upgrades kills lint fuzz bench bench-https bench-mail bench-s3 conformance fmt deps go

help: ## list the targets
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

up: go ## start Lodge and a first VM on this machine, and print the next steps
	@packaging/up

down: ## stop the daemon; the VMs keep running
	@packaging/down

purge: ## remove the VMs and all that `make up` made, after a confirmation (YES=1: without)
	@packaging/purge

build: go ## build bin/lodged and bin/lodge
	@$(GO) build -o bin/ ./cmd/lodged ./cmd/lodge

man: go ## write docs/man/lodge.1 from the verbs of lodge
	@$(GO) test -count=1 -run '^TestManPage$$' ./cmd/lodge/cli -update >/dev/null

image: deps build ## build the base image, unless it exists
	@test -s $(IMAGES)/$(IMAGE).json && echo "image: $(IMAGE) is in $(IMAGES)" || bin/lodged build-image $(IMAGE)

test: ## run everything: linters, unit tests, short fuzzing, the VM suite
	@for part in lint unit fuzz e2e; do begun=$$SECONDS; $(MAKE) --no-print-directory $$part; echo "make $$part: $$((SECONDS - begun)) s"; done

check: lint go ## run what every change must pass: linters, unit tests without the race detector
	$(GO) test -shuffle=on -vet=off ./...

# The linters include vet.
# The race detector keeps each program that exits for 1 s, for races of what still runs. The tests
# start hundreds of programs, and wait for what they have started.
unit: export GORACE := atexit_sleep_ms=20
unit: deps go ## run the tests that need no VM, with the race detector
	$(GO) test -race -shuffle=on -vet=off -timeout 20m ./...

e2e: image ## run the tests that need VMs; the suite with two VMs is the last
	@others=$$(grep -rl --include='*_test.go' 'flag.Bool("vm"' . | xargs -n1 dirname | sort -u | grep -v '^./e2e$$' || true); \
	$(GO) test -count=1 -timeout 20m $$others -args -vm
	$(GO) test -count=1 -timeout 60m $(E2EFLAGS) ./e2e -args -vm -images $(IMAGES)

soak: image ## run the long versions of tests: 5000 operations on layers, 5000 verbs on VMs, 20 VMs of one template, an upload of 10 GiB, Debian 12
	$(GO) test -count=1 -timeout 60m -v -run '^TestLargeBodies' ./https -args -upload 10737418240
	$(GO) test -count=1 -timeout 60m -v -run TestRandomOperations ./vmhost/layers -args -operations 5000
	$(GO) test -count=1 -timeout 60m -v -run TestRandomVerbs ./vmhost -args -verbs 5000
	$(GO) test -count=1 -timeout 60m -v -run 'TestLodge/siblings' ./e2e -args -vm -images $(IMAGES) -siblings 20
	$(MAKE) --no-print-directory image IMAGE=debian-12
	$(GO) test -count=1 -timeout 60m -v -run 'TestLodge/(questions|siblings|reboot|storage)' ./e2e -args -vm -images $(IMAGES) -image debian-12

upgrades: deps go ## run the long version of a test: 200,000 requests over 5 upgrades, none is lost
	$(GO) test -count=1 -timeout 30m -v -run 'RefusesNothing$$' ./e2e -args -upgrades 5 -requests 200000

kills: go ## run the long versions of tests: mail and storage are killed again and again amid writes, versions, expiry, marks and rewinds, and nothing is lost or torn
	$(GO) test -count=1 -timeout 60m -v -run '^TestKill$$' ./mail -args -kills 1000
	$(GO) test -count=1 -timeout 60m -v -run '^TestKill$$' ./storage -args -kills 500
	$(GO) test -count=1 -timeout 60m -v -run '^(TestKill|TestAgainstModel)$$' ./storage/store -args -kills 500 -long

lint: go ## run the linters
	@GOLANGCI_LINT_CACHE=$(CURDIR)/build/lint $(LINT) run ./...

fuzz: deps go ## run each fuzz target with FUZZTIME inputs (or for a time: FUZZTIME=30s)
	@GO="$(GO)" packaging/fuzz "$(FUZZTIME)"

bench: image ## measure the performance, and print a table
	@dir=$$(mktemp -d); chmod 711 $$dir; begun=$$SECONDS; bin/lodged build-image -state-dir $$dir $(IMAGE) >/dev/null 2>&1; \
	printf '%-52s %16s\n' "image build, $(IMAGE)" "$$((SECONDS - begun)) s"; rm -rf $$dir
	@$(GO) test -count=1 -timeout 60m -v -run TestTable ./e2e/bench -args -vm -images $(IMAGES) $(BENCHFLAGS) | grep -vE "^ *(===|---)"

bench-https: go ## compare the web side with nginx, HAProxy and Caddy (BENCHFLAGS=-short: within a minute)
	@packaging/deps bench
	@test -x build/caddy || GOBIN=$(CURDIR)/build $(GO) install github.com/caddyserver/caddy/v2/cmd/caddy@$(CADDY)
	@$(GO) build -o build/bench-https ./e2e/bench/web && build/bench-https -caddy build/caddy $(BENCHFLAGS)

bench-mail: go ## compare mail with Postfix, and measure its other goals, as root (BENCHFLAGS=-short: smaller numbers)
	@packaging/deps mailbench
	@$(GO) build -o build/bench-mail ./e2e/bench/mailbench && unshare --net --mount --pid --fork --kill-child --mount-proc build/bench-mail $(BENCHFLAGS)

bench-s3: go ## compare storage with MinIO, versitygw and nginx, and measure its other goals (BENCHFLAGS="-seconds 20 -objects 1000000": long)
	@packaging/deps bench
	@test -x build/versitygw || GOBIN=$(CURDIR)/build $(GO) install github.com/versity/versitygw/cmd/versitygw@$(VERSITYGW)
	@test -x build/minio || GOBIN=$(CURDIR)/build timeout 15m $(GO) install github.com/minio/minio@$(MINIO) || echo "MinIO cannot be built here"
	@$(GO) build -o build/bench-s3 ./e2e/bench/s3bench && build/bench-s3 -minio build/minio -versitygw build/versitygw $(BENCHFLAGS)

conformance: go ## check the web side with h2spec, testssl.sh, slowhttptest and odd WebSockets, and beside nginx; mail beside Postfix and into Dovecot; S3 with the tests of minio-go and versitygw
	@$(GO) test -count=1 -run '^TestWebSocket' ./https
	@packaging/deps conformance
	@$(GO) test -count=1 -v -run '^TestTranscripts' ./mail/smtpd -args -transcripts 2000 -postfix | grep -vE '^ *(===|---)'
	@$(GO) test -count=1 -run '^TestPostfix' ./mail/relay -args -postfix
	@$(GO) test -count=1 -run '^TestRealServers' ./mail -args -postfix
	@$(GO) test -count=1 -v -run 'OddRequests' ./https -args -odd 2000 | grep -vE '^ *(===|---)'
	@test -x build/versitygw || GOBIN=$(CURDIR)/build $(GO) install github.com/versity/versitygw/cmd/versitygw@$(VERSITYGW)
	@$(GO) test -count=1 -timeout 30m -v -run '^Test(MinioGo|Versitygw)$$' ./storage -args -conformance -versitygw $(CURDIR)/build/versitygw | grep -vE '^ *(===|---)'
	@test -x build/h2spec || GOBIN=$(CURDIR)/build $(GO) install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible
	@$(GO) build -o build/bench-https ./e2e/bench/web && packaging/conformance

fmt: go ## format the Go files
	@$(LINT) fmt ./...

deps: ## prepare the machine to run and test: install missing Debian packages, open /dev/kvm
	@packaging/deps run test

go:
	@packaging/check-go "$(GO)"
