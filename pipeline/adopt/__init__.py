"""`python -m pipeline adopt`: from a table and a label to a configuration that runs."""
