##@ Continued evaluation
.PHONY: continued-evaluation evaluations replay replay-faults
continued-evaluation: env ## Judge the champion on the newest span; retrain if due   [SPAN=12]
	@$(PY) -m pipeline continued-evaluation $(SETTINGS) $(call option,--span,SPAN)
evaluations: env ## List all evaluations, and draw them on a page
	@$(PY) -m pipeline evaluations $(SETTINGS)
replay: env ## Live through four years of the taxi's data, quarter by quarter
	@$(PY) -m pipeline replay $(call many,--set,SET)
replay-faults: env ## Put known faults into spans, and see which check catches them
	@$(PY) -m pipeline replay-faults $(call many,--set,SET) $(if $(WRITE),--write)
