# Every target makes .venv and installs what it needs when that is missing.
PYTHON ?= python3
STUDY ?= runs/which_part-digits
ROOT ?= data
BIN := .venv/bin
READY := .venv/.ready

FAULTS := killed_study workers faults joining takeover database cluster soak

.PHONY: install study gpu notebooks faults test tensorboard lint

install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

study: $(READY)
	$(BIN)/python -m studies.which_part --workers 2
	@echo 'make tensorboard starts TensorBoard on this study.'

gpu: $(READY)
	$(BIN)/python -m studies.gpu

# Runs the notebooks anew and stores what they print and draw; ROOT is the folder of the data sets.
notebooks: $(READY)
	$(BIN)/python tests/test_notebooks.py --root $(ROOT)

# Runs the tests that kill, stop, fill and poison, and stores the table of what they found.
faults: $(READY)
	rm -f runs/faults.jsonl
	mkdir -p runs
	$(BIN)/python -m pytest $(wildcard $(FAULTS:%=tests/ablation/test_%.py)) --faults runs/faults.jsonl
	$(BIN)/python -m studies.faults runs/faults.jsonl

tensorboard: $(READY)
	@test -d $(STUDY)/tensorboard || { echo '$(STUDY) has no tensorboard folder: run make study first, or say STUDY=folder.'; exit 2; }
	$(BIN)/tensorboard --logdir $(STUDY)/tensorboard --host 127.0.0.1 --port 6006

test: lint
	$(BIN)/python -m pytest --numprocesses auto --dist loadgroup

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
