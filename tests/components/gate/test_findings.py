"""Real statistics and a real schema, and what the gate makes of TFDV's anomalies."""

import re
from typing import Any

import pyarrow as pa
import pytest
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_data_validation.statistics import stats_impl, stats_options
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from components.gate.findings import Finding, GateSettings, SplitCheck, stop_message

TYPES = {"pay": pa.large_binary(), "n": pa.int64(), "fare": pa.float32(), "label": pa.int64()}

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


def statistics(schema: schema_pb2.Schema, columns: dict[str, list[Any]]) -> Any:
    arrays = [
        pa.array([None if v is None else [v] for v in values], pa.large_list(kind(name, values)))
        for name, values in columns.items()
    ]
    batch = pa.RecordBatch.from_arrays(arrays, list(columns))
    options = stats_options.StatsOptions(schema=schema)
    return stats_impl.generate_statistics_in_memory(batch, options)


def kind(name: str, values: list[Any]) -> pa.DataType:
    if isinstance(next((v for v in values if v is not None), None), str):
        return pa.large_binary()
    return TYPES.get(name, pa.int64())


def check(split: str = "train", schema: str = SCHEMA, **changes: Any) -> list[Finding]:
    """What is found when columns of the good data are changed; None takes a column out."""
    settings = GateSettings(
        schema_file="taxi.schema.pbtxt", label="label", **changes.pop("settings", {})
    )
    expected = text_format.Parse(schema, schema_pb2.Schema())
    columns = {n: c for n, c in {**GOOD, **changes}.items() if c is not None}
    found = statistics(expected, columns)
    anomalies = tfdv.validate_statistics(found, expected)
    return SplitCheck(split, found.datasets[0], anomalies, expected, settings).findings()


@pytest.mark.parametrize(
    ("changes", "feature", "kind", "rows", "edit"),
    [
        (
            {"pay": ["Cash", "Gold"] * 50},
            *("pay", "ENUM_TYPE_UNEXPECTED_STRING_VALUES", "50 of 100 rows"),
            "add the values to its domain",
        ),
        (
            {"pay": ["Cash"] * 40 + [None] * 60},
            *("pay", "FEATURE_TYPE_LOW_FRACTION_PRESENT", "60 of 100 rows"),
            "lower its presence.min_fraction",
        ),
        ({"pay": None}, "pay", "SCHEMA_MISSING_COLUMN", "100 of 100 rows", "remove its entry"),
        ({"new": [1] * 100}, "new", "SCHEMA_NEW_COLUMN", "100 of 100 rows", "add an entry for it"),
        (
            {"fare": ["a"] * 90 + [None] * 10},
            *("fare", "UNEXPECTED_DATA_TYPE", "90 of 100 rows", "change its type"),
        ),
        (
            {"n": [3] * 70 + [50] * 30},
            *("n", "INT_TYPE_BIG_INT", "about 30 of 100 rows", "raise its int_domain.max"),
        ),
        (
            {"fare": [2.0] * 80 + [-2.0] * 20},
            *("fare", "FLOAT_TYPE_SMALL_FLOAT", "about 20 of 100 rows"),
            "lower its float_domain.min",
        ),
    ],
)
def test_an_anomaly_is_told_with_its_rows_and_what_to_do(
    changes: dict[str, Any], feature: str, kind: str, rows: str, edit: str
) -> None:
    finding = {finding.type: finding for finding in check(**changes)}[kind]
    assert (finding.feature, finding.rows) == (feature, rows)
    assert (finding.split, finding.severity) == ("train", "error")
    start = "Fix the data at its source; or, if this is as it should be, edit taxi.schema.pbtxt: "
    assert finding.todo.startswith(start + edit)


def test_good_data_has_no_findings() -> None:
    assert check() == []


def test_rows_out_of_range_are_counted_between_bounds_where_the_histograms_are_too_coarse() -> None:
    (finding,) = check(n=[n % 12 for n in range(100)])  # 8 of them are 11
    low, high = map(int, re.findall(r"\d+", finding.rows)[:2])
    assert low <= 8 <= high < 30


def test_one_row_out_of_range_is_never_no_row() -> None:
    (finding,) = check(fare=[2.0] * 99 + [-0.001])
    assert finding.rows == "about 1 of 100 rows"


def test_values_beyond_the_histogram_make_the_count_a_lower_bound() -> None:
    columns = {name: values * 50 for name, values in GOOD.items()}
    columns["pay"] = ["Cash"] * 2_000 + [f"odd {number}" for number in range(3_000)]
    (finding,) = check(**columns)
    number = re.fullmatch(r"at least (\d+) of 5000 rows", finding.rows)
    assert number and 900 < int(number[1]) <= 3_000


@pytest.mark.parametrize(
    ("settings", "severity"),
    [
        ({}, "error"),
        ({"tolerate": ["ENUM_TYPE_UNEXPECTED_STRING_VALUES"]}, "warning"),
        ({"tolerate": ["SCHEMA_NEW_COLUMN"]}, "error"),
        ({"stop_on": "warning"}, "error"),
        (
            {"stop_on": "warning", "tolerate": ["ENUM_TYPE_UNEXPECTED_STRING_VALUES"]},
            "warning",
        ),
    ],
)
def test_tolerated_anomalies_only_warn(settings: dict[str, Any], severity: str) -> None:
    (finding,) = check(pay=["Gold"] * 100, settings=settings)
    assert finding.severity == severity


@pytest.mark.parametrize(("stop_on", "severity"), [("error", "warning"), ("warning", "error")])
def test_tfdvs_warnings_stop_only_where_they_shall(stop_on: str, severity: str) -> None:
    expected = text_format.Parse(SCHEMA, schema_pb2.Schema())
    found = statistics(expected, {**GOOD, "pay": ["Gold"] * 100})
    anomalies = tfdv.validate_statistics(found, expected)
    anomalies.anomaly_info["pay"].severity = anomalies.anomaly_info["pay"].WARNING
    settings = GateSettings.model_validate({"stop_on": stop_on})
    (finding,) = SplitCheck("eval", found.datasets[0], anomalies, expected, settings).findings()
    assert finding.severity == severity


def test_a_missing_value_in_a_required_column_is_an_error_whatever_the_schema_says() -> None:
    settings = {"required": ["n", "pay"]}
    (finding,) = check(n=[None] * 3 + [4] * 97, settings=settings)
    assert (finding.feature, finding.type) == ("n", "required_value_missing")
    assert finding.rows == "3 of 100 rows"
    both = check(pay=None, n=[None] * 3 + [4] * 97, settings=settings)
    assert [(f.feature, f.type) for f in both] == [
        ("pay", "SCHEMA_MISSING_COLUMN"),  # told once, not twice
        ("n", "required_value_missing"),
    ]


@pytest.mark.parametrize(
    ("label", "split", "found"),
    [
        ([1] * 100, "train", True),
        ([1] * 100, "test", False),
        ([0] * 99 + [1], "train", False),
        (["yes"] * 100, "train", True),
        (["yes", "no"] * 50, "train", False),
    ],
)
def test_a_label_with_one_value_is_an_error_in_training(
    label: list[Any], split: str, found: bool
) -> None:
    schema = SCHEMA
    if isinstance(label[0], str):
        schema = schema.replace('"label" type: INT', '"label" type: BYTES')
    constant = [f for f in check(split, schema, label=label) if f.type == "constant_label"]
    assert [f.feature for f in constant] == ["label"] * found


@pytest.mark.parametrize(
    ("label", "classes", "what", "rows"),
    [
        ([1, 2] * 50, [0, 1], "none of the classes 0, 1: 1 to 2", "at least 1 of 100 rows"),
        (["a", "b"] * 49 + ["c"] * 2, ["a", "b"], "'a', 'b': 'c'", "at least 2 of 100 rows"),
        ([0, 1] * 50, [0, 1], None, None),
        (["a", "b"] * 50, ["a", "b", "seldom"], None, None),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_label_that_is_no_class_is_an_error_in_every_split(
    label: list[Any], classes: list[Any], what: str | None, rows: str | None, split: str
) -> None:
    schema = SCHEMA
    if isinstance(label[0], str):
        schema = schema.replace('"label" type: INT', '"label" type: BYTES')
    found = check(split, schema, label=label, settings={"classes": classes})
    found = [f for f in found if f.type == "unknown_class"]
    assert len(found) == (what is not None)
    for finding in found:
        assert what in finding.what
        assert finding.rows == rows
        assert "features.label.classes" in finding.todo


@pytest.mark.parametrize("name", ["net.price", "it's", "a b"])
def test_rows_are_counted_whatever_the_column_is_called(name: str) -> None:
    quoted = f'feature {{ name: "{name}" type: INT int_domain {{ min: 0 max: 10 }} }}'
    (finding,) = check(schema=SCHEMA + quoted, **{name: [5] * 98 + [99] * 2})
    assert finding.feature == name
    assert "2 of 100 rows" in finding.rows


def test_a_split_without_rows_is_an_error() -> None:
    empty = statistics_pb2.DatasetFeatureStatistics()
    check = SplitCheck(
        "eval", empty, anomalies_pb2.Anomalies(), schema_pb2.Schema(), GateSettings()
    )
    (finding,) = check.findings()
    assert (finding.split, finding.type, finding.severity) == ("eval", "no_rows", "error")


def test_an_anomaly_of_the_whole_data_set_is_told() -> None:
    (finding,) = check(schema=SCHEMA + "dataset_constraints { min_examples_count: 101 }")
    assert (finding.feature, finding.type) == ("", "DATASET_LOW_NUM_EXAMPLES")
    assert "edit taxi.schema.pbtxt: lower dataset_constraints" in finding.todo


def test_two_reasons_of_one_feature_are_two_findings() -> None:
    found = check(pay=["Gold"] * 40 + [None] * 60)
    assert {f.type for f in found} == {
        "FEATURE_TYPE_LOW_FRACTION_PRESENT",
        "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
    }


def test_the_message_tells_an_error_once_with_all_its_splits() -> None:
    errors = [*check("train", pay=["Gold"] * 100), *check("test", pay=["Cash", "Gold"] * 50)]
    assert stop_message(errors).splitlines() == [
        "The data does not pass the gate: 1 error(s).",
        "- pay (ENUM_TYPE_UNEXPECTED_STRING_VALUES): Examples contain values missing from the "
        "schema: Gold (~100%). [train: 100 of 100 rows; test: 50 of 100 rows]",
        "  Fix the data at its source; or, if this is as it should be, edit taxi.schema.pbtxt: "
        "add the values to its domain.",
    ]
