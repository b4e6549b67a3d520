"""The gate: stops the run before Transform when the data does not fit the schema."""

import json
import os
from dataclasses import asdict

from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import Artifact, artifact_utils
from tfx.types.standard_artifacts import ExampleAnomalies, ExampleStatistics, Schema
from tfx.utils import io_utils

from components.errors import PipelineStop
from components.gate.findings import Finding, GateSettings, SplitCheck, stop_message

REPORT_FILE = "report.json"


class GateReport(Artifact):
    """`report.json`: {"rows": {split: count}, "warnings": [findings]}."""

    TYPE_NAME = "GateReport"


@component
def Gate(
    statistics: InputArtifact[ExampleStatistics],
    schema: InputArtifact[Schema],
    anomalies: InputArtifact[ExampleAnomalies],
    report: OutputArtifact[GateReport],
    settings: Parameter[str],
    code: Parameter[str],
) -> None:
    """Lets data pass that has no errors, and reports its warnings.

    Takes `findings.GateSettings` as JSON, and the fingerprint of this code for the cache.

    Raises:
        PipelineStop: With every error: feature, what is wrong, how many rows, what to do.
    """
    del code
    checked = GateSettings.model_validate_json(settings)
    expected = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(schema.uri))
    rows: dict[str, int] = {}
    found: list[Finding] = []
    for split in artifact_utils.decode_split_names(statistics.split_names):
        stats, faults = _read_split(statistics, anomalies, split)
        rows[split] = int(stats.num_examples)
        found += SplitCheck(split, stats, faults, expected, checked).findings()
    errors = [finding for finding in found if finding.severity == "error"]
    if errors:
        raise PipelineStop(stop_message(errors))
    with open(os.path.join(report.uri, REPORT_FILE), "w") as file:
        warnings = [asdict(finding) for finding in found]
        json.dump({"rows": rows, "warnings": warnings}, file, indent=1)


def _read_split(
    statistics: Artifact, anomalies: Artifact, split: str
) -> tuple[statistics_pb2.DatasetFeatureStatistics, anomalies_pb2.Anomalies]:
    """What StatisticsGen and ExampleValidator wrote about a split."""
    stats, faults = statistics_pb2.DatasetFeatureStatisticsList(), anomalies_pb2.Anomalies()
    for artifact, name, message in (
        (statistics, "FeatureStats.pb", stats),
        (anomalies, "SchemaDiff.pb", faults),
    ):
        path = os.path.join(artifact_utils.get_split_uri([artifact], split), name)
        with open(path, "rb") as file:
            message.ParseFromString(file.read())
    return stats.datasets[0], faults
