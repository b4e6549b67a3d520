"""LabelledLog and ServedInputs: the components that make examples of the prediction log.

They import no other component of TFX, so that a step of its own does not wait for them.
"""

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from tfx import types
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration.portable import data_types
from tfx.types import standard_artifacts

from components import files
from components.continued_evaluation import joining
from components.continued_evaluation.settings import Labels
from components.errors import PipelineStop
from components.features.table import FeatureTable
from components.inference.model import choose
from components.ingest.component import describe, describe_spans
from components.ingest.settings import Spans
from components.ingest.spans import Inputs, check_unchanged, fingerprint, resolve
from components.registry.finding import FindingDriver

SPLIT, SERVED = "test", "served"
JOINED_FILE = "joined.json"
JUDGED_VERSION, LOGGED_COLUMNS = "judged_version", "logged_columns"
"""Custom properties: whose predictions they are, and the columns that all of them have (JSON)."""
_PROGRESS = logging.getLogger("progress")


class LogDriver(FindingDriver):
    """Finds version, log and, where they are joined, label files: a part of the cache key."""

    def find(self, info: data_types.ExecutionInfo) -> dict[str, Any]:
        """See `find`."""
        return find(info.exec_properties)


def find(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a component's properties ask for: the version, the log's identity, the label `Inputs`.

    Raises:
      PipelineStop: One of them is not there.
    """
    folder = os.path.join(given["registry"], given["model_name"])
    found: dict[str, Any] = {"version": int(given["version"]) or choose(folder).version}
    labels = Labels.model_validate_json(given["labels"]) if "labels" in given else None
    days = labels.days if labels else int(given["days"])
    log = joining.log_files(given["predictions"], given["model_name"], days)
    if labels and not log:
        raise PipelineStop(
            f"There is no prediction log in {Path(given['predictions'], given['model_name'])}. Set "
            "prediction_log.enabled=true and send a key with each row to predict; or, if the data "
            "itself has labels, set continued_evaluation.labels=null."
        )
    found["log"] = fingerprint(os.path.realpath(given["predictions"]), log)
    if labels:
        found["labels"] = vars(_label_files(given["labels_folder"], labels, str(given["span"])))
    return found


def _label_files(folder: str, labels: Labels, span: str) -> Inputs:
    if span != "newest" and not span.isdecimal():
        raise PipelineStop(f"The span is '{span}'; it can be newest, or a number.")
    wanted: Spans = int(span) if span.isdecimal() else "newest"
    try:
        return resolve(folder, labels.pattern, wanted)
    except PipelineStop as stop:  # in the words of the ingest, which reads other settings
        text = re.sub(r"\bdata\.(path|pattern)\b", r"continued_evaluation.labels.\1", str(stop))
        text = text.replace("data.spans", "the span").replace("The data folder", "The folder")
        raise PipelineStop(f"Labels: {text}") from stop


@component
def LabelledLog(
    examples: OutputArtifact[standard_artifacts.Examples],
    predictions: Parameter[str],
    registry: Parameter[str],
    model_name: Parameter[str],
    version: Parameter[int],
    labels: Parameter[str],
    labels_folder: Parameter[str],
    span: Parameter[str],
    features: Parameter[str],
    columns: Parameter[str],
    code: Parameter[str],
    found: Parameter[str] = "",
) -> None:
    """Joins a version's logged predictions with labels that came later, by key.

    Of several predictions of a key the last counts. Keys are compared as text, without whitespace
    around: an integer is logged in decimal.

    Args:
        examples: Output: a standard Examples artifact with the split test. An example has the
            columns that are logged, the label as the schema names and types it, `__version` (INT)
            and `__prediction` (FLOAT, a list). `joined.json` is an `evidence.Joined`. Custom
            properties, beside the ingest's: `judged_version`, and `logged_columns`.
        predictions: The folder of the prediction logs.
        registry: The folder of all registered models.
        model_name: The model's folder in both.
        version: Which version; 0 for the champion at run time.
        labels: `settings.Labels` as JSON.
        labels_folder: Its `path`, resolved.
        span: Which span of the labels: newest, or a number.
        features: The FeatureTable as JSON, for the label and what it can be.
        columns: The schema's type of each column, as JSON.
        code: Fingerprint of the code this depends on, for the cache.
        found: What the driver found; where none has run, as on Kubeflow Pipelines, "".

    Raises:
        PipelineStop: If the files cannot be used as they are, or nothing can be joined.
    """
    del code
    given = {
        "predictions": predictions,
        "registry": registry,
        "model_name": model_name,
        "version": version,
        "labels": labels,
        "labels_folder": labels_folder,
        "span": span,
    }
    there = json.loads(found) if found else find(given)
    number, inputs = there["version"], Inputs(**there["labels"])
    settings, table = Labels.model_validate_json(labels), FeatureTable.model_validate_json(features)
    kinds = json.loads(columns)
    classes = table.label.classes or ([0, 1] if table.problem == "binary" else None)
    label = joining.Label(table.label.column, kinds[table.label.column], classes)
    log = joining.log_files(predictions, model_name, settings.days)
    # Of the label files alone: a log grows while it is read, and its files never change.
    check_unchanged(labels_folder, inputs, "Label files")
    outcome = joining.join(log, inputs.files, settings, label, number)
    if outcome.counts.without_features:
        _PROGRESS.warning(
            "%s of %s joined predictions have no logged features: they can be judged, and not be "
            "computed again",
            f"{outcome.counts.without_features:,}",
            f"{outcome.counts.joined:,}",
        )
    _write(examples, SPLIT, joining.labelled_rows(log, outcome, label, number, kinds))
    check_unchanged(labels_folder, inputs, "Label files")
    files.write_atomically(f"{examples.uri}/{JOINED_FILE}", outcome.counts.model_dump_json())
    source = f"{inputs.fingerprint},joined:{outcome.digest}"
    describe(examples, {SPLIT: outcome.counts.joined}, source)
    describe_spans(examples, inputs)
    examples.set_int_custom_property(JUDGED_VERSION, number)
    examples.set_string_custom_property(LOGGED_COLUMNS, json.dumps(outcome.columns))


@component
def ServedInputs(
    examples: OutputArtifact[standard_artifacts.Examples],
    predictions: Parameter[str],
    registry: Parameter[str],
    model_name: Parameter[str],
    version: Parameter[int],
    days: Parameter[int],
    columns: Parameter[str],
    code: Parameter[str],
    found: Parameter[str] = "",
) -> None:
    """Puts out what a version was given to predict, as it was logged, for StatisticsGen.

    Args:
        examples: Output: a standard Examples artifact with the split served, and the rows in its
            custom property `rows_served`. They are 0, and the split empty, if nothing is logged.
        predictions: As of `LabelledLog`, and so are all others but:
        registry: See there.
        model_name: See there.
        version: See there.
        days: The last days of the log, up to the newest that is logged.
        columns: See there.
        code: See there.
        found: See there.

    Raises:
        PipelineStop: If a file of the log cannot be used.
    """
    del code
    given = {
        "predictions": predictions,
        "registry": registry,
        "model_name": model_name,
        "version": version,
        "days": days,
    }
    there = json.loads(found) if found else find(given)
    own = {joining.VERSION, joining.PREDICTION}
    kinds = json.loads(columns)
    batches = (
        batch.select([name for name in batch.schema.names if name not in own])
        for path in joining.log_files(predictions, model_name, days)
        for _, batch in joining.logged_rows(path, there["version"], kinds)
        if {*batch.schema.names} - own
    )
    describe(examples, {SERVED: _write(examples, SERVED, batches)}, there["log"])
    examples.set_int_custom_property(JUDGED_VERSION, there["version"])


LabelledLog.DRIVER_CLASS = ServedInputs.DRIVER_CLASS = LogDriver


def _write(examples: types.Artifact, split: str, batches: Iterable[pa.RecordBatch]) -> int:
    """Writes batches of lists as tf.Examples of a split, which appears whole; returns the rows."""
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    encoder, rows = RecordBatchToExamplesEncoder(), 0
    with files.new_folder(os.path.join(examples.uri, f"Split-{split}")) as folder:
        path = os.path.join(folder, "data_tfrecord-00000-of-00001.gz")
        with tf.io.TFRecordWriter(path, "GZIP") as writer:
            for batch in batches:
                for example in encoder.encode(batch):
                    writer.write(example)
                rows += len(batch)
    return rows
