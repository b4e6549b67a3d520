import datetime
import json
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.batch_prediction import writing

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def lines_of(**columns: pa.Array) -> list[Any]:
    return [json.loads(line) for line in writing.as_json_lines(pa.table(columns)).to_pylist()]


@given(
    st.lists(
        st.tuples(
            st.none() | _TEXT,
            st.none() | st.floats(width=32),
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.booleans(),
        )
    )
)
def test_each_line_is_the_row_in_json(rows):
    texts, floats, integers, flags = map(list, zip(*rows, strict=True)) if rows else [[]] * 4
    found = lines_of(
        **{
            'a "name"': pa.array(texts, pa.string()),
            "float": pa.array(floats, pa.float32()),
            "integer": pa.array(integers, pa.int64()),
            "flag": pa.array(flags, pa.bool_()),
        }
    )
    assert [row['a "name"'] for row in found] == texts
    assert [row["integer"] for row in found] == integers
    assert [row["flag"] for row in found] == flags
    shown = [row["float"] for row in found]
    finite = [v if v is not None and math.isfinite(v) else None for v in floats]
    assert pa.array(shown, pa.float64()).cast(pa.float32()).to_pylist() == finite


def test_types_that_json_lacks_are_text_and_several_classes_a_list():
    (found,) = lines_of(
        classes=pa.array([[0.5, 0.25]], pa.list_(pa.float32())),
        day=pa.array([datetime.date(2024, 2, 29)]),
        price=pa.array([Decimal("1.50")]),
        raw=pa.array([b"a\xff"]),
        nested=pa.array([{"a": [1, None], "b": math.nan}]),
        category=pa.array(["x"]).dictionary_encode(),
    )
    assert found == {
        "classes": [0.5, 0.25],
        "day": "2024-02-29",
        "price": "1.50",
        "raw": r"a\xff",
        "nested": {"a": [1, None], "b": None},
        "category": "x",
    }


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
@pytest.mark.parametrize("count", [0, 3])
def test_rows_of_a_shard_are_counted(tmp_path, ending, count):
    path = tmp_path / f"shard.{ending}"
    assert writing.count_rows(path) == 0
    writing.write_shard(path, pa.table({"key": pa.array(["a\nb"] * count, pa.string())}))
    assert writing.count_rows(path) == count
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_names_sort_as_the_rows_do():
    names = [writing.block_name(0, 1), writing.block_name(0, 10**9), writing.block_name(1, 1)]
    assert names == sorted(names)
