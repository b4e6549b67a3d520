##@ Patterns
.PHONY: patterns prove-patterns
patterns: env ## List the book's thirty patterns, and the command that runs each
	@$(PY) -m pipeline patterns
prove-patterns: env ## Run them all, and write what they show into their heads
	@$(PY) -m pipeline patterns --prove
