"""Hyperparameter tuning, an optional part: the core components never import it."""
