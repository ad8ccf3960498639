# Each target is one script or one cargo command; `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup build image demo demo-cluster test test-cluster lint bench bench-cluster soak overload clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## run the examples and call them, until Ctrl-C (ONCE=1: end after the calls)
	@ONCE=$(ONCE) scripts/demo

demo-cluster: ## the same in Kubernetes: in one that this brings, or the one that KUBECONFIG names
	@ONCE=$(ONCE) scripts/demo-cluster

test: ## run everything that this machine can run, and say what was skipped
	@scripts/test

test-cluster: ## the same for what needs Kubernetes: on a real one that this brings, or the one that KUBECONFIG names
	@scripts/test-cluster

lint: ## format, clippy, docs, dependencies, shell scripts
	@scripts/lint

bench: ## compare with the bare instance and with nginx, and measure the idle cost
	@scripts/bench

bench-cluster: ## compare Functions with bare Deployments in a real cluster, and measure a thousand of them
	@scripts/bench-cluster

soak: ## ten minutes of traffic, changes and kills; what is there in the end must be what was there before
	@scripts/setup
	@cargo test --locked --test e2e soak::after_ten_minutes -- --ignored --nocapture

overload: ## a minute of five times what a function can take; what it did, how quick refusals were, what neighbours felt
	@scripts/setup
	@cargo test --locked --test e2e overload::a_minute -- --ignored --nocapture

setup: ## make a Docker engine answer and provide the images that the tests use
	@scripts/setup

build: ## build the release binary, target/release/faas
	cargo build --release --locked

image: ## build the image of faas itself, one static program on nothing
	@scripts/image

clean: ## remove what was built
	cargo clean
