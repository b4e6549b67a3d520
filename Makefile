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
# part: multi_worker {
WORKERS ?= 2
# part: }
KILLS ?= 200
# From the environment, where Make puts it: it may hold quotes.
MOVE = $(SETTINGS) $(if $(WHY),--why "$$WHY")
# part: kubeflow {
CLUSTER = $(if $(filter command environment,$(origin IMAGE)),--image '$(IMAGE)')
# part: }
SETTINGS = $(if $(CONFIG),--config '$(CONFIG)') $(foreach setting,$(SET),--set '$(setting)')

.DEFAULT_GOAL := help
.PHONY: help env adopt versions promote rollback run-local test lint format schema config patterns \
	tensorboard checkpoints gc parts prove soak setup clean image docker-run-local

##@ Every day
run-local: env ## Run the pipeline on this machine
	@$(PY) -m pipeline run $(SETTINGS)
test: env ## Run the tests
	@$(PY) -m pytest -m "not prove" -n 2 --dist loadfile
lint: env ## Check style, types and who imports whom
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports
tensorboard: env ## Show the training curves
	@$(PY) -m pipeline tensorboard $(SETTINGS)
format: env ## Rewrite the code in the style that lint asks for
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

##@ Training
# part: multi_worker {
.PHONY: train-distributed
train-distributed: env ## Run it with several training processes      [WORKERS=2]
	@$(PY) -m pipeline run $(SETTINGS) --set training.strategy=multi_worker \
		--set training.workers=$(WORKERS)
# part: }
checkpoints: env ## List the trainings that can go on
	@$(PY) -m pipeline checkpoints $(SETTINGS)
# part: tpu {
.PHONY: check-tpu tpu-environment
check-tpu: env ## Check whether the training could run on a TPU
	@$(PY) -m pipeline check-tpu $(SETTINGS)
tpu-environment: env ## Make .venv-tpu, which trains on a TPU (2 GB)
	@$(PY) -m pipeline tpu-environment
# part: }

##@ Data and settings
adopt: env ## Make a configuration for your own data     DATA=rows.csv LABEL=price [NAME=mine]
	@$(PY) -m pipeline adopt '$(DATA)' --label '$(LABEL)' $(if $(NAME),--name '$(NAME)')
schema: env ## Infer a schema from the data, show the changes   [WRITE=1]
	@$(PY) -m pipeline schema $(SETTINGS) $(if $(WRITE),--write)
config: env ## Check the settings of a run, and show them all
	@$(PY) -m pipeline config $(SETTINGS)
patterns: env ## Say which of the book's patterns a configuration uses  [ALL=1]
	@$(PY) -m pipeline patterns $(SETTINGS) $(if $(ALL),--all) $(if $(WRITE),--write)

##@ Models
versions: env ## List the model's versions
	@$(PY) -m pipeline versions list $(SETTINGS)
promote: env ## Make one the champion     VERSION=3 [WHY="..."] [FORCE=1]
	@$(PY) -m pipeline versions promote '$(VERSION)' $(MOVE) $(if $(FORCE),--force)
rollback: env ## Bring the champion before this one back  [WHY="..."]
	@$(PY) -m pipeline versions rollback $(MOVE)

# part: predicting {
##@ Serving
# part: serving {
.PHONY: serve inference-service
serve: env ## Serve the champion, and follow it
	@$(PY) -m pipeline serve $(SETTINGS) $(if $(VERSION),--version '$(VERSION)')
inference-service: env ## Print the server's KServe resource      IMAGE=registry/name:tag
	@$(PY) -m pipeline inference-service $(SETTINGS) --image '$(IMAGE)'
# part: }
# part: batch_prediction {
.PHONY: batch-predict
batch-predict: env ## Predict files of rows   INPUT='data/*.csv' OUTPUT=predicted [VERSION=3]
	@$(PY) -m pipeline batch-predict $(SETTINGS) --input '$(INPUT)' --output '$(OUTPUT)' \
		$(if $(VERSION),--version '$(VERSION)')
# part: }

# part: }
# part: continued_evaluation {
##@ Continued evaluation
.PHONY: continued-evaluation evaluations replay replay-faults
continued-evaluation: env ## Judge the champion on the newest span; retrain if due   [SPAN=12]
	@$(PY) -m pipeline continued-evaluation $(SETTINGS) $(if $(SPAN),--span '$(SPAN)')
evaluations: env ## List all evaluations, and draw them on a page
	@$(PY) -m pipeline evaluations $(SETTINGS)
replay: env ## Live through four years of the taxi's data, quarter by quarter
	@$(PY) -m pipeline replay $(foreach setting,$(SET),--set '$(setting)')
replay-faults: env ## Put known faults into spans, and see which check catches them
	@$(PY) -m pipeline replay-faults $(foreach setting,$(SET),--set '$(setting)') \
		$(if $(WRITE),--write)

# part: }
# part: kubeflow {
##@ Kubeflow
.PHONY: compile submit run-kubeflow-local
compile: env ## Write build/<pipeline>.yaml, and check it        [TARGET=vertex]
	@$(PY) -m pipeline compile $(SETTINGS) $(CLUSTER) $(if $(TARGET),--target '$(TARGET)')
submit: env ## Upload and run it    KFP_HOST=https://... [SCHEDULE="0 0 6 * * *" DRY_RUN=1]
	@$(PY) -m pipeline submit $(SETTINGS) $(CLUSTER) $(foreach each,$(PARAM),--param '$(each)') \
		$(if $(SCHEDULE),--schedule '$(SCHEDULE)') $(if $(DRY_RUN),--dry-run)
run-kubeflow-local: env ## Run the package's steps in containers here, with docker
	@$(PY) -m pipeline run-kubeflow-local $(SETTINGS) $(CLUSTER)

# part: }
##@ Housekeeping
gc: env ## Free disk: shows what can go, and asks       [YES=1]
	@$(PY) -m pipeline gc $(SETTINGS) $(if $(KEEP_RUNS),--keep-runs '$(KEEP_RUNS)') \
		$(if $(OLDER_THAN),--older-than '$(OLDER_THAN)') $(if $(YES),--yes)
parts: env ## List the optional parts, and what each costs
	@$(PY) -m pipeline parts

##@ Proofs
prove: env ## Run the slower proofs
	@$(PY) -m pytest -m prove -n 2 --dist loadfile
soak: env ## Kill trainings at random moments, for hours         [KILLS=200]
	@KILLS=$(KILLS) $(PY) -m pytest -m prove -k killed tests/end_to_end
# part: benchmarks {
.PHONY: bench bench-training bench-adopt
bench: env ## Measure against TFX's own template              [ROWS=10000000]
	@$(PY) -m benchmarks $(if $(ROWS),--rows $(ROWS))
bench-adopt: env ## Measure tables from `adopt` to version 1
	@$(PY) -m benchmarks.adopting
bench-training: env ## Measure speed, checkpoints, memory in training  [ROWS=10000000]
	@$(PY) -m benchmarks.training $(if $(ROWS),--rows $(ROWS))
# part: }
# part: benchmarks and serving {
.PHONY: bench-serving
bench-serving: env ## Measure the server's latency
	@$(PY) -m benchmarks.serving
# part: }
# part: benchmarks and batch_prediction {
.PHONY: bench-batch
bench-batch: env ## Measure bulk prediction against TFX's       [ROWS=1000000]
	@$(PY) -m benchmarks.batch_prediction $(if $(ROWS),--rows $(ROWS))
# part: }
# part: benchmarks and kubeflow {
.PHONY: bench-kubeflow
bench-kubeflow: env ## Measure how long a step of the package takes to start
	@$(PY) -m benchmarks.step_start
# part: }

##@ Machinery
setup: env ## Make .venv and stop there (the other targets do it too)
	@echo "Ready: $(PY)"
clean: ## Remove caches; models, data and .venv stay
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name ".venv*" -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
image: ## Build the steps' image with docker or podman   [IMAGE= VARIANT=gpu]
	@$(ENGINE) build --platform linux/amd64 --build-arg VARIANT='$(VARIANT)' \
		$(if $(PYTHON_DIGEST),--build-arg PYTHON_DIGEST='$(PYTHON_DIGEST)') \
		$(if $(STAGE),--target '$(STAGE)') --tag '$(IMAGE)' .
docker-run-local: image ## Run the pipeline in a container
	@mkdir -p workspace
	@$(ENGINE) run --rm --init --platform linux/amd64 --user "$$(id -u):$$(id -g)" \
		--volume "$(CURDIR)/workspace:/app/workspace" $(IMAGE) python -m pipeline run $(SETTINGS)

env:
	@command -v "$(PYTHON)" > /dev/null || { echo "No $(PYTHON) here: install Python 3.11," \
		"then type PYTHON=python3.11 make ..., or use Docker: make docker-run-local"; exit 1; }
	@"$(PYTHON)" -I pipeline/bootstrap.py

help:
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 } \
		END { print "\nThose that run or show settings take CONFIG=name and SET=\"a.b=1 c.d=2\"." }' Makefile
