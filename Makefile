# Needs Python 3.11 or newer and make; everything else goes into .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: install train serve test laws test-engines test-ray check bench bench-gateway bench-routing bench-simulator bench-reality bench-replays bench-fluid bench-autoscaling bench-spike bench-control bench-region-loss bench-failover bench-churn bench-data bench-islands bench-shaped failover ray-failover clean

install: $(VENV)/.serve

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(f"Argosy needs Python 3.11 or newer; $(PYTHON) is {sys.version.split()[0]}. Try: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.serve: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing argosy (about 40 s)"
	@$(PIP) install -c constraints.txt -e '.[sdks,simulate]'
	@$(BIN)/argosy fetch
	@touch $@

$(VENV)/.dev: $(VENV)/.serve
	@echo "installing the tests' tools (about 20 s)"
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.train: $(VENV)/.serve
	@echo "installing torch and what training takes (a minute)"
	@$(PIP) install -c constraints.txt -e '.[train]'
	@touch $@

train: $(VENV)/.train   ## what argosy train takes; then argosy train examples/two-islands.yaml

serve: $(VENV)/.serve   ## a real model on a small fleet; e.g. make serve ARGS='--port 8001'
	@$(BIN)/argosy up $(ARGS)

test: $(VENV)/.dev      ## the default suite, about twelve minutes on two cores
	@echo "compiling the simulator (once; a minute)"
	@$(BIN)/argosy simulate examples/five-makers.yaml --until 1 --no-interval >/dev/null
	@$(BIN)/python -m pytest -q tests/control tests/launchers  # they count processes: alone
	@$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder --ignore=tests/control --ignore=tests/launchers

laws: $(VENV)/.dev      ## the laws on examples that no run before had
	@ARGOSY_LAWS=chance $(BIN)/python -m pytest -q -n 2 tests/laws $(ARGS)

test-engines: $(VENV)/.dev  ## llama.cpp and a real vLLM as each other's spare; see docs/ENGINES.md
	@$(BIN)/python -m pytest -q -s -m engines tests/system/test_unlike_engines.py $(ARGS)

test-ray: $(VENV)/.dev  ## replicas and islands on real Ray clusters, here; see docs/RAY.md
	@$(PIP) install -c constraints.txt -e '.[ray]'
	@$(BIN)/python -m pytest -q -m ray tests/launchers tests/system/ray_failover tests/system/training $(ARGS)

check: $(VENV)/.dev     ## format, lint, types, layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports

bench: $(VENV)/.dev     ## the gateway against the engine alone, as ratios
	@$(BIN)/python -m bench.gateway_overhead

failover: $(VENV)/.dev  ## sixteen faults before a real fleet, true durations: about 3 minutes
	@$(BIN)/python -m tests.system.failover.run $(ARGS)

ray-failover: $(VENV)/.dev  ## faults on a real Ray cluster under load: about 6 minutes; see docs/RAY.md
	@$(PIP) install -c constraints.txt -e '.[ray]'
	@$(BIN)/python -m tests.system.ray_failover.run $(ARGS)

bench-gateway: $(VENV)/.dev  ## the gateway beside its peers, on one core; see docs/GATEWAY_BENCHMARK.md
	@$(BIN)/python -m bench.gateway $(ARGS)

bench-routing: $(VENV)/.dev  ## what routing and admission are worth on real replicas: about 8 minutes
	@$(BIN)/python -m bench.routing_live $(ARGS)

bench-simulator: $(VENV)/.dev  ## replays beside DynoSim and vllm-sr-sim; see docs/SIMULATOR_BENCHMARK.md
	@$(BIN)/python -m bench.simulator $(ARGS)

bench-reality: $(VENV)/.dev  ## what the simulator says of two llama.cpp replicas, and what they did
	@$(BIN)/python -m bench.reality $(ARGS)

bench-replays: $(VENV)/.dev  ## recorded vLLM runs, replayed: seconds; see docs/REPLAYS.md
	@$(BIN)/python -m bench.replays $(ARGS)

bench-fluid: $(VENV)/.dev  ## the fluid mode beside the exact one; see docs/FLUID.md
	@$(BIN)/python -m bench.fluid $(ARGS)

bench-autoscaling: $(VENV)/.dev  ## scaling rules on recorded demand; see docs/AUTOSCALING.md
	@$(BIN)/python -m bench.autoscaling $(ARGS)

bench-spike: $(VENV)/.dev  ## a live spike under each scaling rule: twenty minutes; see docs/AUTOSCALING.md
	@$(BIN)/python -m bench.spike $(ARGS)

bench-control: $(VENV)/.dev  ## a tick of the control plane at 2,000 replicas on 100 pools
	@$(BIN)/python -m bench.reconcile $(ARGS)

bench-region-loss: $(VENV)/.dev  ## a region and a cloud lost under load; see docs/REGIONS.md
	@$(BIN)/python -m bench.region_loss $(ARGS)

bench-failover: $(VENV)/.dev  ## 140 faults on a real Ray cluster, for a p99: 20 minutes; see docs/RAY.md
	@$(PIP) install -c constraints.txt -e '.[ray]'
	@$(BIN)/python -m bench.failover_times $(ARGS)

bench-data: $(VENV)/.dev  ## packed tokens, read beside LitData and MDS; see docs/DATA.md
	@$(BIN)/python -m bench.training.data $(ARGS)

bench-islands: $(VENV)/.train  ## three islands of speeds 4:2:1, alone and together; see docs/TRAIN.md
	@$(BIN)/python -m bench.training.islands $(ARGS)

bench-shaped: $(VENV)/.dev $(VENV)/.train  ## islands beside DDP on 100 Mbit/s links: up to half an hour, as root; see docs/TRAINING_PARITY.md
	@$(BIN)/python -m bench.training.shaped build/shaped build/shaped.json $(ARGS)

bench-churn: $(VENV)/.dev  ## an hour of killed replicas and lost clouds: is memory bounded?
	@$(BIN)/python -m bench.churn $(ARGS)

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
