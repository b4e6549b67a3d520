"""Windowed Inference: the server's rows are put through the query as those of a span are."""

import random

import duckdb
import pandas as pd
import pytest

from components.inference.columns import InvalidRows
from components.ingest.settings import Query
from components.serving.recent import RecentRows

SQL = """SELECT storm, time, wind, avg(wind) OVER (PARTITION BY storm ORDER BY time::TIMESTAMP
RANGE BETWEEN INTERVAL 24 HOURS PRECEDING AND INTERVAL 1 HOUR PRECEDING) AS recent FROM rows"""
SIGNATURE = {
    "inputs": {"recent": {"type": "FLOAT", "required": False}},
    "ignored": ["storm", "time", "wind"],
    "problem": "regression",
    "classes": None,
}
TYPES = {"storm": "BYTES", "time": "BYTES", "wind": "INT", "recent": "FLOAT"}


def reader(most: int = 1_000) -> RecentRows:
    return RecentRows(Query(sql=SQL, over="span"), TYPES, ["storm", "time"], most)


def rows() -> pd.DataFrame:
    times = pd.date_range("2024-08-01", periods=20, freq="6h").strftime("%Y-%m-%d %H:%M")
    chance = random.Random(0)
    table = [
        {"storm": storm, "time": time, "wind": chance.randrange(20, 140)}
        for time in times
        for storm in ("Ana", "Bob")
    ]
    return pd.DataFrame(table)


def test_row_by_row_it_is_what_training_sees_and_no_row_sees_its_future() -> None:
    table, asked = rows(), reader()
    found = []
    for row in table.to_dict("records"):
        question = {**row, "wind": None}  # not known yet
        columns, _ = asked.read(SIGNATURE, {"instances": [question]})
        found.append(float(columns["recent"][0]))
        asked.read(SIGNATURE, {"instances": [row]})  # now it is
    connection = duckdb.connect()
    connection.register("rows", table)
    expected = connection.sql(f"SELECT recent FROM ({SQL}) ORDER BY time, storm").df()["recent"]
    pd.testing.assert_series_equal(
        pd.Series(found), expected, check_names=False, check_dtype=False, rtol=1e-6
    )
    assert expected.isna().sum() == 2


def test_rows_that_are_long_ago_are_let_go() -> None:
    asked, table = reader(most=2), rows().to_dict("records")
    asked.read(SIGNATURE, {"instances": table[:4]})
    columns, _ = asked.read(SIGNATURE, {"instances": [table[4]]})
    assert columns["recent"][0] == table[2]["wind"]


def test_a_row_that_cannot_be_known_is_refused() -> None:
    with pytest.raises(InvalidRows, match="row 0 needs storm, time, by which it is known"):
        reader().read(SIGNATURE, {"instances": [{"storm": "Ana"}]})
