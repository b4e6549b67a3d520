##@ Data and settings
.PHONY: adopt
adopt: env ## Make a configuration for your own data     DATA=rows.csv LABEL=price [NAME=mine]
	@$(PY) -m pipeline adopt $(call quoted,DATA) --label $(call quoted,LABEL) $(call option,--name,NAME)
