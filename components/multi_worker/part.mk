WORKERS ?= 2

##@ Training
.PHONY: train-distributed
train-distributed: env ## Run it with several training processes      [WORKERS=2]
	@$(PY) -m pipeline run $(SETTINGS) --set training.strategy=multi_worker \
		--set training.workers=$(call quoted,WORKERS)
