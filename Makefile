# make demo    the rotated evaluation and the demo pictures on the embedded defaults
# make test    the tests; PYTEST="-k geometry -x" passes options on
# make check   the static checks: lint, format, types, and which room imports which
# make format  has ruff format the code and sort its imports
# make test-minimum  the core tests on the oldest supported versions, in an environment of their own
# make fuzz CASES=10000  feeds files of all kinds, whole and spoilt; CASES of each
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
# A detectron2 or a torch without CUDA that VENV already has is kept, but the other versions of
# requirements/constraints.txt are installed beside it.

PYTHON ?= python3
VENV ?= .venv
MINIMUM_VENV ?= .venv-minimum
OUTPUT ?= output/demo
CASES ?= 10000
CONFIG ?= configs/sam_tiny_c4.yaml

ifeq ($(strip $(VENV)),)
RUN := $(PYTHON)
READY :=
EXTRAS :=
CHECKS :=
else
RUN := $(VENV)/bin/python
READY := $(VENV)/.canon_seg-ready
EXTRAS := $(VENV)/.canon_seg-extras
CHECKS := $(VENV)/.canon_seg-checks
endif

# On a terminal pip shows how far it is: an environment takes minutes.
PIP_INSTALL := -m pip --disable-pip-version-check install $(shell test -t 2 || echo --quiet)
INSTALL := $(RUN) $(PIP_INSTALL) --constraint requirements/constraints.txt
# Says that this file is making VENV; one that is found at the start was never finished.
UNFINISHED := $(VENV)/.canon_seg-unfinished

# What reads, turns, canonicalizes, segments and scores. Training needs escnn, which is not there.
MINIMUM_TESTS := $(addprefix tests/test_, $(addsuffix .py, \
    cli_threads coco_annotations coco_masks coco_panoptic config_assets config_device conversions \
    core_group core_prior d2_compat d2_config d2_instances d2_meta_arch evaluation images_arrays \
    images_canonicalizer images_coordinates images_reading images_representative images_resize \
    io_checkpoint io_files mask_generator networks_equivariant networks_escnn_stand_ins \
    networks_photo_stream predictor rotated_coco sam_losses sam_models sam_predictor sam_prompts \
    sam_windows views))

.PHONY: demo test test-minimum fuzz results docs-check benchmark env extras clean format
.PHONY: check check-lint check-format check-types check-rooms

demo: $(READY)
	$(RUN) tools/eval_rotated.py --config-file $(CONFIG) --output $(OUTPUT)
	$(RUN) demo/demo.py --config-file $(CONFIG) --turns --output $(OUTPUT)

# A process for each core, and one thread in each: faster than the other way round.
test: $(READY)
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --dist loadfile $(PYTEST)

test-minimum: $(MINIMUM_VENV)/.canon_seg-ready
	OMP_NUM_THREADS=1 $(MINIMUM_VENV)/bin/python -m pytest --numprocesses auto --dist loadfile \
	    $(MINIMUM_TESTS) $(PYTEST)

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(RUN) tools/fuzz.py --cases $(CASES) --pytest="--numprocesses auto $(PYTEST)"

# With --keep-going, what one check finds does not hide what the others find.
check: check-lint check-format check-types check-rooms

check-lint: $(CHECKS)
	$(RUN) -m ruff check .

check-format: $(CHECKS)
	$(RUN) -m ruff format --check .

check-types: $(CHECKS)
	$(RUN) -m mypy

check-rooms: $(CHECKS)
	$(dir $(RUN))lint-imports

format: $(CHECKS)
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --select I --fix .

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
$(READY): requirements/constraints.txt requirements/escnn.txt pyproject.toml setup.py \
          canon_seg/cli/install_detectron2.py
	@if [ -e $(UNFINISHED) ]; then \
	    echo "==> $(VENV) was never finished: making it anew"; rm -rf $(VENV); fi
	@if [ ! -x $(RUN) ]; then \
	    echo "==> $(VENV): a new environment"; \
	    mkdir -p $(VENV) && touch $(UNFINISHED) && $(PYTHON) -m venv $(VENV) || { \
	        echo "error: $(PYTHON) made no environment;" \
	            "on Debian: apt-get install python3-venv" >&2; \
	        exit 1; }; fi
	@echo "==> $(VENV): canon_seg, torch and the other requirements (some gigabytes, some minutes)"
	@$(INSTALL) pip setuptools wheel
	@# Earlier environments have it, and it breaks escnn beside numpy 2.
	@$(RUN) -m pip uninstall --quiet --yes lie_learn 2> /dev/null
	@$(INSTALL) --no-build-isolation --editable .[demo,test,train]
	@$(INSTALL) --no-deps --requirement requirements/escnn.txt
	@echo "==> $(VENV): detectron2"
	@$(RUN) tools/install_detectron2.py
	@$(RUN) -W ignore -c "import canon_seg.d2.compat, canon_seg.networks.escnn_layers, \
	    detectron2.modeling, segment_anything"
	@rm -f $(UNFINISHED)
	@touch $@

$(EXTRAS): $(READY)
	@echo "==> $(VENV): the extras"
	@SAM2_BUILD_CUDA=0 $(INSTALL) --no-build-isolation --editable .[app,benchmark,heic,hub,onnx,points,supervision] \
	    --group optional-tests
	@touch $@

$(CHECKS): $(READY)
	@echo "==> $(VENV): the tools of the static checks"
	@$(INSTALL) --group check
	@touch $@
endif

$(MINIMUM_VENV)/.canon_seg-ready: requirements/minimum.txt pyproject.toml setup.py
	@echo "==> $(MINIMUM_VENV): the oldest supported versions"
	@rm -rf $(MINIMUM_VENV)
	@$(PYTHON) -m venv $(MINIMUM_VENV)
	@$(MINIMUM_VENV)/bin/python $(PIP_INSTALL) --constraint requirements/constraints.txt \
	    pip setuptools wheel
	@$(MINIMUM_VENV)/bin/python $(PIP_INSTALL) --no-build-isolation \
	    --requirement requirements/minimum.txt --editable .
	@$(MINIMUM_VENV)/bin/python tools/install_detectron2.py
	@touch $@

clean:
	rm -rf .venv .venv-minimum build dist *.egg-info
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find canon_seg configs demo tests tools -name __pycache__ -prune -exec rm -rf {} +
