##@ Benchmarks
.PHONY: replay replay-faults bench bench-training bench-quality bench-serving bench-ingest bench-kubeflow
bench: env ## Measure against TFX's own template              [ROWS=10000000]
	@$(PY) -m benchmarks $(call option,--rows,ROWS)
bench-quality: env ## Measure what `adopt` proposes against boosting
	@$(PY) -m benchmarks.quality
bench-training: env ## Measure speed, checkpoints, memory in training  [ROWS=10000000]
	@$(PY) -m benchmarks.training $(call option,--rows,ROWS)
bench-serving: env ## Measure the server's latency
	@$(PY) -m benchmarks.serving
bench-ingest: env ## Measure ingest and bulk prediction against TFX's  [ROWS=1500000]
	@$(PY) -m benchmarks.ingest $(call option,--rows,ROWS)
bench-kubeflow: env ## Measure how long a step of the package takes to start
	@$(PY) -m benchmarks.steps
replay: env ## Live through four years of the taxi's data, quarter by quarter
	@$(PY) -m benchmarks.replay $(call many,--set,SET)
replay-faults: env ## Put known faults into spans, and see which check catches them
	@$(PY) -m benchmarks.faults $(call many,--set,SET) $(if $(WRITE),--write)
