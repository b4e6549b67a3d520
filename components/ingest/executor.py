"""The executor of the ingest step: runs the Beam transform and describes what it made."""

import json
import os
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from google.protobuf import wrappers_pb2
from tfx import types
from tfx.dsl.components.base import base_beam_executor
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils
from tfx.types import standard_component_specs as specs
from tfx.utils import proto_utils

from components.errors import PipelineStop
from components.ingest.describing import describe, describe_spans
from components.ingest.quarantine import FOLDER, Quarantined, check, publish_lists, together
from components.ingest.settings import SPLITS, IngestSettings
from components.ingest.spans import Inputs, check_unchanged, resolve
from components.ingest.transform import IngestFiles, Result
from components.ingest.writing import Shard, publish

INPUTS_KEY = "inputs"
"""The execution property in which the driver leaves the files it found, as JSON."""
COUNTS_FILE = "counts.json"
QUARANTINED = "quarantined"
"""Its key of the bad rows, beside those of the splits."""
_REPORTED = 3


class Executor(base_beam_executor.BaseBeamExecutor):
    """CSV and Parquet to gzipped TFRecords of tf.Examples, split into train, eval and test."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Runs the step.

        Args:
            input_dict: Empty.
            output_dict: `examples`, one Examples artifact. It gets the splits' folders, a
                `counts.json` with the rows of each split, and custom properties; bad rows go to
                `quarantine/*.jsonl`.
            exec_properties: As `ArrowExampleGen` and its driver set them.

        Raises:
            PipelineStop: If the data can't be used as it is.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        settings = read_settings(exec_properties)
        inputs = read_inputs(exec_properties)
        examples = artifact_utils.get_single_instance(output_dict[specs.EXAMPLES_KEY])
        parts = os.path.join(examples.uri, ".parts")
        check_unchanged(exec_properties[specs.INPUT_BASE_KEY], inputs)
        shards, bad = self._ingest(settings, inputs, parts)
        check_unchanged(exec_properties[specs.INPUT_BASE_KEY], inputs)
        check(bad, settings.bad_rows.at_most, _kept_folder(examples.uri))
        counts = count_rows(shards, settings.splits)
        publish(shards, {s: os.path.join(examples.uri, f"Split-{s}") for s in settings.splits})
        publish_lists(bad, os.path.join(examples.uri, FOLDER))
        fileio.rmtree(parts)
        told = counts | (_told(bad) if settings.quarantines else {})
        with fileio.open(os.path.join(examples.uri, COUNTS_FILE), "w") as file:
            file.write(json.dumps(told))
        describe(examples, counts, inputs.fingerprint)
        describe_spans(examples, inputs)
        if settings.quarantines:
            examples.set_int_custom_property("rows_quarantined", bad.rows)

    def _ingest(
        self, settings: IngestSettings, inputs: Inputs, parts: str
    ) -> tuple[list[Shard], Quarantined]:
        fileio.makedirs(parts)
        report = os.path.join(parts, "report.json")
        with self._make_beam_pipeline() as pipeline:
            tested = inputs.newest if settings.test_spans == "newest" else inputs.files
            files = pipeline | "Files" >> beam.Create(
                [(number, path, path in tested) for number, path in enumerate(inputs.files)]
            )
            files | IngestFiles(settings, parts, report)
        with fileio.open(report) as file:
            results: list[Result] = sorted(json.loads(file.read()), key=lambda r: str(r["path"]))
        problems = sorted(r["problem"] for r in results if "problem" in r)
        if problems:
            more = len(problems) - _REPORTED
            rest = [f"{more} more files have problems."] if more > 0 else []
            raise PipelineStop("\n".join(problems[:_REPORTED] + rest))
        shards = [Shard(*shard) for result in results for shard in result["shards"]]
        bad = together([Quarantined(*r["quarantined"]) for r in results if r["quarantined"]])
        return shards, bad


def _kept_folder(uri: str) -> str:
    """Where the lists stay when the run stops: TFX removes the outputs of a step that fails.

    A numbered folder of the step, as its outputs are, so that `gc` finds it.
    """
    output, _, number = uri.rstrip("/").rpartition("/")
    return os.path.join(os.path.dirname(output), FOLDER, number)


def _told(bad: Quarantined) -> dict[str, Any]:
    """What `counts.json` says of bad rows."""
    return {QUARANTINED: {"rows": bad.rows, "of": bad.read, "reasons": bad.reasons}}


def read_settings(exec_properties: dict[str, Any]) -> IngestSettings:
    """The settings in the execution property `custom_config`."""
    config, text = example_gen_pb2.CustomConfig(), wrappers_pb2.StringValue()
    proto_utils.json_to_proto(exec_properties[specs.CUSTOM_CONFIG_KEY], config)
    config.custom_config.Unpack(text)
    return IngestSettings.model_validate_json(text.value)


def read_inputs(exec_properties: dict[str, Any]) -> Inputs:
    """The files that the driver found, or finds them: Kubeflow runs no driver of ours."""
    if INPUTS_KEY in exec_properties:
        return Inputs(**json.loads(exec_properties[INPUTS_KEY]))
    config = example_gen_pb2.Input()
    proto_utils.json_to_proto(exec_properties[specs.INPUT_CONFIG_KEY], config)
    spans = read_settings(exec_properties).spans
    return resolve(exec_properties[specs.INPUT_BASE_KEY], config.splits[0].pattern, spans)


def count_rows(shards: list[Shard], splits: Sequence[str] = SPLITS) -> dict[str, int]:
    """The rows of each split.

    Raises:
        PipelineStop: If a split has none.
    """
    counts = {split: sum(s.rows for s in shards if s.split == split) for split in splits}
    empty = [split for split in splits if not counts[split]]
    if empty:
        raise PipelineStop(
            f"No row fell into the split {' or '.join(empty)}; the rows were {counts}. Use more "
            "rows (data.sample, data.spans), other fractions, or, if few keys or times are "
            "shared by many rows, another data.split.by."
        )
    return counts
