# From a fresh clone, `make demo` or `make test` is the only command needed: a target makes .venv and installs what
# it lacks, once. What was installed is remembered by stamp files in .venv; pyproject.toml or constraints.txt newer
# than a stamp installs again.

# The first of these that is Python 3.11 or newer and can make a virtual environment. 3.11 first: the pins in
# constraints.txt were run on it. Another one: make PYTHON=/path/to/python3 demo
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3 python; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo $$python && break; done)

BIN := .venv/bin

.PHONY: demo test test-s3 lint format bench bench-gpu prove clean

demo: .venv/.product
	$(BIN)/slipway demo

# As many processes as cores, four at most, and one thread in each; the tests of a file stay together, as they share
# what takes long to make. One test: .venv/bin/pytest tests/FILE.py -k NAME
test: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile

# The store's, the registry's and a whole workspace's tests on a real S3 server, keys by the usual environment:
#     S3_ENDPOINT=http://127.0.0.1:7480 AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... make test-s3
test-s3: .venv/.dev
	@if [ -z "$$S3_ENDPOINT" ]; then echo "S3_ENDPOINT is not set: nothing to test on"; else \
	$(BIN)/pytest -m 'slow or not slow' -k "s3 or real" tests/infra/test_store.py tests/data_contracts/test_registry.py \
	tests/data_contracts/test_tags.py tests/data_contracts/test_withdrawal.py tests/data_contracts/test_races.py \
	tests/services/test_s3_workspace.py; fi

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Each file in bench/ measures one thing beside what else does it; arms.py is what they share.
bench: .venv/.dev
	@set -e; for file in $(filter-out bench/arms.py,$(wildcard bench/*.py)); do $(BIN)/python "$$file"; done

# On one GPU, beside HF Trainer; without a GPU each says so.
bench-gpu: .venv/.dev
	@set -e; for file in $(wildcard bench/gpu/*.py); do $(BIN)/python "$$file"; done

# The long tests that `make test` leaves out. pytest's exit code 5 means that none is selected.
prove: .venv/.dev
	@$(BIN)/pytest -m slow; code=$$?; \
	if [ $$code -eq 5 ]; then echo "no long test yet: none is marked slow"; else exit $$code; fi

clean:
	rm -rf .venv .slipway build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip is the last thing that venv makes: an interrupted start is taken up again.
.venv/bin/pip:
	@if [ -z "$(PYTHON)" ]; then echo "No Python 3.11 or newer that can make a virtual environment was found; install" \
	"one (Debian: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3 demo" >&2; exit 1; fi
	$(PYTHON) -m venv .venv

# $(product): what pip installs. pip's own output goes to .venv/install.log; the terminal shows its newest line, a log
# every fortieth. A pipe answers with the code of its last command, so pip's failure is left in a file.
define install
	@echo "Installing $(product) into .venv: several minutes the first time"
	@rm -f .venv/.failed
	@{ $(BIN)/python -u -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e '$(product)' 2>&1 \
	|| touch .venv/.failed; } | tee .venv/install.log \
	| awk -v live="$$([ -t 1 ] && echo 1)" '{ line = substr($$0, 1, 76) } live { printf "\r\033[K  %s", line } \
	!live && NR % 40 == 1 { print "  " line } { fflush() } END { if (live) printf "\r\033[K" }'
	@if [ -e .venv/.failed ]; then tail -n 15 .venv/install.log >&2; \
	echo "pip could not install: its whole output is in .venv/install.log" >&2; exit 1; fi
	@touch $@
endef

.venv/.product: product := .
.venv/.product: pyproject.toml constraints.txt | .venv/bin/pip
	$(install)

.venv/.dev: product := .[dev,pretrained]
.venv/.dev: pyproject.toml constraints.txt | .venv/bin/pip
	$(install)
	@touch .venv/.product
