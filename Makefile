# Each target sets up what it needs from nothing: .ci/setup makes .venv once and is instant after.
.PHONY: demo test lint types bench setup

PYTHON ?= python3
export PYTHON
BIN := .venv/bin

setup:
	@bash .ci/setup

demo: setup
	@mkdir -p out
	@$(BIN)/dtg-restore restore assets/demo.mp4 out/demo_restored.mp4 --t-start 0.25 --overwrite
	@echo "The restored video is $(CURDIR)/out/demo_restored.mp4 (before: assets/demo.mp4)"

test:
	@bash .ci/run

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy has to see the root folder under the name of the package.
types: setup
	@mkdir -p .venv/typing && ln -sfn ../.. .venv/typing/dtg_restore
	cd .venv/typing && MYPYPATH=. ../bin/mypy --config-file ../../pyproject.toml -p dtg_restore

bench: setup
	$(BIN)/python -m dtg_restore.bench.kernels --json out/bench/kernels.json
