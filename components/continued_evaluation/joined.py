"""LabelledLog and ServedInputs: the components that make examples of the prediction log.

They import no other component of TFX, so that a step of its own does not wait for them.
"""

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.orchestration.portable import data_types
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components import files
from components.continued_evaluation import joining
from components.continued_evaluation.answers import JOINED_FILE, JUDGED_VERSION, LOGGED_COLUMNS
from components.continued_evaluation.evidence import Joined
from components.continued_evaluation.settings import Labels
from components.errors import PipelineStop
from components.features.table import FeatureTable
from components.inference.model import choose
from components.ingest.component import describe, describe_spans
from components.ingest.settings import Spans
from components.ingest.spans import Inputs, check_unchanged, resolve
from components.registry.finding import FindingDriver

SPLIT, SERVED = "test", "served"
_PARTS = ".parts"
_PROGRESS = logging.getLogger("progress")
Properties = dict[str, Any]
"""A component's execution properties."""


def find_version(given: Properties) -> int:
    """The version that is judged: the one given, or for 0 the champion.

    Raises:
      PipelineStop: There is no champion.
    """
    folder = os.path.join(given["registry"], given["model_name"])
    return int(given["version"]) or choose(folder).version


def _find_log(given: Properties) -> joining.Log:
    labels = Labels.model_validate_json(given["labels"]) if "labels" in given else None
    days = labels.days if labels else int(given["days"])
    log = joining.find_log(given["predictions"], given["model_name"], days)
    if labels and not log.files:
        raise PipelineStop(
            f"There is no prediction log in {Path(given['predictions'], given['model_name'])}. Set "
            "prediction_log.enabled=true and send a key with each row to predict; or, if the data "
            "itself has labels, set continued_evaluation.labels=null."
        )
    return log


def _find_labels(given: Properties) -> Inputs:
    span = str(given["span"])
    if span != "newest" and not span.isdecimal():
        raise PipelineStop(f"The span is '{span}'; it can be newest, or a number.")
    try:
        wanted: Spans = int(span) if span.isdecimal() else "newest"
        pattern = Labels.model_validate_json(given["labels"]).pattern
        return resolve(given["labels_folder"], pattern, wanted)
    except PipelineStop as stop:  # in the words of the ingest, which reads other settings
        text = re.sub(r"\bdata\.(path|pattern)\b", r"continued_evaluation.labels.\1", str(stop))
        text = text.replace("data.spans", "the span").replace("The data folder", "The folder")
        raise PipelineStop(f"Labels: {text}") from stop


class Driver(FindingDriver):
    """Finds version, log and, where they are joined, label files: a part of the cache key."""

    def find(self, info: data_types.ExecutionInfo) -> Properties:
        """See `find`."""
        return find(info.exec_properties)


def find(given: Properties) -> Properties:
    """Finds the version, the log's fingerprint and the label files (`Inputs`).

    Raises:
      PipelineStop: One of them is not there.
    """
    found = {"version": find_version(given), "log": _find_log(given).fingerprint}
    return found | ({"labels": vars(_find_labels(given))} if "labels" in given else {})


def _found(given: Properties) -> Properties:
    """What the driver found; where none has run, as on Kubeflow Pipelines, what is there now."""
    return dict(json.loads(given["found"])) if given.get("found") else find(given)


class JoinExecutor(base_executor.BaseExecutor):
    """The prediction log and label files to examples of predictions with their labels."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: Properties,
    ) -> None:
        """Runs the step.

        Args:
          input_dict: Empty.
          output_dict: `examples`, one Examples artifact.
          exec_properties: As `LabelledLog` and its driver set them.

        Raises:
          PipelineStop: If the files cannot be used as they are, or nothing can be joined.
        """
        found, log = _found(exec_properties), _find_log(exec_properties)
        version, labels = found["version"], Inputs(**found["labels"])
        settings = Labels.model_validate_json(exec_properties["labels"])
        columns = json.loads(exec_properties["columns"])
        label = _label(FeatureTable.model_validate_json(exec_properties["features"]), columns)
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        # Of the label files alone: a log grows while it is read, and its files never change.
        check_unchanged(exec_properties["labels_folder"], labels, "Label files")
        joined = joining.join(log.files, labels.files, settings, label, version)
        outcome = next(joined)
        counts = _checked(outcome, version)
        with _parts(examples) as parts, _writer(parts, SPLIT) as write:
            for path, rows, values in joined:
                write(joining.examples_of(path, version, columns, (label, rows, values)))
        check_unchanged(exec_properties["labels_folder"], labels, "Label files")
        files.write_synced(str(parts / JOINED_FILE), counts.model_dump_json(indent=1))
        _publish(parts, [JOINED_FILE, f"Split-{SPLIT}"])
        source = f"{labels.fingerprint},joined:{outcome.digest}"
        _describe(examples, {SPLIT: counts.joined}, version, source, outcome.columns)
        describe_spans(examples, labels)


class ServedExecutor(base_executor.BaseExecutor):
    """The prediction log to examples of what one version was given."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: Properties,
    ) -> None:
        """Runs the step.

        Args:
          input_dict: Empty.
          output_dict: `examples`, one Examples artifact.
          exec_properties: As `ServedInputs` and its driver set them.

        Raises:
          PipelineStop: If a file of the log cannot be used.
        """
        version, log = _found(exec_properties)["version"], _find_log(exec_properties)
        columns = json.loads(exec_properties["columns"])
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        served = 0
        with _parts(examples) as parts, _writer(parts, SERVED) as write:
            for path in log.files:
                batches = joining.examples_of(path, version, columns)
                served += write(batch for batch in map(joining.inputs_alone, batches) if batch)
        _publish(parts, [f"Split-{SERVED}"])
        _describe(examples, {SERVED: served}, version, log.fingerprint, [])


def _label(table: FeatureTable, columns: dict[str, Any]) -> joining.Label:
    classes = table.label.classes or ([0, 1] if table.problem == "binary" else None)
    return joining.Label(table.label.column, columns[table.label.column], classes)


def _checked(outcome: joining.Outcome, version: int) -> Joined:
    """The counts.

    Raises:
      PipelineStop: Nothing could be joined.
    """
    joined = Joined(**{name: outcome.counts[name] for name in Joined.model_fields})
    if not joined.joined:
        counts = ", ".join(f"{count} {name}" for name, count in joined if count)
        log, labels = outcome.unlabelled, outcome.unasked
        of_log = f"the key {log!r}" if log else "no keys"
        of_labels = f"labels of the key {labels!r}" if labels else "no other labels"
        raise PipelineStop(
            f"No label could be joined with a prediction of version {version}: "
            f"{counts.replace('_', ' ')}. The log has {of_log} of this version, and the files have "
            f"{of_labels}. Write keys in the same way on both sides, or wait for more predictions "
            "or labels."
        )
    if joined.without_features:
        _PROGRESS.warning(
            "%s of %s joined predictions have no logged features: they can be judged, and not be "
            "computed again",
            f"{joined.without_features:,}",
            f"{joined.joined:,}",
        )
    return joined


@contextlib.contextmanager
def _parts(examples: types.Artifact) -> Iterator[Path]:
    """The folder, empty, in which an attempt writes; what one before it left is removed."""
    parts = Path(examples.uri) / _PARTS
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    yield parts
    files.sync_folders(str(parts))


@contextlib.contextmanager
def _writer(parts: Path, split: str) -> Iterator[Any]:
    """Yields what writes batches of lists as tf.Examples of a split; it returns the rows."""
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    folder, encoder = parts / f"Split-{split}", RecordBatchToExamplesEncoder()
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / "data_tfrecord-00000-of-00001.gz"), "GZIP") as writer:

        def write(batches: Iterable[Any]) -> int:
            rows = 0
            for batch in batches:
                for example in encoder.encode(batch):
                    writer.write(example)
                rows += len(batch)
            return rows

        yield write


def _publish(parts: Path, names: list[str]) -> None:
    """Moves what an attempt wrote to its place, each file or folder in one step."""
    for name in names:
        final = parts.parent / name
        if final.is_dir():  # from an attempt that was cut short
            shutil.rmtree(final)
        (parts / name).rename(final)
    files.sync(str(parts.parent))
    shutil.rmtree(parts)


def _describe(
    examples: types.Artifact, counts: dict[str, int], version: int, source: str, columns: list[str]
) -> None:
    """Sets what each Examples artifact has, and what is known of the log."""
    describe(examples, counts, source)
    examples.set_int_custom_property(JUDGED_VERSION, version)
    examples.set_string_custom_property(LOGGED_COLUMNS, json.dumps(columns))


_LOG_PARAMETERS: dict[str, ExecutionParameter] = {
    "predictions": ExecutionParameter(type=str),
    "registry": ExecutionParameter(type=str),
    "model_name": ExecutionParameter(type=str),
    "version": ExecutionParameter(type=int),
    "columns": ExecutionParameter(type=str),
    "code": ExecutionParameter(type=str),
    "found": ExecutionParameter(type=str),
}
"""Of each component that reads the log.

`predictions`: the folder of the prediction logs, `workspace/predictions`; `registry`: the folder of
all registered models; `model_name`: the model's folder in both; `version`: which, 0 for the
champion at run time; `columns`: the schema's type of each column, as JSON; `code`: fingerprint of
the code that the component depends on, for the cache; `found`: what its driver found.
"""


class LabelledLogSpec(ComponentSpec):
    """Those of each that reads the log, and where the labels are.

    `labels`: `settings.Labels` as JSON; `labels_folder`: its `path`, resolved; `span`: which span
    of the labels, newest or a number; `features`: the FeatureTable as JSON, for the label, and what
    it can be.
    """

    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar = {"examples": ChannelParameter(type=standard_artifacts.Examples)}
    PARAMETERS: ClassVar = {
        **_LOG_PARAMETERS,
        "labels": ExecutionParameter(type=str),
        "labels_folder": ExecutionParameter(type=str),
        "span": ExecutionParameter(type=str),
        "features": ExecutionParameter(type=str),
    }


class ServedInputsSpec(ComponentSpec):
    """Those of each, and `days`: the last days of the log, up to the newest that is logged."""

    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar = {"examples": ChannelParameter(type=standard_artifacts.Examples)}
    PARAMETERS: ClassVar = {**_LOG_PARAMETERS, "days": ExecutionParameter(type=int)}


class _LogComponent(base_component.BaseComponent):
    DRIVER_CLASS = Driver

    def __init__(self, **settings: Any) -> None:
        """Takes the parameters of its spec by name, but for `found`."""
        examples = types.Channel(type=standard_artifacts.Examples)
        super().__init__(spec=self.SPEC_CLASS(**settings, found="", examples=examples))


class LabelledLog(_LogComponent):
    """Joins a version's logged predictions with labels that came later, by key.

    Output `examples`: a standard Examples artifact with the split test. An example has the columns
    that are logged, the label as the schema names and types it, `__version` (INT) and
    `__prediction` (FLOAT, a list). `joined.json` is an `evidence.Joined`. Custom properties, beside
    the ingest's: `judged_version`, and `logged_columns`, those that all rows of the version have.

    Of several predictions of a key the last counts. Keys are compared as text, without whitespace
    around: an integer is logged in decimal.
    """

    SPEC_CLASS = LabelledLogSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(JoinExecutor)


class ServedInputs(_LogComponent):
    """Puts out what a version was given to predict, as it was logged, for StatisticsGen.

    Output `examples`: a standard Examples artifact with the split served, and the rows in its
    custom property `rows_served`. They are 0, and the split empty, if nothing is logged.
    """

    SPEC_CLASS = ServedInputsSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(ServedExecutor)
