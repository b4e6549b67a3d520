##@ Serving
.PHONY: serve inference-service
serve: env ## Serve the champion, and follow it
	@$(PY) -m pipeline serve $(SETTINGS) $(call option,--version,VERSION)
inference-service: env ## Print the server's KServe resource      IMAGE=registry/name:tag
	@$(PY) -m pipeline inference-service $(SETTINGS) --image $(call quoted,IMAGE)
