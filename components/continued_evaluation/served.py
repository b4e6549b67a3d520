"""ServedInputs: the component that reads what a version was given to predict from the log."""

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import apache_beam as beam
from tfx import types
from tfx.dsl.components.base import base_beam_executor, executor_spec
from tfx.orchestration.portable import data_types
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.continued_evaluation.joined import (
    LOG_PARAMETERS,
    LogComponent,
    Properties,
    begin,
    describe_log,
    find_version,
    publish,
)
from components.continued_evaluation.joining import (
    LogReader,
    ReadFiles,
    Report,
    WriteExamples,
    read_report,
)
from components.continued_evaluation.reading import Log, Logged, find_log
from components.registry.finding import FindingDriver

SPLIT = "served"


def find(given: Properties) -> Properties:
    """Finds the version and the log, which may be empty.

    Raises:
      PipelineStop: There is no champion.
    """
    return {"version": find_version(given), "log": _find_log(given).fingerprint}


def _find_log(given: Properties) -> Log:
    return find_log(given["predictions"], given["model_name"], int(given["days"]))


class Driver(FindingDriver):
    """Finds version and log."""

    def find(self, info: data_types.ExecutionInfo) -> Properties:
        """See `find`."""
        return find(info.exec_properties)


class Executor(base_beam_executor.BaseBeamExecutor):
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
        self._log_startup(input_dict, output_dict, exec_properties)
        told = exec_properties.get("found")  # by the driver; on Kubeflow Pipelines none has run
        version = (json.loads(told) if told else find(exec_properties))["version"]
        log = _find_log(exec_properties)
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        parts = begin(examples)
        reader = _ReadInputs(version, json.loads(exec_properties["columns"]))
        with self._make_beam_pipeline() as pipeline:
            logged = pipeline | "LogFiles" >> beam.Create([*enumerate(log.files)])
            logged | "Read" >> ReadFiles(reader) | "Write" >> WriteExamples(parts, SPLIT)
        report = read_report(parts)
        publish(parts, [f"Split-{SPLIT}"])
        counts = {SPLIT: report.counts["served"]}
        describe_log(examples, counts, version, log.fingerprint, report)


class _ReadInputs(LogReader):
    """Yields examples of the features alone; a row of which none are logged has no example."""

    def rows(self, batch: Logged, place: tuple[int, int], report: Report) -> Iterator[Any]:
        if batch.examples is not None and batch.features:
            report.counts["served"] += len(batch.keys)
            yield from self._encoder.encode(batch.examples.select(batch.features))


class ServedInputsSpec(ComponentSpec):
    """`LOG_PARAMETERS`, and `days`: the last days of the log, up to the newest that is logged."""

    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar = {"examples": ChannelParameter(type=standard_artifacts.Examples)}
    PARAMETERS: ClassVar = {**LOG_PARAMETERS, "days": ExecutionParameter(type=int)}


class ServedInputs(LogComponent):
    """Puts out what a version was given to predict, as it was logged, for StatisticsGen.

    Output `examples`: a standard Examples artifact with the split served, and the rows in its
    custom property `rows_served`. They are 0, and the split empty, if nothing is logged.
    """

    SPEC_CLASS = ServedInputsSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver
