from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.evaluation.arrays import row_hashes, scalars, slice_rows
from components.evaluation.extractors import large_slice


def batch(**columns: tuple[list[Any], pa.DataType]) -> pa.RecordBatch:
    """A batch of lists of at most one value, as the decoder of tf.Examples gives them."""
    arrays = [
        pa.array([None if value is None else [value] for value in values], pa.large_list(kind))
        for values, kind in columns.values()
    ]
    return pa.RecordBatch.from_arrays(arrays, list(columns))


FIRST = batch(
    shop=([b"A", b"B", None, b"A"], pa.large_binary()), hour=([1, 2, 1, None], pa.int64())
)
SECOND = batch(shop=([b"A", b"B"], pa.large_binary()), hour=([1, 1], pa.int64()))


def found(*columns: str) -> dict[Any, list[int]]:
    return {key: rows.tolist() for key, rows in slice_rows([FIRST, SECOND], [columns])}


def test_all_rows_are_the_slice_without_columns() -> None:
    assert found() == {(): [0, 1, 2, 3, 4, 5]}


def test_rows_are_found_by_value_over_all_batches_and_a_missing_value_is_in_none() -> None:
    assert found("shop") == {(("shop", "A"),): [0, 3, 4], (("shop", "B"),): [1, 5]}
    assert found("hour") == {(("hour", 1),): [0, 2, 4, 5], (("hour", 2),): [1]}


def test_a_rows_hash_does_not_depend_on_columns_around_or_batches() -> None:
    whole = row_hashes([FIRST, SECOND])
    assert len(set(whole.tolist())) == 5
    assert whole[0] == whole[4]
    assert whole[1] != whole[5]
    turned = batch(hour=([2], pa.int64()), shop=([b"B"], pa.large_binary()))
    assert row_hashes([turned])[0] == whole[1]


def test_columns_are_crossed() -> None:
    assert found("shop", "hour") == {
        (("hour", 1), ("shop", "A")): [0, 4],
        (("hour", 1), ("shop", "B")): [5],
        (("hour", 2), ("shop", "B")): [1],
    }


def test_a_column_that_no_row_has_gives_no_slice() -> None:
    assert found("never") == {}


def test_a_batch_without_a_column_is_all_missing() -> None:
    hourless = batch(shop=([b"C"], pa.large_binary()))
    assert scalars([FIRST, hourless], "hour").to_pylist() == [1, 2, 1, None, None]


def test_an_empty_list_is_missing_and_a_cut_batch_keeps_its_place() -> None:
    lists = pa.array([[1], [], None, [4, 5]], pa.large_list(pa.int64()))
    whole = pa.RecordBatch.from_arrays([lists], ["n"])
    assert scalars([whole.slice(1)], "n").to_pylist() == [None, None, 4]


@pytest.mark.parametrize(("rows", "kept"), [(2, 2), (3, 2), (4, 0)])
def test_a_small_slice_is_dropped_by_its_rows_not_by_its_parts(rows: int, kept: int) -> None:
    parts = [(np.zeros(2), {}), (np.zeros(1), {})]
    assert len(list(large_slice(((("shop", "A"),), parts), rows))) == kept


def test_all_rows_are_never_too_few() -> None:
    assert len(list(large_slice(((), [(np.zeros(1), {})]), 100))) == 1
