"""The generated preprocessing_fn, run by tf.Transform on Beam and compared with plain Python."""

import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_transform.tf_metadata import dataset_metadata

from components.features.analysis import (
    VocabularyPlan,
    _Count,
    _merged,
    _moments,
    vocabularies,
)
from components.features.model_inputs import model_inputs
from components.features.table import FeatureTable
from components.features.transform import LABEL, preprocessing_fn
from tests import small

TYPES = {"hour": tf.int64, "when": tf.int64, "bought": tf.int64, "shop": tf.string}
TYPES["method"] = tf.string
ROWS = small.rows(700)


def _instances(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {k: [np.array(v, _dtype(k)).item()] if v != "" else [] for k, v in row.items()}
        for row in rows
    ]


def _dtype(column: str) -> Any:
    kind = TYPES.get(column, tf.float32)
    return object if kind == tf.string else kind.as_numpy_dtype


def _transformed(table: FeatureTable, folder: Path) -> tuple[dict[str, Any], tft.TFTransformOutput]:
    spec = {c: tf.io.VarLenFeature(TYPES.get(c, tf.float32)) for c in small.COLUMNS}
    metadata = dataset_metadata.DatasetMetadata.from_feature_spec(spec)
    config = {"table": table.model_dump(mode="json")}
    options = PipelineOptions(["--runner=FnApiRunner", "--direct_running_mode=in_memory"])
    with beam.Pipeline(options=options) as pipeline, tft_beam.Context(str(folder / "tmp")):
        raw = pipeline | beam.Create(_instances(ROWS), reshuffle=False), metadata
        function = raw | tft_beam.AnalyzeDataset(lambda inputs: preprocessing_fn(inputs, config))
        _ = function | tft_beam.WriteTransformFn(str(folder))
    output = tft.TFTransformOutput(str(folder))
    sparse = {name: _sparse(name) for name in small.COLUMNS}
    features = output.transform_features_layer()(sparse)
    return {name: tensor.numpy() for name, tensor in features.items()}, output


def _sparse(name: str) -> tf.SparseTensor:
    values = [row[name] for row in ROWS]
    present = [i for i, value in enumerate(values) if value != ""]
    dtype = TYPES.get(name, tf.float32)
    kept = tf.constant([values[i] for i in present], dtype)
    return tf.SparseTensor([[i, 0] for i in present], kept, [len(values), 1])


@pytest.fixture(scope="module")
def table() -> FeatureTable:
    return FeatureTable.model_validate(small.SETTINGS["features"])


@pytest.fixture(scope="module")
def output(table: FeatureTable, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return _transformed(table, tmp_path_factory.mktemp("transform"))


def test_numeric_is_standardised_and_its_gaps_are_the_mean(output: Any) -> None:
    values = [r["amount"] for r in ROWS if r["amount"] != ""]
    mean, deviation = statistics.fmean(values), statistics.pstdev(values)
    expected = [(r["amount"] - mean) / deviation if r["amount"] != "" else 0.0 for r in ROWS]
    np.testing.assert_allclose(output[0]["amount"], expected, atol=1e-4)


def test_minmax_spans_zero_to_one(output: Any) -> None:
    assert output[0]["weight"].min() == 0
    assert output[0]["weight"].max() == 1


def test_buckets_are_equally_full_and_missing_is_its_own(output: Any) -> None:
    ids = output[0]["amount_range"]
    missing = [r["amount"] == "" for r in ROWS]
    np.testing.assert_array_equal(ids == 0, missing)
    counts = Counter(ids[ids > 0].tolist())
    assert sorted(counts) == [1, 2, 3, 4]
    assert max(counts.values()) - min(counts.values()) <= 0.1 * len(ROWS)


def test_boundaries_are_the_starts_of_intervals(output: Any) -> None:
    expected = [int(np.searchsorted([6, 12, 18], r["hour"], side="right")) for r in ROWS]
    np.testing.assert_array_equal(output[0]["hour"], expected)


def test_vocabulary_ids_follow_frequency(output: Any) -> None:
    order = [v for v, _ in Counter(r["method"] for r in ROWS if r["method"]).most_common()]
    expected = [order.index(r["method"]) + 1 if r["method"] else 0 for r in ROWS]
    np.testing.assert_array_equal(output[0]["method"], expected)


def test_hash_is_stable_within_its_buckets(output: Any) -> None:
    by_shop: dict[str, set[int]] = {}
    for row, identity in zip(ROWS, output[0]["shop"], strict=True):
        by_shop.setdefault(row["shop"], set()).add(int(identity))
    assert all(len(ids) == 1 for ids in by_shop.values())
    assert {min(i) for i in by_shop.values()} <= set(range(1, 9))


def test_cross_depends_on_both_parts_alone(output: Any) -> None:
    features = output[0]
    seen: dict[tuple[int, int], set[int]] = {}
    for a, b, cross in zip(
        features["method"], features["amount_range"], features["method_by_range"], strict=True
    ):
        seen.setdefault((int(a), int(b)), set()).add(int(cross))
    assert all(len(ids) == 1 for ids in seen.values())
    assert len({min(ids) for ids in seen.values()}) > 5


def test_label_is_passed_on(output: Any) -> None:
    np.testing.assert_array_equal(output[0][LABEL], [r["bought"] for r in ROWS])


def test_no_excluded_column_reaches_the_model(output: Any, table: FeatureTable) -> None:
    assert set(output[0]) == {*table.columns, *table.crosses, LABEL}
    assert not set(table.raw_columns()) & set(table.exclude)


def test_feature_spec_bounds_every_id(output: Any, table: FeatureTable) -> None:
    features, transformed = output
    spec = model_inputs(table, transformed)
    sizes = {f["name"]: f["size"] for f in spec["features"]}
    assert sizes["amount"] is None
    assert sizes["hour"] == 4
    assert sizes["method"] == 3 + 1 + 1
    for name, size in sizes.items():
        assert size is None or features[name].max() < size


def test_classes_dates_and_untidy_texts_become_their_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row | {"shop": row["shop"].upper() + " " * (n % 2)} for n, row in enumerate(ROWS)]
    monkeypatch.setattr(sys.modules[__name__], "ROWS", [*ROWS, *rows])
    settings = small.SETTINGS["features"] | {
        "problem": "multiclass",
        "label": {"column": "method", "classes": ["cheque", "card", "cash"]},
        "columns": {
            "hour": {"kind": "numeric", "missing": "error"},
            "day": {
                **{"column": "when", "kind": "date", "part": "weekday", "format": "seconds"},
                "missing": "own",
            },
            "noon": {"column": "method", "kind": "date", "part": "hour", "missing": "own"},
            "shop": {"kind": "vocabulary", "tidy": True, "missing": "own"},
        },
        "crosses": {},
        "exclude": {},
    }
    features, output = _transformed(FeatureTable.model_validate(settings), tmp_path)
    index = {"cheque": 0, "card": 1, "cash": 2, "": -1}
    np.testing.assert_array_equal(features[LABEL], [index[r["method"]] for r in ROWS])
    assert set(features["day"]) == {7, 1}  # a Sunday, and the first minutes after it
    assert set(features["noon"]) == {0}  # no text of it is a date
    assert output.vocabulary_size_by_name("shop") == 30
    np.testing.assert_array_equal(*np.split(features["shop"], 2))


@given(st.lists(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan"))), min_size=2, max_size=4))
def test_merged_moments_equal_those_of_all_rows(parts: list[list[float]]) -> None:
    arrays = [np.array(part, dtype=np.float64)[:, None] for part in parts]
    whole = _moments(np.concatenate(arrays))
    merged = _moments(arrays[0])
    for array in arrays[1:]:
        merged = _merged(merged, _moments(array))
    np.testing.assert_allclose(merged, whole, rtol=1e-9, atol=1e-2)


CUTS = [
    (VocabularyPlan("v", None, None), [b"b", b"a", b"c"]),
    (VocabularyPlan("v", 2, None), [b"b", b"a"]),
    (VocabularyPlan("v", None, 2), [b"b", b"a"]),
    (VocabularyPlan("v", 5, 99), [b"\x00"]),
]


def test_vocabularies_are_cut_as_planned_whatever_a_worker_can_hold(tmp_path: Path) -> None:
    column = [b"a"] * 2 + [b"b"] * 3 + [b"c"] + [b"", b"x\ny"] * 9
    batches = [[np.array([value], object)] * len(CUTS) for value in column]
    for most in (0, 1000):
        count = _Count(len(CUTS), str(tmp_path), most)
        count.start_bundle()
        counted = [path for batch in batches for path in count.process(batch)]
        counted += [windowed.value for windowed in count.finish_bundle()]
        assert len(counted) == (1 if most else len(batches) + 1)
        found = [*vocabularies(counted, [plan for plan, _ in CUTS])]
        for number, (_, expected) in enumerate(CUTS):
            assert [value for of, value in found if of == number] == expected


def test_quantile_edges_are_different_values_though_most_rows_share_one(tmp_path: Path) -> None:
    numeric = {"kind": "numeric", "scale": "quantile", "missing": "own"}
    columns = {"hour": numeric | {"bins": 4}, "amount": numeric, "leak": numeric | {"bins": 2}}
    table = FeatureTable.model_validate(small.SETTINGS["features"] | {"columns": columns, **_ALONE})
    output, transformed = _transformed(table, tmp_path)
    hours = np.array([row["hour"] for row in ROWS])
    edges = np.unique(hours)[np.round(np.linspace(0, 23, 5)).astype(int)]
    np.testing.assert_allclose(output["hour"], np.interp(hours, edges, range(5)), atol=1e-6)
    missing = np.array([row["amount"] == "" for row in ROWS])
    np.testing.assert_array_equal(output["amount"] == -1, missing)
    assert output["amount"].max() == 48
    spec = model_inputs(table, transformed)["features"]
    assert [(f["name"], f["bins"]) for f in spec] == [("hour", 4), ("amount", 48), ("leak", 2)]


_ALONE: dict[str, Any] = {"crosses": {}, "exclude": {"when": "time"}}
