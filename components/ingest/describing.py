"""What an Examples artifact says of its rows, as TFX's own ExampleGens say it."""

import json
from collections.abc import Mapping

from tfx import types
from tfx.components.example_gen import utils
from tfx.components.util import examples_utils
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils

from components.ingest.spans import Inputs


def describe(examples: types.Artifact, counts: Mapping[str, int], fingerprint: str) -> None:
    """Sets splits and format, and as custom properties what they were made from, and the rows.

    Args:
        examples: The artifact.
        counts: Rows by split.
        fingerprint: Of the files.
    """
    examples.split_names = artifact_utils.encode_split_names([*counts])
    examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
    examples_utils.set_file_format(examples, "tfrecords_gzip")
    examples.set_string_custom_property(utils.FINGERPRINT_PROPERTY_NAME, fingerprint)
    for split, count in counts.items():
        examples.set_int_custom_property(f"rows_{split}", count)


def describe_spans(examples: types.Artifact, inputs: Inputs) -> None:
    """Sets the newest span and its version, and all spans besides."""
    examples.set_int_custom_property(utils.SPAN_PROPERTY_NAME, inputs.spans[-1])
    if inputs.version is not None:
        examples.set_int_custom_property(utils.VERSION_PROPERTY_NAME, inputs.version)
    examples.set_string_custom_property("spans", json.dumps(inputs.spans))
