"""The component on real statistics, a real schema, and what TFDV finds in them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_data_validation.statistics import stats_impl, stats_options
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx.types import artifact_utils, standard_artifacts

from components.errors import PipelineStop
from components.gate import Finding, Gate, GateReport, GateSettings, findings
from tests.components.evaluation.samples import artifact

KINDS = {str: pa.large_binary(), int: pa.int64(), float: pa.float32()}
SCHEMA = """
feature { name: "pay" type: BYTES domain: "pay" presence { min_fraction: 0.5 } }
feature { name: "n" type: INT int_domain { min: 0 max: 10 } }
feature { name: "fare" type: FLOAT float_domain { min: 0 } presence { min_count: 1 } }
feature { name: "label" type: INT }
string_domain { name: "pay" value: "Cash" value: "Card" }
"""
GOOD: dict[str, list[Any]] = {
    "pay": ["Cash", "Card"] * 50,
    "n": [3, 4] * 50,
    "fare": [1.5, 2.5] * 50,
    "label": [0, 1] * 50,
}
ODD = {**GOOD, "pay": ["Cash", "Gold"] * 50}
TEXTS = SCHEMA.replace('"label" type: INT', '"label" type: BYTES')


def statistics(schema: schema_pb2.Schema, columns: dict[str, list[Any]]) -> Any:
    kinds = [
        KINDS[type(next(v for v in [*column, 0] if v is not None))] for column in columns.values()
    ]
    arrays = [
        pa.array([None if v is None else [v] for v in values], pa.large_list(kind))
        for values, kind in zip(columns.values(), kinds, strict=True)
    ]
    options = stats_options.StatsOptions(schema=schema)
    batch = pa.RecordBatch.from_arrays(arrays, list(columns))
    return stats_impl.generate_statistics_in_memory(batch, options)


def check(split: str = "train", schema: str = SCHEMA, **changes: Any) -> list[Finding]:
    """What is found when columns of the good data are changed; None takes a column out."""
    given = {"schema_file": "taxi.schema.pbtxt", "label": "label", **changes.pop("settings", {})}
    expected = text_format.Parse(schema, schema_pb2.Schema())
    columns = {n: c for n, c in {**GOOD, **changes}.items() if c is not None}
    found = statistics(expected, columns)
    anomalies = tfdv.validate_statistics(found, expected)
    return findings(split, found.datasets[0], anomalies, GateSettings(**given))


def run_gate(folder: Path, splits: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Runs the component's executor on what StatisticsGen and ExampleValidator would write."""
    expected = text_format.Parse(SCHEMA, schema_pb2.Schema())
    stats = artifact(standard_artifacts.ExampleStatistics, folder / "statistics")
    faults = artifact(standard_artifacts.ExampleAnomalies, folder / "anomalies")
    for split, columns in splits.items():
        found = statistics(expected, columns)
        for made, name, content in (
            (stats, "FeatureStats.pb", found),
            (faults, "SchemaDiff.pb", tfdv.validate_statistics(found, expected)),
        ):
            made.split_names = artifact_utils.encode_split_names(list(splits))
            path = Path(made.uri, f"Split-{split}", name)
            path.parent.mkdir(parents=True)
            path.write_bytes(content.SerializeToString())
    report = artifact(GateReport, folder / "report")
    Gate.EXECUTOR_SPEC.executor_class().Do(
        {"statistics": [stats], "anomalies": [faults]},
        {"report": [report]},
        {"settings": json.dumps(settings), "code": ""},
    )
    return json.loads((folder / "report" / "report.json").read_text())


def test_good_data_passes_with_its_rows(tmp_path: Path) -> None:
    half = {name: values[:50] for name, values in GOOD.items()}
    report = run_gate(tmp_path, {"train": GOOD, "test": half})
    assert report == {"rows": {"train": 100, "test": 50}, "bridged": {}, "warnings": []}


def test_errors_stop_the_run_with_all_their_splits_and_leave_no_report(tmp_path: Path) -> None:
    gold = {**GOOD, "pay": ["Gold"] * 100}
    with pytest.raises(PipelineStop) as stop:
        run_gate(tmp_path, {"train": gold, "eval": GOOD, "test": ODD}, schema_file="taxi.pbtxt")
    assert str(stop.value).splitlines() == [
        "The data does not pass the gate: 1 error(s).",
        "- pay (ENUM_TYPE_UNEXPECTED_STRING_VALUES): Examples contain values missing from the "
        "schema: Gold (~100%). [train, 100 rows]; Examples contain values missing from the "
        "schema: Gold (~50%). [test, 100 rows]",
        "  Fix the data at its source; or, if this is as it should be, edit taxi.pbtxt: add the "
        "values to its domain.",
    ]
    assert not (tmp_path / "report" / "report.json").exists()


def test_warnings_pass_and_are_reported(tmp_path: Path) -> None:
    report = run_gate(tmp_path, {"eval": ODD}, tolerate=["ENUM_TYPE_UNEXPECTED_STRING_VALUES"])
    (warning,) = report["warnings"]
    told = (warning["split"], warning["feature"], warning["severity"], warning["rows"])
    assert told == ("eval", "pay", "warning", 100)


@pytest.mark.parametrize(
    ("changes", "feature", "kind", "what", "edit"),
    [
        (
            {"pay": ["Cash"] * 40 + [None] * 60},
            "pay",
            "LOW_FRACTION_PRESENT",
            "0.4",
            "min_fraction",
        ),
        ({"pay": None}, "pay", "SCHEMA_MISSING_COLUMN", "completely missing", "remove its entry"),
        ({"new": [1] * 100}, "new", "SCHEMA_NEW_COLUMN", "not in schema", "add an entry for it"),
        ({"fare": ["a"] * 100}, "fare", "UNEXPECTED_DATA_TYPE", "STRING", "change its type"),
        ({"n": [3] * 99 + [50]}, "n", "INT_TYPE_BIG_INT", "50", "raise its int_domain.max"),
        ({"fare": [2.0] * 99 + [-2.0]}, "fare", "FLOAT_TYPE_SMALL_FLOAT", "-2", "float_domain.min"),
        (
            {"schema": SCHEMA + "dataset_constraints { min_examples_count: 101 }"},
            *("", "DATASET_LOW_NUM_EXAMPLES", "100", "lower dataset_constraints"),
        ),
    ],
)
def test_an_anomaly_is_told_with_what_came_and_what_to_do(
    changes: dict[str, Any], feature: str, kind: str, what: str, edit: str
) -> None:
    (finding,) = [one for one in check(**changes) if kind in one.type]
    assert (finding.split, finding.feature, finding.severity) == ("train", feature, "error")
    assert what in finding.what
    assert edit in finding.todo.partition("edit taxi.schema.pbtxt: ")[2]


def test_two_reasons_of_one_feature_are_two_findings() -> None:
    found = check(pay=["Gold"] * 40 + [None] * 60)
    assert len({f.type for f in found}) == len(found) == 2


@pytest.mark.parametrize("severity", ["ERROR", "WARNING"])
@pytest.mark.parametrize("stop_on", ["error", "warning"])
@pytest.mark.parametrize("tolerated", ["ENUM_TYPE_UNEXPECTED_STRING_VALUES", "SCHEMA_NEW_COLUMN"])
def test_what_stops_is_as_severe_as_it_is_said_to_be(
    severity: str, stop_on: Any, tolerated: str
) -> None:
    expected = text_format.Parse(SCHEMA, schema_pb2.Schema())
    found = statistics(expected, ODD)
    anomalies = tfdv.validate_statistics(found, expected)
    anomalies.anomaly_info["pay"].severity = anomalies_pb2.AnomalyInfo.Severity.Value(severity)
    settings = GateSettings(stop_on=stop_on, tolerate=[tolerated])
    (finding,) = findings("eval", found.datasets[0], anomalies, settings)
    stops = tolerated == "SCHEMA_NEW_COLUMN" and (severity == "ERROR" or stop_on == "warning")
    assert finding.severity == ("error" if stops else "warning")


def test_a_missing_value_in_a_required_column_is_an_error_whatever_the_schema_says() -> None:
    found = check(pay=None, n=[None] * 3 + [4] * 97, settings={"required": ["n", "pay"]})
    assert [(f.feature, f.type) for f in found] == [
        ("pay", "SCHEMA_MISSING_COLUMN"),  # told once, not twice
        ("n", "required_value_missing"),
    ]
    assert "3 of 100 rows" in found[1].what


@pytest.mark.parametrize(
    ("label", "classes", "split", "words"),
    [
        ([1] * 100, None, "train", "the same value in every row"),
        ([1] * 100, None, "test", ""),
        ([0] * 99 + [1], None, "train", ""),
        (["yes"] * 100, None, "train", "the same value in every row"),
        (["yes", "no"] * 50, None, "train", ""),
        ([1, 2] * 50, [0, 1], "test", "none of the classes 0, 1: 2"),
        (["a", "b"] * 49 + ["c"] * 2, ["a", "b"], "train", "none of the classes 'a', 'b': 'c'"),
        ([0, 1] * 50, [0, 1], "train", ""),
        (["a", "b"] * 50, ["a", "b", "seldom"], "train", ""),
    ],
)
def test_a_label_is_a_class_and_has_two_values_in_training(
    label: list[Any], classes: list[Any] | None, split: str, words: str
) -> None:
    schema = TEXTS if isinstance(label[0], str) else SCHEMA
    found = check(split, schema, label=label, settings={"classes": classes})
    assert len(found) == bool(words)
    assert all(words in f.what for f in found)
    assert all("features.label.classes" in f.todo for f in found if classes)


@pytest.mark.parametrize("name", ["net.price", "it's", "a b"])
def test_a_column_is_told_whatever_it_is_called(name: str) -> None:
    quoted = f'feature {{ name: "{name}" type: INT int_domain {{ min: 0 max: 10 }} }}'
    (finding,) = check(schema=SCHEMA + quoted, **{name: [5] * 98 + [99] * 2})
    assert finding.feature == name
    (missing,) = check(
        schema=SCHEMA + quoted, settings={"required": [name]}, **{name: [5] * 99 + [None]}
    )
    assert (missing.feature, missing.type) == (name, "required_value_missing")


@pytest.mark.parametrize(("split", "stops"), [("train", False), ("test", True)])
def test_bridged_rows_are_trained_on_and_not_tested_on(split: str, stops: bool) -> None:
    marked = SCHEMA + 'feature { name: "made_up" type: INT }'
    settings = {"bridged": ["made_up"]}
    found = check(split, marked, made_up=[0, 0, 0, 1] * 25, settings=settings)
    assert [f.type for f in found] == ["bridged_row"] * stops
    assert all("25 of 100 rows" in f.what and f.severity == "error" for f in found)
    assert not check(split, marked, made_up=[0] * 100, settings=settings)


def test_a_split_without_rows_is_an_error() -> None:
    empty = statistics_pb2.DatasetFeatureStatistics()
    (finding,) = findings("eval", empty, anomalies_pb2.Anomalies(), GateSettings())
    assert (finding.split, finding.type, finding.severity) == ("eval", "no_rows", "error")
