"""Files in, predictions out: formats, keys, bad rows, the query, and what stops before a start."""

import json
import logging
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import PipelineStop
from components.inference.prediction_log import LogSettings
from components.ingest.settings import CsvFormat, NamedTable, Query
from tests.components.batch_prediction import samples
from tests.components.batch_prediction.samples import predict, predicted


def test_predictions_are_those_of_callers_whatever_the_file(registry, tmp_path):
    table = samples.rows(150)
    for number, ending in enumerate(["csv", "csv.gz", "jsonl", "parquet", "csv"]):
        samples.write(
            tmp_path / "data" / f"{number}.{ending}", table[number * 30 : number * 30 + 30]
        )
    (tmp_path / "data" / "notes.md").write_text("not rows")
    result = predict(registry, tmp_path / "data", tmp_path / "out", key="id", version=2)
    samples.assert_each_once(tmp_path / "out", samples.expected(registry, 2, table))
    assert (result.rows, result.rejected, result.files, result.version) == (150, 0, 5, 2)


@pytest.mark.prove
def test_two_worker_processes_predict_each_row_once(registry, tmp_path):
    table = samples.rows(400)
    for number, ending in enumerate(["csv", "csv.gz", "parquet", "parquet"]):
        part = table[number * 100 : number * 100 + 100]
        samples.write(tmp_path / "data" / f"{number}.{ending}", part)
    flags = ["--runner=FnApiRunner", "--direct_running_mode=multi_processing"]
    flags += ["--direct_num_workers=2", "--no_pipeline_type_check"]
    result = predict(registry, tmp_path / "data" / "*", tmp_path / "out", flags, key="id")
    samples.assert_each_once(tmp_path / "out", samples.expected(registry, 1, table))
    assert (result.rows, result.rejected) == (400, 0)


def test_nulls_separators_and_encodings_hold_as_for_training(registry, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes('id;hour;fare;company\nä;7,0;NA;"x"\nö;7;1.234,5;y\n'.encode("latin-1"))
    with pytest.raises(PipelineStop, match=r"set data\.csv\.separator to ';'"):
        predict(registry, path, tmp_path / "out", key="id")
    form = CsvFormat(separator=";", encoding="latin-1", decimal=",", thousands=".")
    predict(registry, path, tmp_path / "out", key="id", csv=form)
    samples.assert_each_once(tmp_path / "out", {"ä": 108.0, "ö": 1341.5})


def test_without_a_key_rows_are_known_by_file_and_number(registry, tmp_path):
    table = samples.rows(90)
    samples.write(tmp_path / "data" / "x" / "a.csv", table[:50])
    samples.write(tmp_path / "data" / "y" / "a.parquet", table[50:])
    path = tmp_path / "data" / "x" / "b.csv"
    path.write_text("fare,hour\n0,1\n1\n0,3\n0,x\n0,5\n1,2,3\n0,7\n")
    predict(registry, tmp_path / "data" / "**", tmp_path / "out")
    keys = [f"x/a.csv:{n}" for n in range(1, 51)] + [f"y/a.parquet:{n}" for n in range(1, 41)]
    named = [{**row, "name": key} for row, key in zip(table, keys, strict=True)]
    others = {f"x/b.csv:{number}": float(number) for number in (1, 3, 5, 7)}
    wanted = samples.expected(registry, 1, named, "name")
    samples.assert_each_once(tmp_path / "out", wanted | others)


def test_the_columns_of_the_output(registry, tmp_path):
    table = [{**row, "id": n, "amount": 0.1 + n} for n, row in enumerate(samples.rows(50))]
    path = samples.write(tmp_path / "a.parquet", table)
    columns = ["company", "fare", "amount"]
    predict(registry, path, tmp_path / "out", key="id", columns=columns)
    found = pq.read_table(tmp_path / "out" / "predictions")
    assert {field.name: str(field.type) for field in found.schema} == {
        **{"key": "int64", "prediction": "float", "version": "int64"},
        **{"company": "string", "fare": "double", "amount": "double"},
    }
    for row in found.to_pylist():
        assert {name: row[name] for name in columns} == {n: table[row["key"]][n] for n in columns}


def test_the_key_is_the_feature_tables_and_of_csv_a_text(registry, tmp_path):
    folder = tmp_path / "registry" / "small"
    shutil.copytree(registry, folder)
    samples.set_config(folder, 1, {"features": {"key": "hour"}})
    (tmp_path / "a.csv").write_text("id,hour,company\na,07,x\nb,,x\nc,8,\n")
    result = predict(folder, tmp_path / "a.csv", tmp_path / "out", columns=["company"])
    assert (result.rows, result.rejected) == (2, 1)
    found = predicted(tmp_path / "out")
    assert [(row["key"], row["company"]) for row in found] == [("07", "x"), ("8", None)]


def test_classes_have_names_members_an_uncertainty_and_predictions_reasons(registry, tmp_path):
    folder = tmp_path / "registry" / "small"
    samples.add_members(folder)
    path = tmp_path / "a.csv"
    path.write_text("hour\n1\n5\n")
    predict(folder, path, tmp_path / "out", version=1, detail="uncertain")
    rows = predicted(tmp_path / "out")
    np.testing.assert_allclose(
        [row["prediction"] for row in rows], [[0.25, 0.25, 0.5], [0.625, 0.125, 0.25]]
    )
    assert [row["uncertainty"] for row in rows] == [[1.0] * 3, [5.0] * 3]
    assert [row["predicted_label"] for row in rows] == ["c", "a"]
    predict(folder, path, tmp_path / "why", version=1, detail="explain")
    why = predicted(tmp_path / "why")
    assert [(row["attributions"], row["baseline"]) for row in why] == [
        ({"hour": 0.0}, 0.5),
        ({"hour": 0.125}, 0.5),
    ]
    with pytest.raises(PipelineStop, match="the network has one member"):
        predict(registry, path, tmp_path / "other", detail="uncertain")
    assert not (tmp_path / "other").exists()


def test_the_query_of_the_configuration_is_run_as_in_training(registry, tmp_path):
    """A derived column, a joined table, and no label in the files, though the query reads it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("id,minutes,zone\na,61,1\nb,x,1\nc,121,2\n")
    (tmp_path / "data" / "b.csv").write_text("zone,id,minutes\n2,d,NA\n1,e,180\n")
    (tmp_path / "zones.csv").write_text("zone,company\n1,x\n2,y\n")
    sql = (
        "SELECT id, minutes // 60 AS hour, company, tips > 1 AS tipped, 0.5 AS fare "
        "FROM rows LEFT JOIN zones USING (zone)"
    )
    tables = {"zones": NamedTable(files=[str(tmp_path / "zones.csv")])}
    query = Query(sql=sql, columns={"tips": "FLOAT"}, tables=tables)
    types = {"minutes": "INT", "zone": "INT"}
    predict(registry, tmp_path / "data", tmp_path / "out", key="id", query=query, types=types)
    samples.assert_each_once(tmp_path / "out", {"a": 101.5, "c": 102.5, "e": 103.5})
    told = [reason for row in samples.rejected(tmp_path / "out") for reason in row["reasons"]]
    assert told == [
        "column 'minutes': 'x' is not a whole number (INT)",
        "column 'hour': is empty, but must be filled",
    ]
    (tmp_path / "zones.csv").write_text("zone,company\n1,y\n2,y\n3,x\n")
    with pytest.raises(PipelineStop, match=r"changed input files: .*zones\.csv"):
        predict(registry, tmp_path / "data", tmp_path / "out", key="id", query=query, types=types)


def test_a_query_over_a_span_sees_all_files(registry, tmp_path):
    (tmp_path / "a.csv").write_text("id,hour\na,1\nb,2\n")
    (tmp_path / "b.csv").write_text("id,hour\nc,3\n")
    sql = (
        "SELECT id, (sum(hour) OVER (ORDER BY id))::INT AS hour, 0 AS fare, '' AS company FROM rows"
    )
    query = Query(sql=sql, over="span")
    predict(registry, tmp_path / "*.csv", tmp_path / "o" / "out", key="id", query=query)
    samples.assert_each_once(tmp_path / "o" / "out", {"a": 1.0, "b": 3.0, "c": 6.0})


def test_bad_rows_are_set_aside_with_reasons(registry, tmp_path):
    """What is bad is the reader's to say, and tested with it."""
    table = samples.rows(80)
    table[5]["hour"], table[60]["fare"], table[61]["id"] = None, 1e300, None
    samples.write(tmp_path / "in" / "a.parquet", table)
    text = "id,fare,hour,company\nk1,1.5,3,x\nk2,abc,3,x\nk4,1\nk7,1,3.5,x\nk9,2,4,y\n"
    (tmp_path / "in" / "b.csv").write_text(text)
    result = predict(registry, tmp_path / "in", tmp_path / "out", key="id")
    assert (result.rows, result.rejected) == (79, 6)
    good = [row for number, row in enumerate(table) if number not in (5, 60, 61)]
    wanted = samples.expected(registry, 1, good) | {"k1": 104.5, "k9": 106.0}
    samples.assert_each_once(tmp_path / "out", wanted)
    *of_parquet, first, second, third = samples.rejected(tmp_path / "out")
    assert [(row["row"], json.loads(row["raw"])["id"]) for row in of_parquet] == [
        *((6, table[5]["id"]), (61, table[60]["id"]), (62, None)),
    ]
    assert {first["file"], second["file"]} == {str(tmp_path / "in" / "b.csv")}
    assert [(row["line"], row["raw"], row["reasons"]) for row in (first, second, third)] == [
        (3, "k2,abc,3,x", ["column 'fare': 'abc' is not a number (FLOAT)"]),
        (4, "k4,1", ["2 fields, the header has 4"]),
        (5, "k7,1,3.5,x", ["column 'hour': '3.5' is not a whole number (INT)"]),
    ]


def test_files_in_which_no_row_is_good_or_there_are_none(registry, tmp_path):
    (tmp_path / "a.csv").write_text("fare,hour\n1,x\n2,y\n3\n")
    (tmp_path / "b.csv").write_text("fare,hour\n")
    pq.write_table(pa.table({"hour": pa.array([], pa.int64())}), tmp_path / "c.parquet")
    result = predict(registry, tmp_path / "*", tmp_path / "elsewhere" / "out")
    assert (result.rows, result.rejected, result.files) == (0, 3, 3)
    assert pq.read_table(tmp_path / "elsewhere" / "out" / "predictions").num_rows == 0


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
    ("header", "options", "told"),
    [
        ("hour", {"key": "nokey"}, "missing: nokey"),
        ("hour", {"columns": ["nocolumn"]}, "missing: nocolumn"),
        ("hour,version", {"columns": ["version"]}, "--columns has version"),
        ("hour", {"version": "nobody"}, "no version or label 'nobody'"),
        ("hour,far", {}, "no column 'far'; did you mean 'fare'"),
        ("fare", {}, "missing: hour"),
        ("hour", {"query": Query(sql="SELECT tip AS hour FROM rows")}, '"tip" not found'),
        ("hour", {"query": Query(sql="SELECT 1 AS hours")}, "missing: hour"),
    ],
)
def test_a_mistake_stops_before_anything_is_written(registry, tmp_path, header, options, told):
    (tmp_path / "a.csv").write_text(f"{header}\n1{',1' * header.count(',')}\n")
    with pytest.raises(PipelineStop, match=told):
        predict(registry, tmp_path / "a.csv", tmp_path / "out", **options)
    assert [found.name for found in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize(
    ("columns", "pattern", "output", "told"),
    [
        ({"hour": ["3"], "fare": [[1.0]]}, "a.parquet", "out", "column 'fare' is DOUBLE"),
        ({"hour": [3], "id": [1.5]}, "a.parquet", "out", "the key 'id' is DOUBLE, and must be a"),
        ({"hour": [3]}, "a.parquet", ".", r"below --output .*\. Write the predictions elsewhere"),
        ({"hour": [3]}, "*.csv", "out", "No file matches"),
    ],
)
def test_types_that_cannot_fit_and_files_that_cannot_be_the_input(
    registry, tmp_path, columns, pattern, output, told
):
    pq.write_table(pa.table({"id": ["a"]} | columns), tmp_path / "a.parquet")
    with pytest.raises(PipelineStop, match=told):
        predict(registry, tmp_path / pattern, tmp_path / output, key="id")


def test_the_log_has_the_same_rows_and_a_rerun_does_not_add_to_it(registry, tmp_path):
    table = samples.rows(100)
    samples.write(tmp_path / "data" / "a.parquet", table[:60])
    samples.write(tmp_path / "data" / "b.parquet", table[60:])
    log = {"log": LogSettings(enabled=True, exclude=["company"]), "log_folder": f"{tmp_path}/log"}
    for _ in range(2):
        predict(registry, tmp_path / "data", tmp_path / "out", key="id", **log)
        for lost in ("_SUCCESS", "predictions/part-00001.parquet"):
            (tmp_path / "out" / lost).unlink()
    files = [*tmp_path.glob("log/small/*/*.parquet")]
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert (len(files), len(rows), {row["version"] for row in rows}) == (2, 100, {1})
    wanted = samples.expected(registry, 1, table)
    assert {row["key"]: row["prediction"] for row in rows} == {
        key: [pytest.approx(value)] for key, value in wanted.items()
    }
    assert {*rows[0]["features"]} == {"fare", "hour"}
