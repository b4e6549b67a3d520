"""What the model learns of a label, whatever its type, and how its classes are written."""

from typing import Any

import pytest
import tensorflow as tf
from google.protobuf import text_format
from pydantic import ValidationError
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import schema_utils

from components.features.missing import MISSING
from components.features.schema import with_dense_columns
from components.features.table import FeatureTable
from components.features.transform import label_of


def _table(problem: str, classes: list[Any] | None) -> FeatureTable:
    columns = {"x": {"kind": "numeric", "missing": "mean"}}
    label = {"column": "y", "classes": classes}
    return FeatureTable.model_validate({"problem": problem, "label": label, "columns": columns})


@pytest.mark.parametrize(
    ("classes", "values", "expected"),
    [
        (["no", "yes"], ["yes", "no", "maybe", ""], [1, 0, -1, -1]),
        (["True", "False"], ["False", "True"], [1, 0]),
        ([0, 1], [0.0, 1.0, 0.5, MISSING["FLOAT"]], [0, 1, -1, -1]),
        ([1, 2], [1, 2, 0, MISSING["INT"]], [0, 1, -1, -1]),
        ([100_000_001, 100_000_002], [100_000_002, 100_000_001], [1, 0]),
        (["1", 2], [2, 1], [1, 0]),
    ],
)
def test_a_label_becomes_the_index_of_its_class(
    classes: list[Any], values: list[Any], expected: list[int]
) -> None:
    kind = {str: tf.string, int: tf.int64, float: tf.float32}[type(values[0])]
    found = label_of(tf.constant(values, kind), _table("binary", classes))
    assert found.numpy().tolist() == expected


def test_classes_that_yaml_reads_as_booleans_are_refused() -> None:
    with pytest.raises(ValidationError, match="quote them, as in"):
        _table("binary", [False, True])


def test_a_column_of_the_schema_is_dense_with_what_stands_for_a_gap() -> None:
    schema = schema_pb2.Schema()
    for name, kind in (("a b", "FLOAT"), ("c.d", "INT"), ("\u05d0", "BYTES")):
        schema.feature.add(name=name, type=kind)
    text = text_format.MessageToString(with_dense_columns(schema))
    read = text_format.Parse(text, schema_pb2.Schema())
    spec = schema_utils.schema_as_feature_spec(read).feature_spec
    parsed = tf.io.parse_example([tf.train.Example().SerializeToString()], spec)
    assert tf.math.is_nan(parsed["a b"]).numpy().tolist() == [True]
    assert parsed["c.d"].numpy().tolist() == [MISSING["INT"]]
    assert parsed["\u05d0"].numpy().tolist() == [MISSING["BYTES"]]
