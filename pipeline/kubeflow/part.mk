CLUSTER = $(if $(filter command environment,$(origin IMAGE)),--image $(call quoted,IMAGE))

##@ Kubeflow
.PHONY: compile submit
compile: env ## Write build/<pipeline>.yaml, and check it        [TARGET=vertex]
	@$(PY) -m pipeline compile $(SETTINGS) $(CLUSTER) $(call option,--target,TARGET)
submit: env ## Upload and run it    KFP_HOST=https://... [SCHEDULE="0 0 6 * * *" DRY_RUN=1]
	@$(PY) -m pipeline submit $(SETTINGS) $(CLUSTER) $(call many,--param,PARAM) \
		$(call option,--schedule,SCHEDULE) $(if $(DRY_RUN),--dry-run)
