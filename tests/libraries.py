"""Imports what a run imports, but for the project itself (see `tests.warm`)."""

import gc
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import apache_beam.runners.portability.fn_api_runner  # noqa: F401
import duckdb  # noqa: F401
import keras  # noqa: F401
import tensorflow  # noqa: F401
import tensorflow_data_validation  # noqa: F401
import tensorflow_model_analysis  # noqa: F401
import tensorflow_transform  # noqa: F401
import tfx.v1  # noqa: F401
import typer  # noqa: F401

gc.freeze()
