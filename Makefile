# make demo        predict with the weights that come along, train on, score (5 minutes)
# make test        all tests
# make test-fast   those that are not slow, in a minute and a half
# make slow        all tests from an empty cache, to write which are slow
# make lint        ruff and mypy
# make mutants     puts known faults into copies of the code: do the tests notice?
# make docs        the documentation as a site in site/
# make notebooks   runs the notebooks of examples/ and writes their outputs into them
# make hooks       lint before each commit
# Each sets up .venv by itself. make demo SOURCE=video.mp4 also predicts your video; with
# SCRATCH=1 it trains IFR from random weights instead (12 minutes, 2 cores).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VIS := $(BIN)/python -m vis_jax.main
ifdef SCRATCH
RUNS ?= runs/demo_scratch
STEPS := 1500
TRAIN := --config configs/ifr_shapes.py
ABOUT := a small IFR learns from random weights to find and track generated shapes
else
RUNS ?= runs/demo
STEPS := 200
# The layer that names the classes begins anew, as with objects of one's own.
TRAIN := --config configs/mask_track_rcnn_shapes.py:difficulty=easy,steps=$(STEPS) \
	--config.init_from=shapes --config.init_fresh="('box_head/class_logits/.*',)" \
	--config.optimizer.learning_rate=5e-4 --config.optimizer.warmup_steps=20 \
	--config.train.checkpoint_every=100
ABOUT := small weights find and track generated shapes, forget the classes, and relearn them
endif
PREDICT = --source $(RUNS)/video/JPEGImages/* --save json,jsonl,mp4,html --overwrite
# Where training leaves the evaluation of its last step.
SCORED = $(RUNS)/evaluation/step_$(STEPS)
export TF_CPP_MIN_LOG_LEVEL ?= 3
# Memory that XLA gives back after a step is kept for the next one: docs/performance.md.
export GLIBC_TUNABLES ?= glibc.malloc.mmap_max=0:glibc.malloc.top_pad=268435456:glibc.malloc.trim_threshold=17179869184:glibc.malloc.arena_max=1

.PHONY: venv demo test test-fast slow mutants lint docs notebooks hooks clean

venv: $(VENV)/.installed

# The dependencies change with setup.cfg and nothing else.
$(VENV)/.installed: setup.cfg pyproject.toml
	@echo "setting up $(VENV) with the Python packages of setup.cfg: some minutes, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# Each step says what it does before it does it. A training that is stopped ends with 130
# or 143, and make ends with it; `make demo` then goes on where it was.
demo:
	@echo "make demo: $(ABOUT)."
	@echo "Stop it with Ctrl-C, and the same command goes on where it was."
	@echo "All files are in $(RUNS)."
	@$(MAKE) --no-print-directory venv
	@echo "1/4 a video of generated shapes: $(RUNS)/video"
	test -d $(RUNS)/video || $(VIS) data make_shapes --output $(RUNS)/video \
		--split test --seed 5 --num_videos 1 --height 192 --width 288 --length 36
ifndef SCRATCH
	$(VIS) predict --checkpoint shapes $(PREDICT) --output $(RUNS)/first
	@echo "Its objects, found by the weights that come with vis_jax:"
	@echo "  $(RUNS)/first/report.html, $(RUNS)/first/video.mp4"
endif
	@echo "2/4 training: $(STEPS) updates, then 50 videos are scored"
	$(VIS) --workdir $(RUNS) $(TRAIN)
	@echo "3/4 prediction by what was trained: $(RUNS)/predict"
	$(VIS) predict --workdir $(RUNS) $(PREDICT) --output $(RUNS)/predict
ifdef SOURCE
	$(VIS) predict --workdir $(RUNS) --source '$(SOURCE)' \
		--output $(RUNS)/predict_source --overwrite
endif
	@echo "4/4 the scores of the 50 videos"
	@$(VIS) score --truth $(SCORED)/truth.json --results $(SCORED)/results.json
	@echo "checkpoint    $(RUNS)/checkpoints"
	@echo "results.json  $(SCORED)/results.json"
	@echo "scores.json   $(SCORED)/scores.json"
	@echo "page          $(RUNS)/predict/report.html"
	@echo "video         $(RUNS)/predict/video.mp4"

# Two workers, a file of tests at a time; each computes on one thread.
test: venv
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: venv
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow'

slow: venv
	set -e; for which in '' 'not slow' 'not slow'; do rm -rf .jax_cache; $(BIN)/python \
		-m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "$$which" --write-slow; done

mutants: venv
	$(BIN)/python -m tests.mutants

lint: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebooks: $(VENV)/.docs
	$(BIN)/python examples/run_notebooks.py

hooks: venv
	$(BIN)/pre-commit install

clean:
	rm -rf $(VENV) .jax_cache runs build site *.egg-info
