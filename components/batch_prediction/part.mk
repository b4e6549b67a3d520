##@ Serving
.PHONY: batch-predict
batch-predict: env ## Predict files of rows   INPUT='data/*.csv' OUTPUT=predicted [VERSION=3]
	@$(PY) -m pipeline batch-predict $(SETTINGS) --input $(call quoted,INPUT) \
		--output $(call quoted,OUTPUT) $(call option,--version,VERSION)
