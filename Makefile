# Every target sets up .venv by itself on a machine with only python3 (3.11 to 3.13, with venv) and make.
# Linux without a GPU: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo   (see README.md)

PYTHON  ?= python3
WORKERS ?= 2
NB      ?= 06_coupling_flows
BIN     := $(CURDIR)/.venv/bin
SETUP   := pyproject.toml constraints.txt

# nbgrader looks for alembic on PATH; one thread each, so that workers do not fight for cores.
export PATH := $(BIN):$(PATH)
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: help demo lab test test-all release lint bench edit save clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      release lecture 06, hand in a small class, grade it, show the marks"
	@echo "make lab       JupyterLab on a page with the lectures, with nbgrader's extensions"
	@echo "make test      the tests (without the slow ones); WORKERS=4 for more processes"
	@echo "make test-all  all tests, also the slow ones"
	@echo "make release   make lectures/ anew from solutions/"
	@echo "make lint      ruff, and the rules of the house"
	@echo "make bench     speed against other libraries; tables and JSON in benchmarks/results/"
	@echo "make edit NB=06_coupling_flows   the solution notebook as a text file; make save NB=... brings it back"
	@echo "make clean     remove .venv, demo/ and caches; never submissions or marks"

.venv/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "Python 3.11 to 3.13 is needed, $(PYTHON) is %d.%d; choose one with make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv .venv

# The first stamp is enough to learn and to grade, the second adds what tests and benchmarks need.
.venv/course.stamp: .venv/pyvenv.cfg $(SETUP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lab,grade]'
	@touch $@

.venv/dev.stamp: .venv/course.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lab,grade,test,bench,cluster]'
	@touch $@

demo: .venv/course.stamp
	$(BIN)/dgm demo

lab: .venv/course.stamp
	$(BIN)/dgm start

test: .venv/dev.stamp
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

test-all: .venv/dev.stamp
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

release: .venv/course.stamp
	$(BIN)/dgm release

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/dgm lint

bench: .venv/dev.stamp
	$(BIN)/python -m benchmarks

edit: .venv/dev.stamp
	@$(BIN)/dgm edit $(NB)

save: .venv/dev.stamp
	@$(BIN)/dgm save $(NB)

# Never what students handed in, nor marks.
clean:
	rm -rf .venv demo build *.egg-info benchmarks/results .pytest_cache .ruff_cache .hypothesis .nbgrader.log
	find . -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -not -path './.git/*' -prune -exec rm -rf {} +
