# Two commands: `make demo` shows contextual retrieval on real text, `make test` runs every check.
# Both make a virtual environment first; the pinned versions are in constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test fast lint types check integrations docs bench campaign milvus clean

demo: $(INSTALLED)
	$(BIN)/python run_eval.py --max-documents 400 --ask-in pandas --ask \
	  "merge two tables on a column" \
	  "fill missing values with the previous one" \
	  "turn text into dates"
	@printf '\n%s\n' "The documentation of this package, indexed as a folder of files, and three questions to it:"
	@index=$$(mktemp -d) && $(BIN)/cderetrieval index docs --out $$index && $(BIN)/cderetrieval search $$index -k 1 \
	  "how do I share an index with another user" \
	  "does loading a model run code from it" \
	  "is the model told when my corpus changes over time"; status=$$?; rm -rf $$index; exit $$status

# Beside the first tests, which wait for Ray's workers to start, there is time for the types.
test: lint
	$(MAKE) --no-print-directory --jobs 2 types check

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@! $(BIN)/vulture | grep "^cderetrieval/"

types: $(INSTALLED)
	$(BIN)/mypy

check: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadscope

# What a change most often breaks, in about 90 seconds on two cores.
fast: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadscope -m "not slow"

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(VENV) || { echo "python3 has no venv module: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[eval,train,offline,bm25,sparse,scale,notebooks,files,serve,onnx,mcp,dev]"
	@touch $@

# LangChain, LlamaIndex and Haystack, in an environment of their own that also sees the packages of the first.
integrations: $(INSTALLED)
	@test -d .venv-integrations || $(PYTHON) -m venv .venv-integrations
	@$(BIN)/python -c "import site; print(*site.getsitepackages())" > \
	  "$$(.venv-integrations/bin/python -c 'import site; print(*site.getsitepackages())')/first.pth"
	.venv-integrations/bin/python -m pip install --quiet --constraint constraints.txt \
	  langchain-core langchain-tests llama-index-core haystack-ai
	PYTHONPATH=. .venv-integrations/bin/python -m pytest --asyncio-mode=auto \
	  -o asyncio_default_fixture_loop_scope=function \
	  tests/integrations cderetrieval/integrations tests/test_reference.py tests/test_pages.py -k "not docs or how-to"

# The documentation as a site, in an environment of its own: it reads the sources and needs neither torch nor a network.
docs:
	@test -d .venv-docs || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv-docs/bin/python -m pip install --quiet --constraint constraints.txt --group docs
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet
	@echo "site/index.html"

# Every benchmark in its short form, in less than 15 minutes; nothing under benchmarks/results is written.
bench: $(INSTALLED)
	$(BIN)/python benchmarks/run_all.py

# Kills, interrupts, damaged files, readers beside a writer, hostile models: thousands of each, in twenty minutes.
campaign: $(INSTALLED)
	$(BIN)/python benchmarks/campaign.py

# A real Milvus, in an environment of its own: the tests of tests/milvus then start it on loopback (about 5 minutes more).
milvus:
	$(PYTHON) -m venv .venv-milvus
	.venv-milvus/bin/python -m pip install --quiet "setuptools<81" milvus==2.3.5

clean:
	rm -rf $(VENV) .venv-milvus .venv-docs .venv-integrations site
