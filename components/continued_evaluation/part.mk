##@ Continued evaluation
.PHONY: continued-evaluation evaluations
continued-evaluation: env ## Judge the champion on the newest span; retrain if due   [SPAN=12]
	@$(PY) -m pipeline continued-evaluation $(SETTINGS) $(call option,--span,SPAN)
evaluations: env ## List all evaluations, and draw them on a page
	@$(PY) -m pipeline evaluations $(SETTINGS)
