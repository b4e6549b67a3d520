"""Continued Evaluation (book pattern 18): fresh labels in, a decision out. An optional part."""
