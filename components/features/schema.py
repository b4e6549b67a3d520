"""The curated schema as an artifact of the run."""

import os
from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Schema

from components.features.missing import MISSING

_PROJECT = Path(__file__).resolve().parents[2]


@component
def CuratedSchema(
    schema: OutputArtifact[Schema],
    file: Parameter[str],
    fingerprint: Parameter[str],
) -> None:
    """Hands the reviewed schema file, whose path is relative to the project, to the run.

    TFX's ImportSchemaGen is cached by the file's path; the fingerprint makes an edit count.
    """
    del fingerprint
    curated = text_format.Parse((_PROJECT / file).read_text("utf-8"), schema_pb2.Schema())
    os.makedirs(schema.uri, exist_ok=True)
    with open(os.path.join(schema.uri, "schema.pbtxt"), "w", encoding="utf-8") as written:
        written.write(text_format.MessageToString(with_dense_columns(curated), as_utf8=True))


def with_dense_columns(schema: schema_pb2.Schema) -> schema_pb2.Schema:
    """The schema, with every column as a dense tensor [batch] that has `MISSING` in its gaps.

    TFX's default is a sparse tensor, and a dozen operations to make it dense: with two thousand
    columns tf.Transform would look through its graph for half an hour.
    """
    dense = schema_pb2.Schema()
    dense.CopyFrom(schema)
    tensors = dense.tensor_representation_group[""].tensor_representation
    for feature in schema.feature:
        kind = schema_pb2.FeatureType.Name(feature.type)
        tensor = tensors[feature.name].dense_tensor
        tensor.column_name = feature.name
        tensor.shape.SetInParent()
        setattr(tensor.default_value, f"{kind.lower()}_value", MISSING[kind])
    return dense
