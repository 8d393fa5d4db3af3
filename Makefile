# make demo    the rotated evaluation and the demo pictures on the embedded defaults
# make test    the tests; PYTEST="-k geometry -x" passes options on
# make benchmark OUTPUT=DIR  what it costs beside its peers, which it installs into the environment
# make results  every evaluation behind the documents' tables, an hour; PARTS="coco poses" some of them
# make docs-check  runs the commands of the documents; DOCS="--list" passes options on
# make env     only the environment, in .venv, that the others make when they need it
# make extras  also what is optional, and the tests of it: other libraries, and a driver of browsers
# make clean   removes .venv and what tools and tests leave behind, but not output/
#
# PYTHON is what makes the environment; VENV is its folder. An environment of your own, with your
# own detectron2, is used as it is, and nothing is installed into it, when VENV is empty:
#
#     make test VENV= PYTHON=/path/to/bin/python
#
# A detectron2 that VENV already has is kept, but the versions of requirements/ci.txt are installed
# beside it.

PYTHON ?= python3
VENV ?= .venv
OUTPUT ?= output/demo
CONFIG ?= configs/sam_tiny_c4.yaml

ifeq ($(strip $(VENV)),)
RUN := $(PYTHON)
READY :=
EXTRAS :=
else
RUN := $(VENV)/bin/python
READY := $(VENV)/.canon_seg-ready
EXTRAS := $(VENV)/.canon_seg-extras
endif

INSTALL := $(RUN) -m pip --disable-pip-version-check install --quiet
# Says that this file is making VENV; one that is found at the start was never finished.
UNFINISHED := $(VENV)/.canon_seg-unfinished

.PHONY: demo test results docs-check benchmark env extras clean

demo: $(READY)
	$(RUN) tools/eval_rotated.py --config-file $(CONFIG) --output $(OUTPUT)
	$(RUN) demo/demo.py --config-file $(CONFIG) --turns --output $(OUTPUT)

# A process for each core, and one thread in each: faster than the other way round.
test: $(READY)
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --dist loadfile $(PYTEST)

results: $(READY)
	PYTHON=$(RUN) tools/results.sh $(PARTS)

docs-check: $(READY)
	$(RUN) tools/check_docs.py $(DOCS)

benchmark: OUTPUT = output/benchmark
benchmark: $(EXTRAS)
	$(RUN) tools/benchmark.py --output $(OUTPUT)

env: $(READY)

extras: $(EXTRAS)

ifneq ($(READY),)
$(READY): requirements/ci.txt requirements/escnn.txt setup.py tools/install_detectron2.py
	@if [ -e $(UNFINISHED) ]; then \
	    echo "==> $(VENV) was never finished: making it anew"; rm -rf $(VENV); fi
	@if [ ! -x $(RUN) ]; then \
	    echo "==> $(VENV): a new environment"; \
	    mkdir -p $(VENV) && touch $(UNFINISHED) && $(PYTHON) -m venv $(VENV) || { \
	        echo "error: $(PYTHON) made no environment;" \
	            "on Debian: apt-get install python3-venv" >&2; \
	        exit 1; }; fi
	@echo "==> $(VENV): torch and the other requirements (some gigabytes, some minutes)"
	@$(INSTALL) --constraint requirements/ci.txt pip setuptools wheel
	@$(INSTALL) --no-build-isolation --requirement requirements/ci.txt
	@$(INSTALL) --no-deps --requirement requirements/escnn.txt
	@echo "==> $(VENV): detectron2"
	@$(RUN) tools/install_detectron2.py
	@echo "==> $(VENV): canon_seg"
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@$(RUN) -W ignore -c "import canon_seg.d2.compat, detectron2.modeling, segment_anything, escnn"
	@rm -f $(UNFINISHED)
	@touch $@

$(EXTRAS): $(READY) requirements/extras.txt
	@echo "==> $(VENV): the extras"
	@SAM2_BUILD_CUDA=0 $(INSTALL) --no-build-isolation --constraint requirements/ci.txt \
	    --requirement requirements/extras.txt
	@touch $@
endif

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis
	find canon_seg configs demo tests tools -name __pycache__ -prune -exec rm -rf {} +
