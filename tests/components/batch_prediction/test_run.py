import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.batch_prediction.job import Options
from components.batch_prediction.run import Result, run
from components.errors import PipelineStop
from components.inference.prediction_log import LogSettings
from components.ingest.settings import CsvFormat
from tests.components.batch_prediction import samples


def predict(registry: Path, pattern: Path, output: Path, **options: Any) -> Result:
    return run(Options(str(pattern), str(output), **options), str(registry), samples.FLAGS)


@pytest.fixture
def small_blocks(monkeypatch):
    samples.set_block(monkeypatch, 37)


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
@pytest.mark.parametrize("block", [7, 100, 10_000])
def test_predictions_are_those_of_callers_whatever_the_file_and_the_block(
    registry, tmp_path, monkeypatch, ending, block
):
    samples.set_block(monkeypatch, block)
    table = samples.rows(250)
    samples.write(tmp_path / "data" / f"a.{ending}", table[:180])
    samples.write(tmp_path / "data" / f"b.{ending}", table[180:])
    result = predict(registry, tmp_path / "data" / "*", tmp_path / "out", key="id", version=2)
    wanted = samples.expected(registry, 2, table)
    if "csv" in ending:  # CSV has no types
        wanted = {str(key): value for key, value in wanted.items()}
    samples.assert_each_once(tmp_path / "out", wanted)
    assert (result.rows, result.rejected, result.files, result.version) == (250, 0, 2, 2)
    shards = -(-180 // block) + -(-70 // block)
    assert len([*(tmp_path / "out" / "predictions").iterdir()]) == shards


def test_files_of_another_form(registry, tmp_path):
    table = [{**row, "id": f"ä{row['id']}"} for row in samples.rows(50)]
    form = CsvFormat(separator=";", encoding="latin-1")
    path = tmp_path / "a.csv"
    path.write_bytes(samples.as_csv(table, ";").encode("latin-1"))
    with pytest.raises(PipelineStop, match=r"set data\.csv\.separator to ';'"):
        predict(registry, path, tmp_path / "out", key="id")
    predict(registry, path, tmp_path / "out", key="id", csv=form)
    samples.assert_each_once(tmp_path / "out", samples.expected(registry, 1, table))
    with pytest.raises(PipelineStop, match=r"data\.csv is '\|' in utf-8, and was ';' in latin-1"):
        predict(registry, path, tmp_path / "out", key="id", csv=CsvFormat(separator="|"))


def test_small_row_groups_in_several_items(registry, tmp_path, small_blocks):
    table = samples.rows(200)
    path = samples.write(tmp_path / "a.parquet", table, row_group_size=30)
    predict(registry, path, tmp_path / "out", key="id")
    samples.assert_each_once(tmp_path / "out", samples.expected(registry, 1, table))


def test_the_columns_of_the_output(registry, tmp_path):
    table = [{**row, "extra": None} for row in samples.rows(50)]
    path = samples.write(tmp_path / "a.csv", table)
    predict(registry, path, tmp_path / "out", key="id", columns=["company", "fare", "extra"])
    found = pq.read_table(tmp_path / "out" / "predictions")
    assert {field.name: str(field.type) for field in found.schema} == {
        "key": "string",
        "prediction": "float",
        "version": "int64",
        "company": "string",
        "fare": "string",
        "extra": "string",
    }
    by_key = {str(row["id"]): row for row in table}
    for row in found.to_pylist():
        came = by_key[row["key"]]
        assert row["company"] == came["company"]
        assert row["fare"] == (None if came["fare"] is None else str(came["fare"]))
    assert {*found["version"].to_pylist()} == {1}


def test_jsonl_has_the_same_rows_as_parquet(registry, tmp_path, small_blocks):
    path = samples.write(tmp_path / "a.parquet", samples.rows(100))
    for kind in ("parquet", "jsonl"):
        columns = ["company", "hour"]
        predict(registry, path, tmp_path / kind, key="id", columns=columns, format=kind)
    one, other = (samples.predicted(tmp_path / kind) for kind in ("parquet", "jsonl"))
    values = [[row.pop("prediction") for row in rows] for rows in (one, other)]
    np.testing.assert_allclose(*values, rtol=1e-6)
    assert one == other


def test_without_a_key_rows_are_known_by_file_and_number(registry, tmp_path, small_blocks):
    table = samples.rows(90)
    samples.write(tmp_path / "data" / "x" / "a.csv", table[:50])
    samples.write(tmp_path / "data" / "y" / "a.parquet", table[50:])
    predict(registry, tmp_path / "data" / "**", tmp_path / "out")
    keys = [f"x/a.csv:{n}" for n in range(1, 51)] + [f"y/a.parquet:{n}" for n in range(1, 41)]
    named = [{**row, "name": key} for row, key in zip(table, keys, strict=True)]
    samples.assert_each_once(tmp_path / "out", samples.expected(registry, 1, named, "name"))


def test_the_key_is_the_feature_tables_unless_another_is_named(tmp_path):
    registry = tmp_path / "registry" / "small"
    samples.add_version(registry, 1.0, key="id")
    table = [{**row, "hour": n % 24} for n, row in enumerate(samples.rows(20))]
    path = samples.write(tmp_path / "a.parquet", table)
    predict(registry, path, tmp_path / "out", version=1)
    samples.assert_each_once(tmp_path / "out", samples.expected(registry, 1, table))
    predict(registry, path, tmp_path / "other", version=1, key="hour")
    found = samples.predicted(tmp_path / "other")
    assert sorted(row["key"] for row in found) == [*range(20)]


def test_several_classes_are_a_list_in_class_order(tmp_path):
    registry = tmp_path / "registry" / "small"
    samples.add_multiclass(registry)
    path = tmp_path / "a.csv"
    path.write_text("hour\n1\n5\n")
    predict(registry, path, tmp_path / "out", version=1)
    rows = samples.predicted(tmp_path / "out")
    found = [row["prediction"] for row in rows]
    np.testing.assert_allclose(found, [[0.25, 0.25, 0.5], [0.625, 0.125, 0.25]])
    assert [row["predicted_label"] for row in rows] == ["c", "a"]


_BAD = """id,fare,hour,company
k1,1.5,3,x
k2,abc,3,x
k3,1,,x
k4,1
k5,nan,7.0,
,1,1,x
k7,1e39,3.5,x
k8,2,4,y,z
k9,2,4,y
"""


@pytest.mark.parametrize("block", [1, 4, 1000])
def test_bad_rows_of_csv_are_set_aside_with_reasons(registry, tmp_path, monkeypatch, block):
    samples.set_block(monkeypatch, block)
    path = tmp_path / "a.csv"
    path.write_text(_BAD)
    result = predict(registry, path, tmp_path / "out", key="id")
    assert (result.rows, result.rejected) == (3, 6)
    samples.assert_each_once(tmp_path / "out", {"k1": 104.5, "k5": 8.0, "k9": 6.0})
    found = samples.rejected(tmp_path / "out")
    assert {row["file"] for row in found} == {str(path)}
    assert [(row["row"], row["key"], row["reasons"]) for row in found] == [
        (2, "k2", ["'fare' must be a number, got 'abc'"]),
        (3, "k3", ["'hour' is required (an integer)"]),
        (4, None, ["it has 2 fields, and the header has 4"]),
        (6, None, ["the key 'id' is missing"]),
        (7, "k7", ["'fare' must be a number, got '1e39'", "'hour' must be an integer, got '3.5'"]),
        (8, None, ["it has 5 fields, and the header has 4"]),
    ]
    assert found[0]["columns"] == {"id": "k2", "fare": "abc", "hour": "3", "company": "x"}
    assert found[2]["text"] == "k4,1"


def test_bad_rows_of_parquet_are_set_aside(registry, tmp_path, small_blocks):
    table = samples.rows(80)
    table[5]["hour"], table[60]["fare"], table[61]["id"] = None, 1e300, None
    path = samples.write(tmp_path / "a.parquet", table)
    predict(registry, path, tmp_path / "out", key="id")
    found = samples.rejected(tmp_path / "out")
    assert [(row["row"], row["key"], row["reasons"]) for row in found] == [
        (6, table[5]["id"], ["'hour' is required (an integer)"]),
        (61, table[60]["id"], ["'fare' must be a number, got 1e+300"]),
        (62, None, ["the key 'id' is missing"]),
    ]
    good = [row for number, row in enumerate(table) if number not in (5, 60, 61)]
    samples.assert_each_once(tmp_path / "out", samples.expected(registry, 1, good))


def test_bytes_that_are_no_text_are_bad_wherever_they_are_written(registry, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,hour,note\na,1,x\n\xff,1,x\nc,1,\xff\nd,1,\xff,y\n")
    result = predict(registry, path, tmp_path / "out", key="id", columns=["note"])
    assert result.rows == 1
    rejected = samples.rejected(tmp_path / "out")
    assert [row["reasons"] for row in rejected] == [
        ["'id' must be UTF-8"],
        ["'note' must be UTF-8"],
        ["it has 4 fields, and the header has 3"],
    ]
    assert r"d,1,\xff,y" in json.dumps(rejected[2]).replace("\\\\", "\\")


def test_a_file_in_which_no_row_is_good(registry, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("fare,hour\n1,x\n2,y\n3\n")
    result = predict(registry, path, tmp_path / "out")
    assert (result.rows, result.rejected) == (0, 3)
    assert pq.read_table(tmp_path / "out" / "predictions").num_rows == 0


def test_files_without_rows(registry, tmp_path):
    (tmp_path / "a.csv").write_text("fare,hour\n")
    pq.write_table(pa.table({"hour": pa.array([], pa.int64())}), tmp_path / "b.parquet")
    result = predict(registry, tmp_path / "*", tmp_path / "elsewhere" / "out")
    assert (result.rows, result.rejected, result.files) == (0, 0, 2)


def test_unknown_columns_are_ignored_and_a_missing_one_is_told_once(registry, tmp_path, caplog):
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("color,hour,tips,fare\nred,3,1,2\n")
    with caplog.at_level(logging.INFO, "progress"):
        predict(registry, tmp_path / "*.csv", tmp_path / "out")
    samples.assert_each_once(tmp_path / "out", {"a.csv:1": 5.0, "b.csv:1": 5.0})
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [warning for warning in warnings if "company" in warning] == [
        f"column 'company' is not in {tmp_path}/a.csv, {tmp_path}/b.csv; it counts as missing"
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"key": "nokey"}, "no column 'nokey', and it is the key"),
        ({"columns": ["nocolumn"]}, "no column 'nocolumn', and --columns asks for it"),
        ({"columns": ["version"]}, "--columns has version"),
        ({"version": "nobody"}, "no version or label 'nobody'"),
        ({"format": "csv"}, "--format is 'csv'; it can be parquet or jsonl"),
    ],
)
def test_a_mistake_stops_before_anything_is_written(registry, tmp_path, options, told):
    path = samples.write(tmp_path / "a.csv", [{**samples.rows(1)[0], "version": "x"}])
    with pytest.raises(PipelineStop, match=told):
        predict(registry, path, tmp_path / "out", **options)
    assert [found.name for found in tmp_path.iterdir()] == ["a.csv"]


def test_a_damaged_version_and_a_damaged_file_are_told_in_one_message(tmp_path):
    registry = tmp_path / "registry" / "small"
    samples.add_version(registry, 1.0)
    (registry / "1" / "saved_model.pb").write_bytes(b"damaged")
    path = samples.write(tmp_path / "a.csv", samples.rows(3))
    with pytest.raises(PipelineStop, match=r"1 cannot be loaded"):
        predict(registry, path, tmp_path / "out", version=1)
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_the_log_has_the_same_rows_and_a_rerun_does_not_add_to_it(registry, tmp_path, small_blocks):
    table = samples.rows(100)
    path = samples.write(tmp_path / "a.parquet", table)
    options = Options(str(path), str(tmp_path / "out"), key="id")
    log = LogSettings(enabled=True, exclude=["company"])
    for _ in range(2):
        run(options, str(registry), samples.FLAGS, log, str(tmp_path / "log"))
        for lost in ("_SUCCESS", "predictions/part-00000-000000000038.parquet"):
            (tmp_path / "out" / lost).unlink()
    files = [*tmp_path.glob("log/small/*/*.parquet")]
    assert len(files) == 3
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert {row["version"] for row in rows} == {1}
    wanted = samples.expected(registry, 1, table)
    assert {int(row["key"]): row["prediction"] for row in rows} == {
        key: [pytest.approx(value)] for key, value in wanted.items()
    }
    assert len(rows) == 100
    assert {*rows[0]["features"]} == {"fare", "hour"}


def test_two_worker_processes_predict_each_row_once(registry, tmp_path):
    table = [{**row, "id": f"k{row['id']}"} for row in samples.rows(400)]
    for number, ending in enumerate(["csv", "csv.gz", "parquet", "parquet"]):
        part = table[number * 100 : number * 100 + 100]
        samples.write(tmp_path / "data" / f"{number}.{ending}", part)
    flags = ["--runner=FnApiRunner", "--direct_running_mode=multi_processing"]
    flags += ["--direct_num_workers=2", "--no_pipeline_type_check"]
    options = Options(f"{tmp_path}/data/*", str(tmp_path / "out"), key="id")
    result = run(options, str(registry), flags)
    samples.assert_each_once(tmp_path / "out", samples.expected(registry, 1, table))
    assert (result.rows, result.rejected) == (400, 0)


def test_the_job_file_says_what_was_done(registry, tmp_path):
    path = samples.write(tmp_path / "a.csv", samples.rows(10))
    predict(registry, path, tmp_path / "out", key="id", columns=["hour"])
    job = json.loads((tmp_path / "out" / "job.json").read_text())
    assert (job["version"], job["key"], job["columns"]) == (1, "id", ["hour"])
    assert [(file["path"], file["size"]) for file in job["files"]] == [
        (str(path), path.stat().st_size)
    ]
    counts = json.loads((tmp_path / "out" / "_SUCCESS").read_text())
    assert counts == {"rows": 10, "rejected": 0}
