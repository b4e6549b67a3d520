# Thin aliases of `python -m pipeline`; each first sees to .venv, which takes no time once it is there.
#
#   make run-local CONFIG=automated SET="training.steps=100 training.seed=7"
#
# Make splits SET at spaces; for a value with a space in it, use the command line behind the alias:
#   .venv/bin/python -m pipeline run --set 'some.key=two words'

PYTHON ?= python3
PY := .venv/bin/python
IMAGE ?= tfx-workflow-template:latest
VARIANT ?= cpu
ENGINE ?= $(firstword $(notdir $(shell command -v docker podman)) docker)
KILLS ?= 200

# A variable's text as one word of the shell, whatever is in it; and each word of one after an option.
quoted = '$(subst ','\'',$(value $1))'
many = $(foreach each,$(value $2),$1 '$(subst ','\'',$(each))')
option = $(if $(value $2),$1 $(call quoted,$2))
SETTINGS = $(call option,--config,CONFIG) $(call many,--set,SET)
MOVE = $(SETTINGS) $(call option,--why,WHY)

.DEFAULT_GOAL := help
.PHONY: help env versions promote rollback run-local test lint format schema config \
	report tensorboard checkpoints gc prove soak setup clean image docker-run-local

##@ Every day
run-local: env ## Run the pipeline on this machine
	@$(PY) -m pipeline run $(SETTINGS)
test: env ## Run the tests
	@$(PY) -m pytest -m "not prove" -n auto --dist loadfile
lint: env ## Check style, types and who imports whom
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports
report: env ## Open the pages of all runs and versions
	@$(PY) -m pipeline report $(SETTINGS)
tensorboard: env ## Show the training curves
	@$(PY) -m pipeline tensorboard $(SETTINGS)
format: env ## Rewrite the code in the style that lint asks for
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

##@ Training
checkpoints: env ## List the trainings that can go on
	@$(PY) -m pipeline checkpoints $(SETTINGS)

##@ Data and settings
schema: env ## Infer a schema from the data, show the changes   [WRITE=1]
	@$(PY) -m pipeline schema $(SETTINGS) $(if $(WRITE),--write)
config: env ## Check the settings of a run, and show them all
	@$(PY) -m pipeline config $(SETTINGS)

##@ Models
versions: env ## List the model's versions
	@$(PY) -m pipeline versions list $(SETTINGS)
promote: env ## Make one the champion     VERSION=3 [WHY="..."] [FORCE=1]
	@$(PY) -m pipeline versions promote $(call quoted,VERSION) $(MOVE) $(if $(FORCE),--force)
rollback: env ## Bring the champion before this one back  [WHY="..."]
	@$(PY) -m pipeline versions rollback $(MOVE)

##@ Housekeeping
gc: env ## Free disk: shows what can go, and asks       [YES=1]
	@$(PY) -m pipeline gc $(SETTINGS) $(call option,--keep-runs,KEEP_RUNS) \
		$(call option,--older-than,OLDER_THAN) $(if $(YES),--yes)

##@ Proofs
prove: env ## Run the slower proofs
	@$(PY) -m pytest -m prove -n auto --dist loadfile --ignore tests/pipeline/patterns
soak: env ## Kill trainings at random moments, for hours         [KILLS=200]
	@KILLS=$(call quoted,KILLS) $(PY) -m pytest -m prove -k killed tests/end_to_end

##@ Machinery
setup: env ## Make .venv and stop there (the other targets do it too)
	@echo "Ready: $(PY)"
clean: ## Remove caches; models, data and .venv stay
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name ".venv*" -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
image: ## Build the steps' image with docker or podman   [IMAGE= VARIANT=gpu]
	@$(ENGINE) build --platform linux/amd64 --build-arg VARIANT=$(call quoted,VARIANT) \
		$(if $(PYTHON_DIGEST),--build-arg PYTHON_DIGEST=$(call quoted,PYTHON_DIGEST)) \
		$(call option,--target,STAGE) --tag $(call quoted,IMAGE) .
docker-run-local: image ## Run the pipeline in a container
	@mkdir -p workspace
	@$(ENGINE) run --rm --init --platform linux/amd64 --user "$$(id -u):$$(id -g)" \
		--volume "$(CURDIR)/workspace:/app/workspace" $(call quoted,IMAGE) \
		python -m pipeline run $(SETTINGS)

env:
	@command -v "$(PYTHON)" > /dev/null || { echo "No $(PYTHON) here: install Python 3.11," \
		"then type PYTHON=python3.11 make ..., or use Docker: make docker-run-local"; exit 1; }
	@"$(PYTHON)" -I pipeline/setup/bootstrap.py

# Each part has its targets beside its code.
-include $(wildcard components/*/part.mk pipeline/*/part.mk benchmarks/part.mk)

help:
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { section = substr($$0, 5) } \
		/^[a-z-]+:.*## / { if (!(section in lines)) order[++sections] = section; \
			lines[section] = lines[section] sprintf("  make %-20s %s\n", $$1, $$2) } \
		END { for (i = 1; i <= sections; i++) printf "\n%s\n%s", order[i], lines[order[i]]; \
		print "\nThose that run or show settings take CONFIG=name and SET=\"a.b=1 c.d=2\"." }' \
		$(MAKEFILE_LIST)
