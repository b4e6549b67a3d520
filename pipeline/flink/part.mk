##@ Flink
.PHONY: flink-local flink-stop
flink-local: env ## Start a Flink cluster here, for trying: then CONFIG=flink
	@$(PY) -m pipeline flink-local
flink-stop: env ## Stop it, and remove what it wrote
	@$(PY) -m pipeline flink-stop
