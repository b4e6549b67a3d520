"""LabelledLog: the component that joins logged predictions with late labels, as examples.

It imports no other component of TFX, so that a step of its own does not wait for them.
"""

import json
import logging
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import apache_beam as beam
from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.orchestration.portable import data_types
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components import files
from components.continued_evaluation.evidence import Joined
from components.continued_evaluation.joining import JoinFiles, Report, WriteExamples, read_report
from components.continued_evaluation.logged import JOINED_FILE, JUDGED_VERSION, LOGGED_COLUMNS
from components.continued_evaluation.reading import LabelColumns, Log, find_log
from components.continued_evaluation.settings import Labels
from components.errors import PipelineStop
from components.features.table import FeatureTable
from components.inference.model import choose
from components.ingest.describing import describe, describe_spans
from components.ingest.settings import Spans
from components.ingest.spans import Inputs, check_unchanged, resolve
from components.registry.finding import FindingDriver

SPLIT = "test"
_PARTS = ".parts"
_PROGRESS = logging.getLogger("progress")
Properties = dict[str, Any]
"""A component's execution properties."""


@dataclass(frozen=True)
class Found:
    """What is there when the step begins: a part of its cache key."""

    version: int
    log: str
    """The log's fingerprint."""
    labels: Inputs


def find(given: Properties) -> Found:
    """Finds version, log and label files.

    Raises:
      PipelineStop: One of them is not there.
    """
    version = find_version(given)
    log = _find_log(given)
    return Found(version, log.fingerprint, _find_labels(given))


def find_version(given: Properties) -> int:
    """The version that is judged: the one given, or for 0 the champion.

    Raises:
      PipelineStop: There is no champion.
    """
    folder = os.path.join(given["registry"], given["model_name"])
    return int(given["version"]) or choose(folder).version


def _find_log(given: Properties) -> Log:
    log = find_log(given["predictions"], given["model_name"], _labels(given).days)
    if not log.files:
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
        return resolve(given["labels_folder"], _labels(given).pattern, wanted)
    except PipelineStop as stop:  # in the words of the ingest, which reads other settings
        text = re.sub(r"\bdata\.(path|pattern)\b", r"continued_evaluation.labels.\1", str(stop))
        text = text.replace("data.spans", "the span").replace("The data folder", "The folder")
        raise PipelineStop(f"Labels: {text}") from stop


def _labels(given: Properties) -> Labels:
    return Labels.model_validate_json(given["labels"])


class Driver(FindingDriver):
    """Finds version, log and label files."""

    def find(self, info: data_types.ExecutionInfo) -> Properties:
        """A `Found`."""
        return asdict(find(info.exec_properties))


class Executor(base_beam_executor.BaseBeamExecutor):
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
        self._log_startup(input_dict, output_dict, exec_properties)
        found = _read_found(exec_properties) or find(exec_properties)
        log = _find_log(exec_properties)
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        parts = begin(examples)
        # Of the label files alone: a log grows while it is read, and its files never change.
        folder = exec_properties["labels_folder"]
        check_unchanged(folder, found.labels, "Label files")
        report = self._join(exec_properties, found, log, parts)
        check_unchanged(folder, found.labels, "Label files")
        joined = _joined(report, found.version)
        files.write_synced(str(parts / JOINED_FILE), joined.model_dump_json(indent=1))
        publish(parts, [JOINED_FILE, f"Split-{SPLIT}"])
        source = f"{found.labels.fingerprint},joined:{report.digest:016x}"
        describe_log(examples, {SPLIT: joined.joined}, found.version, source, report)
        describe_spans(examples, found.labels)

    def _join(self, given: Properties, found: Found, log: Log, parts: Path) -> Report:
        table = FeatureTable.model_validate_json(given["features"])
        columns = json.loads(given["columns"])
        of_labels = _label_columns(_labels(given), table, columns)
        join = JoinFiles(found.version, columns, of_labels, table.label.column)
        with self._make_beam_pipeline() as pipeline:
            logged = pipeline | "LogFiles" >> beam.Create([*enumerate(log.files)])
            labels = pipeline | "LabelFiles" >> beam.Create(found.labels.files)
            (logged, labels) | "Join" >> join | "Write" >> WriteExamples(parts, SPLIT)
        return read_report(parts)


def _label_columns(labels: Labels, table: FeatureTable, columns: dict[str, str]) -> LabelColumns:
    classes = table.label.classes or ([0, 1] if table.problem == "binary" else None)
    return LabelColumns(labels.key, labels.label, columns[table.label.column], classes, labels.csv)


def _read_found(given: Properties) -> Found | None:
    """What the driver found; None where none has run, as on Kubeflow Pipelines."""
    if not given.get("found"):
        return None
    found = json.loads(given["found"])
    return Found(found["version"], found["log"], Inputs(**found["labels"]))


def _joined(report: Report, version: int) -> Joined:
    """The counts.

    Raises:
      PipelineStop: Nothing could be joined.
    """
    joined = Joined(**{name: report.counts[name] for name in Joined.model_fields})
    if not joined.joined:
        counts = ", ".join(f"{count} {name}" for name, count in joined if count)
        log, labels = (report.keys.get(side) for side in ("log", "labels"))
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


def begin(examples: types.Artifact) -> Path:
    """The folder, empty, in which an attempt writes; what one before it left is removed."""
    parts = Path(examples.uri) / _PARTS
    if parts.exists():
        shutil.rmtree(parts)
    parts.mkdir(parents=True)
    return parts


def publish(parts: Path, names: list[str]) -> None:
    """Moves what an attempt wrote to its place, each file or folder in one step."""
    files.sync_folders(str(parts))
    for name in names:
        final = parts.parent / name
        if final.is_dir():  # from an attempt that was cut short
            shutil.rmtree(final)
        (parts / name).rename(final)
    files.sync(str(parts.parent))
    shutil.rmtree(parts)


def describe_log(
    examples: types.Artifact, counts: dict[str, int], version: int, source: str, report: Report
) -> None:
    """Sets what each Examples artifact has, and what is known of the log."""
    describe(examples, counts, source)
    examples.set_int_custom_property(JUDGED_VERSION, version)
    examples.set_string_custom_property(LOGGED_COLUMNS, json.dumps(report.columns_of_all()))


LOG_PARAMETERS: dict[str, ExecutionParameter] = {
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


class LogComponent(base_beam_component.BaseBeamComponent):
    """A component that makes `examples` from the prediction log."""

    def __init__(self, **settings: Any) -> None:
        """Takes the parameters of its spec by name, but for `found`."""
        examples = types.Channel(type=standard_artifacts.Examples)
        super().__init__(spec=self.SPEC_CLASS(**settings, found="", examples=examples))


class LabelledLogSpec(ComponentSpec):
    """`LOG_PARAMETERS`, and where the labels are.

    `labels`: `settings.Labels` as JSON; `labels_folder`: its `path`, resolved; `span`: which span
    of the labels, newest or a number; `features`: the FeatureTable as JSON, for the label, and what
    it can be.
    """

    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar = {"examples": ChannelParameter(type=standard_artifacts.Examples)}
    PARAMETERS: ClassVar = {
        **LOG_PARAMETERS,
        "labels": ExecutionParameter(type=str),
        "labels_folder": ExecutionParameter(type=str),
        "span": ExecutionParameter(type=str),
        "features": ExecutionParameter(type=str),
    }


class LabelledLog(LogComponent):
    """Joins a version's logged predictions with labels that came later, by key.

    Output `examples`: a standard Examples artifact with the split test. An example has the columns
    that are logged, the label as the schema names and types it, `__version` (INT) and
    `__prediction` (FLOAT, a list). `joined.json` is an `evidence.Joined`. Custom properties, beside
    the ingest's: `judged_version`, and `logged_columns`, those that all rows of the version have.

    Of several predictions of a key the last counts. Keys are compared as text, without whitespace
    around: an integer is logged in decimal.
    """

    SPEC_CLASS = LabelledLogSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver
