"""Continued Evaluation as a pipeline of its own: its graph, its commands, its page."""
