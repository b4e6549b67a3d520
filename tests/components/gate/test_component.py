import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.types import artifact_utils, standard_artifacts

from components.errors import PipelineStop
from components.gate.component import Gate, GateReport
from tests.components.evaluation.samples import artifact
from tests.components.gate.test_findings import GOOD, SCHEMA, statistics

ODD = {**GOOD, "pay": ["Cash", "Gold"] * 50}


def run_gate(folder: Path, splits: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Runs the component's executor on what StatisticsGen and ExampleValidator would write."""
    schema = artifact(standard_artifacts.Schema, folder / "schema")
    (folder / "schema" / "schema.pbtxt").write_text(SCHEMA)
    expected = text_format.Parse(SCHEMA, schema_pb2.Schema())
    names = artifact_utils.encode_split_names(list(splits))
    stats = artifact(standard_artifacts.ExampleStatistics, folder / "statistics")
    faults = artifact(standard_artifacts.ExampleAnomalies, folder / "anomalies")
    for split, columns in splits.items():
        found = statistics(expected, columns)
        for made, name, content in (
            (stats, "FeatureStats.pb", found),
            (faults, "SchemaDiff.pb", tfdv.validate_statistics(found, expected)),
        ):
            made.split_names = names
            path = Path(made.uri, f"Split-{split}", name)
            path.parent.mkdir(parents=True)
            path.write_bytes(content.SerializeToString())
    report = artifact(GateReport, folder / "report")
    Gate.EXECUTOR_SPEC.executor_class().Do(
        {"statistics": [stats], "schema": [schema], "anomalies": [faults]},
        {"report": [report]},
        {"settings": json.dumps(settings), "code": ""},
    )
    return json.loads((folder / "report" / "report.json").read_text())


def test_good_data_passes_with_its_rows(tmp_path: Path) -> None:
    half = {name: values[:50] for name, values in GOOD.items()}
    report = run_gate(tmp_path, {"train": GOOD, "test": half})
    assert report == {"rows": {"train": 100, "test": 50}, "warnings": []}


def test_an_error_in_one_split_stops_the_run_and_leaves_no_report(tmp_path: Path) -> None:
    with pytest.raises(PipelineStop, match=r"pay .*: Gold .* \[test: 50 of 100 rows\]"):
        run_gate(tmp_path, {"train": GOOD, "test": ODD})
    assert not (tmp_path / "report" / "report.json").exists()


def test_warnings_pass_and_are_reported(tmp_path: Path) -> None:
    report = run_gate(tmp_path, {"eval": ODD}, tolerate=["ENUM_TYPE_UNEXPECTED_STRING_VALUES"])
    (warning,) = report["warnings"]
    assert (warning["split"], warning["feature"]) == ("eval", "pay")
    assert (warning["severity"], warning["rows"]) == ("warning", "50 of 100 rows")
