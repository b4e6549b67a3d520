"""Which rows of a batch are good: the same rules for CSV and Parquet, a column at a time."""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.ingest.arrow_types import missing_as_null

Mask: TypeAlias = npt.NDArray[np.bool]
"""bool [rows]."""


class Column(NamedTuple):
    """A column as it was given, and as int64, float32 or string."""

    given: pa.Array
    values: pa.Array
    """Null also where the given value is none of this type."""


class Checked(NamedTuple):
    """What came of a batch."""

    good: pa.RecordBatch
    """int64, float32 and binary; NaN and empty texts are null."""
    bad: npt.NDArray[np.int64]
    """Where the other rows stand in the batch, in order."""


def check(columns: Mapping[str, Column], filled: set[str]) -> Checked:
    """Parts good rows from bad ones.

    Args:
        columns: By name, all of the same length, of at least one.
        filled: The columns of which a missing value makes a row bad.
    """
    clean = {name: missing_as_null(column.values) for name, column in columns.items()}
    wrong: Mask = np.zeros(len(next(iter(clean.values()))), bool)
    for name, column in columns.items():
        if unread(column).any():
            wrong |= unread(column)
        if pa.types.is_floating(column.values.type):
            wrong |= is_infinite(column)
        if name in filled:
            wrong |= mask(clean[name].is_null())
    arrays = [a.cast(pa.binary()) if pa.types.is_string(a.type) else a for a in clean.values()]
    batch = pa.RecordBatch.from_arrays(arrays, names=[*clean])
    return Checked(batch.filter(pa.array(~wrong)) if wrong.any() else batch, np.flatnonzero(wrong))


def unread(column: Column) -> Mask:
    """Where there is a value that is none of the column's type."""
    if column.given.null_count == column.values.null_count:
        return np.zeros(len(column.given), bool)
    return mask(pc.and_(column.given.is_valid(), column.values.is_null()))


def is_infinite(column: Column) -> Mask:
    """Where a number is too large, or infinite."""
    return mask(pc.fill_null(pc.is_inf(column.values), False))


def mask(array: pa.Array) -> Mask:
    """Truth values as numpy."""
    found: Mask = array.to_numpy(zero_copy_only=False)
    return found
