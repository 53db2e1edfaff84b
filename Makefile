# Everything happens in .venv; nothing outside the checkout is written.
PYTHON  ?= python3.11
WORKERS ?= 2
BIN     := .venv/bin
STAMP   := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test lint type serve wheel clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv with the pinned versions of constraints.txt

# PIP_CONSTRAINT pins the isolated build environment too.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --disable-pip-version-check -e '.[test,lint]'
	touch $@

demo: $(STAMP) ## train, prune and compare a small network over REST; results in demo/
	$(BIN)/autoprune demo --output demo

# Tests that measure time run alone, before the others share the cores; both runs always happen.
test: $(STAMP) ## run the tests (WORKERS=2 processes)
	@$(BIN)/python -m pytest -m timing; timing=$$?; \
	$(BIN)/python -m pytest -m "not timing" -n $(WORKERS) --dist loadfile && exit $$timing

lint: $(STAMP) ## check style, formatting and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: $(STAMP) ## check types (mypy strict)
	$(BIN)/mypy -p autoprune

serve: $(STAMP) ## start the REST service
	$(BIN)/autoprune serve

wheel: $(STAMP) ## build dist/*.whl
	rm -rf build dist
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m build --wheel

clean: ## remove what was built, cached or demonstrated (keeps .venv)
	rm -rf build dist demo .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find autoprune envs latency_tables search service tests -name __pycache__ -type d -prune -exec rm -rf {} +
