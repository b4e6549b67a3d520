"""Rows, artifacts and models small enough to know every answer: what the tests here run on."""

import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import types
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils, standard_artifacts

from components.features.table import FeatureTable

TYPES = {"score": "FLOAT", "shop": "BYTES", "hour": "INT", "bought": "INT", "mood": "BYTES"}

TABLE = FeatureTable.model_validate(
    {
        "problem": "binary",
        "label": {"column": "bought"},
        "columns": {
            "score": {"kind": "numeric", "missing": "mean"},
            "shop": {"kind": "vocabulary", "missing": "own"},
            "hour": {"kind": "bucketized", "boundaries": [12], "missing": "own"},
        },
        "exclude": {"mood": "leakage"},
        "slices": [["shop"]],
    }
)
MOODS = {"column": "mood", "classes": ["sad", "calm", "glad"]}


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows in which the score decides the label; every tenth shop is missing."""
    chance = random.Random(seed)
    table = []
    for number in range(count):
        score = chance.gauss(0, 1)
        bought = int(score + chance.gauss(0, 1) > 0)
        shop = None if number % 10 == 0 else chance.choices("ABC", [6, 3, 1])[0]
        mood = chance.choice(["sad", "calm", "glad"])
        row = {"score": score, "shop": shop, "hour": chance.randrange(24)}
        table.append({**row, "bought": bought, "mood": mood})
    return table


_FEATURES = {
    "BYTES": lambda text: {"bytes_list": tf.train.BytesList(value=[text.encode()])},
    "INT": lambda number: {"int64_list": tf.train.Int64List(value=[number])},
    "FLOAT": lambda number: {"float_list": tf.train.FloatList(value=[number])},
}


def encode(row: dict[str, Any]) -> bytes:
    """A row as a serialised tf.Example; None is absent."""
    features = {
        name: tf.train.Feature(**_FEATURES[TYPES[name]](value))
        for name, value in row.items()
        if value is not None
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def artifact(kind: type[types.Artifact], folder: Path, number: int = 1) -> Any:
    """An artifact at a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    made = kind()
    made.uri, made.id = str(folder), number
    return made


def examples(folder: Path, **splits: list[dict[str, Any]]) -> types.Artifact:
    """An Examples artifact as our ExampleGen writes it."""
    made = artifact(standard_artifacts.Examples, folder)
    made.split_names = artifact_utils.encode_split_names(list(splits))
    made.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    made.set_string_custom_property("file_format", "tfrecords_gzip")
    for split, table in splits.items():
        made.set_int_custom_property(f"rows_{split}", len(table))
        path = folder / f"Split-{split}" / "data_tfrecord-00000-of-00001.gz"
        path.parent.mkdir(parents=True)
        with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
            for row in table:
                writer.write(encode(row))
    return made


def schema(folder: Path) -> types.Artifact:
    """A Schema artifact that fits the rows."""
    made = artifact(standard_artifacts.Schema, folder)
    described = schema_pb2.Schema()
    for name, kind in TYPES.items():
        described.feature.add(name=name, type=schema_pb2.FeatureType.Value(kind))
    (folder / "schema.pbtxt").write_text(text_format.MessageToString(described))
    return made


def statistics(folder: Path, **splits: list[dict[str, Any]]) -> types.Artifact:
    """An ExampleStatistics artifact, by TFDV."""
    made = artifact(standard_artifacts.ExampleStatistics, folder)
    made.split_names = artifact_utils.encode_split_names(list(splits))
    for split, table in splits.items():
        found = tfdv.generate_statistics_from_dataframe(pd.DataFrame(table, dtype=object))
        path = folder / f"Split-{split}" / "FeatureStats.pb"
        path.parent.mkdir(parents=True)
        path.write_bytes(found.SerializeToString())
    return made


class _Model(tf.Module):
    """Predicts from the score alone."""

    def __init__(self, slope: float, problem: str) -> None:
        super().__init__()
        self.slope = tf.Variable(slope)
        self.problem = problem

    def serve(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = {"score": tf.io.FixedLenFeature([1], tf.float32)}
        scaled = self.slope * tf.io.parse_example(examples, spec)["score"]
        if self.problem == "multiclass":
            return {"predictions": tf.nn.softmax(tf.concat([-scaled, 0 * scaled, scaled], 1))}
        return {"predictions": scaled if self.problem == "regression" else tf.sigmoid(scaled)}

    def label_index(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = {"mood": tf.io.FixedLenFeature([1], tf.string, "")}
        mood = tf.io.parse_example(examples, spec)["mood"]
        known = mood == tf.constant([MOODS["classes"]])
        index = tf.where(tf.reduce_any(known, 1), tf.argmax(known, 1), -1)
        return {"label_index": tf.cast(index, tf.float32)[:, None]}


def model(folder: Path, slope: float, problem: str = "binary", number: int = 1) -> types.Artifact:
    """A Model artifact as our Trainer writes it; its fingerprint is the slope."""
    made = artifact(standard_artifacts.Model, folder, number)
    module = _Model(slope, problem)
    examples = tf.TensorSpec([None], tf.string, name="examples")
    signatures = {"serving_default": tf.function(module.serve, [examples])}
    if problem == "multiclass":
        signatures["label_index"] = tf.function(module.label_index, [examples])
    tf.saved_model.save(module, str(folder / "Format-Serving"), signatures=signatures)
    record = {
        "fingerprint": f"slope {slope}",
        "hyperparameters": {"slope": slope},
        "library_versions": {"tensorflow": tf.__version__},
        "steps": 1,
        "code": "code",
    }
    (folder / "training.json").write_text(json.dumps(record))
    return made


def context(folder: Path) -> base_beam_executor.BaseBeamExecutor.Context:
    """What a runner hands to an executor."""
    return base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--runner=DirectRunner", "--direct_running_mode=in_memory"],
        tmp_dir=str(folder / "tmp"),
        unique_id="1",
        pipeline_run_id="run-1",
    )
