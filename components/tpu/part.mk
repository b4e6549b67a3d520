##@ Training
.PHONY: check-tpu tpu-environment
check-tpu: env ## Check whether the training could run on a TPU
	@$(PY) -m pipeline check-tpu $(SETTINGS)
tpu-environment: env ## Make .venv-tpu, which trains on a TPU (2 GB)
	@$(PY) -m pipeline tpu-environment
