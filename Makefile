# Two commands do everything: `make dev` runs the system before your eyes, `make test` proves it.

CARGO ?= cargo
# The compiler of rust-toolchain.toml, under the name that it has here.
TOOLCHAIN := $(shell scripts/toolchain)
ifneq ($(TOOLCHAIN),)
export RUSTUP_TOOLCHAIN := $(TOOLCHAIN)
endif
# What `make bench` builds with.
PROFILE ?= dist

.PHONY: help dev build ui test needs lint advisories test-cluster test-contracts fmt soak smoke headers scan base-images qa \
	edge-manifest registry-login images-push images release governance governance-delta stability bench bench-peers docs clean-data

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

dev: ui build ## Build and run everything on this machine, with a small workload; Ctrl-C drains and ends it
	@AGENTFORGE_NATS_SERVER="$$(scripts/nats-server --path)" target/debug/agentforge dev

build: ## Provide nats-server and build the command, its programs and the services
	@scripts/nats-server --path >/dev/null
	$(CARGO) build

ui: ## Build the console's pages, where their sources are newer; without them the console says how to
	@scripts/console-pages

test: needs ## Everything that must hold: the checks, then all tests (NATS=2.14: on another server)
	@NATS="$(NATS)" scripts/check --tests

needs: ## Install or name what checks and tests need
	@scripts/test-needs

lint: ## The checks without the tests: lints, documentation, dependencies, spelling (scripts/check --list)
	@scripts/check

advisories: ## Known weaknesses in dependencies, by today's list (needs a network, so not part of the checks)
	@scripts/checker cargo-deny --log-level error check advisories

test-cluster: ## The manifests on a real Kubernetes API, and the chart by Helm, which Go builds once (minutes); the gate skips them where none is built
	@scripts/control-plane --all >/dev/null
	@scripts/helm --build >/dev/null
	AGENTFORGE_CLUSTER=1 $(CARGO) test -p agentforge-deploy --test it -- cluster:: chart:: --test-threads=2

test-contracts: ## Our contracts and rules, compared with oasdiff and buf, which Go builds once (minutes)
	@scripts/oasdiff --build >/dev/null
	@scripts/buf --build >/dev/null
	@scripts/governance-programs >/dev/null
	AGENTFORGE_CONTRACTS=1 $(CARGO) test -p agentforge-governance --test it -- changes:: own::

fmt: ## Format
	$(CARGO) fmt --all

soak: needs ## The tests with their full counts (10,000 jobs under kill -9, ...), optimised; takes long
	@scripts/control-plane --all >/dev/null || echo "  without it the manifests are tried on no Kubernetes API" >&2
	@AGENTFORGE_SOAK=1 NEXTEST_PROFILE=soak scripts/run-tests --release -p agentforge-end-to-end -p agentforge-observability -p agentforge-deploy \
		$(addprefix -p agentforge-,$(notdir $(wildcard services/*)))

smoke: ## Start everything on this machine, and check that it works as an installation should
	@scripts/verify_staging.sh --local

headers: ## The console's security headers, asked directly and through a proxy (SECURITY_HEADER_URLS='https://a https://b')
	$(CARGO) build --quiet
	@AGENTFORGE_BIN="$(CURDIR)/target/debug/agentforge" scripts/check-headers

scan: ## What the binaries are made of, and high or critical weaknesses in it (IMAGES='a b'); Go builds Grype once (minutes)
	@scripts/grype --build >/dev/null
	@scripts/scan $(IMAGES)

base-images: ## Pin the images that ours are built on to what their tags mean today (BASE_IMAGES=--propose: as a pull request)
	@scripts/base-images $(or $(BASE_IMAGES),--update)

qa: ## Everything on this machine with a backlog, and the results, metrics and use of resources in target/qa
	$(CARGO) build --quiet -p agentforge-cli -p agentforge-stack -p agentforge-governance
	@AGENTFORGE_BIN="$(CURDIR)/target/debug/agentforge" scripts/qa-profile target/qa

edge-manifest: ## A site delivers files, and its ledger is verified at the hub: target/edge/edge_sync_manifest.json
	$(CARGO) build --quiet
	@AGENTFORGE_BIN="$(CURDIR)/target/debug/agentforge" scripts/edge-manifest target/edge

registry-login: ## Log in to REGISTRY with REGISTRY_USER and REGISTRY_PASSWORD of the environment (ENGINE=docker)
	@scripts/registry-login

images-push: ## Build and push the image of each service at this commit; target/digests.txt has their digests
	@mkdir -p target
	@scripts/build-images --push > target/digests.txt

images: images-push ## The same, then move staging to them by digest, and push that commit
	@scripts/promote staging --digests target/digests.txt
	@git push

release: ## The files of a release: chart, list of materials, notes, checksums, signature (scripts/release --help)
	@scripts/release

governance: ## Alerts of this repository against their taxonomy, with all artifacts (target/governance/status)
	$(CARGO) build --quiet -p agentforge-governance
	@for command in lint check render metrics history gate; do \
		case $$command in lint | check) output="" ;; *) output="--output target/governance" ;; esac; \
		echo "--- alerts $$command"; target/debug/agentforge-governance alerts $$command $$output || exit; \
	done

governance-delta: ## What changes in alerts since PREV (git:origin/main), as Markdown on the standard output
	@$(CARGO) build --quiet -p agentforge-governance
	@target/debug/agentforge-governance alerts delta --output target/governance --prev "$(or $(PREV),git:origin/main)"

stability: ## Contracts against the last release's: verdict, history of runs, badges and a page (target/stability/status)
	$(CARGO) build --quiet -p agentforge-governance
	@scripts/stability target/stability

bench: ## Jobs per second and latency, compared with the raw JetStream floor, built as in the images (PROFILE=release: built sooner)
	@scripts/nats-server --path >/dev/null
	$(CARGO) build --profile $(PROFILE) -p agentforge-cli -p agentforge-bench -p agentforge-stack -p agentforge-orchestrator \
		-p agentforge-worker --bins
	target/$(PROFILE)/agentforge bench jobs

bench-peers: ## The same job through other job libraries, in turns with what `make bench` built (PEERS='--count 500 --rounds 1')
	@bench/peers/run $(PEERS)

docs: build ## Write docs/configuration.md, docs/METRICS.md and the OpenAPI documents
	@scripts/generate-docs

clean-data: ## Remove what `make dev` and `make bench` stored
	rm -rf .agentforge .agentforge-bench
