"""`python -m pipeline`: the one door to everything the project does."""

from pipeline.cli import app

app()
