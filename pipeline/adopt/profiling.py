"""What is measured of each column before anything is decided."""

import math
import re
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ROWS = 100_000
"""Columns are profiled on so many rows, drawn from all that were read."""
MOST_VALUES = 101
"""So many of the most frequent values are kept: one more than a label may have classes."""

_DATES = (
    "%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y",
    "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S", "%Y/%m/%d",
    "%Y/%m/%d %H:%M:%S", "%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y",
)  # fmt: skip
_LOOKS_LIKE_A_DATE = re.compile(r".*\d.*[-/. :].*\d.*")
_DATE_SAMPLE = 50
_KINDS = {pa.int64(): "INT", pa.float64(): "FLOAT", pa.string(): "BYTES"}

Value = str | int | float


@dataclass(frozen=True)
class Column:
    """One column of the profiled rows."""

    name: str
    kind: str
    """INT, FLOAT or BYTES, as in the schema."""
    rows: int
    missing: int
    distinct: int
    """Different values, missing ones not counted."""
    frequent: tuple[tuple[Value, int], ...] = ()
    """The most frequent values with their numbers of rows; equal ones in order of value."""
    low: float = math.nan
    high: float = math.nan
    whole: bool = False
    """Numbers: all are whole."""
    rises: bool = False
    """Numbers: each is greater than the one in the row before."""
    characters: float = 0.0
    """Text: mean length."""
    words: float = 0.0
    """Text: mean number of words."""
    is_date: bool = False

    @property
    def present(self) -> int:
        """Rows with a value."""
        return self.rows - self.missing

    @property
    def missing_fraction(self) -> float:
        """The fraction of rows without a value."""
        return self.missing / self.rows if self.rows else 0.0


def sample(table: pa.Table, rows: int = ROWS) -> pa.Table:
    """So many of the rows, the same each time, in their order."""
    if table.num_rows <= rows:
        return table.combine_chunks()
    chosen = np.random.default_rng(0).choice(table.num_rows, rows, replace=False)
    return table.take(pa.array(np.sort(chosen))).combine_chunks()


def as_in_schema(table: pa.Table, kinds: dict[str, str]) -> pa.Table:
    """The table in the schema's types, which more rows may have widened."""
    types = {kind: arrow for arrow, kind in _KINDS.items()}
    return pa.table({name: pc.cast(table[name], types[kinds[name]]) for name in table.column_names})


def profile(table: pa.Table) -> list[Column]:
    """Measures each column of a table of int64, float64 and string columns."""
    return [_column(name, table[name].combine_chunks()) for name in table.column_names]


def _column(name: str, values: pa.Array) -> Column:
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    present = values.drop_null()
    counted = present.value_counts()
    column = Column(
        name=name,
        kind=_KINDS[values.type],
        rows=len(values),
        missing=values.null_count,
        distinct=len(counted),
        frequent=_frequent(counted) if len(counted) else (),
    )
    return Column(**{**vars(column), **_details(column.kind, present)})


def _frequent(counted: pa.Array) -> tuple[tuple[Value, int], ...]:
    values, counts = counted.field(0), counted.field(1)
    table = pa.table({"value": values, "count": counts})
    keys = [("count", "descending"), ("value", "ascending")]
    first = pc.select_k_unstable(table, k=min(MOST_VALUES, len(table)), sort_keys=keys)
    top = table.take(first)
    return tuple(zip(top["value"].to_pylist(), top["count"].to_pylist(), strict=True))


def _details(kind: str, present: pa.Array) -> dict[str, object]:
    if not len(present):
        return {}
    if kind == "BYTES":
        return _text_details(present)
    numbers = present.to_numpy(zero_copy_only=False)
    return {
        "low": float(numbers.min()),
        "high": float(numbers.max()),
        "whole": kind == "INT" or bool((numbers == np.floor(numbers)).all()),
        "rises": len(numbers) > 1 and bool((np.diff(numbers) > 0).all()),
    }


def _text_details(present: pa.Array) -> dict[str, object]:
    some = present.slice(0, 2_000)
    return {
        "characters": float(pc.mean(pc.utf8_length(present)).as_py()),
        "words": float(np.mean([len(text[:10_000].split()) for text in some.to_pylist()])),
        "is_date": _are_dates(present.unique().slice(0, _DATE_SAMPLE).to_pylist()),
    }


def sorts_by_time(times: pa.ChunkedArray) -> bool:
    """Whether they are numbers, or texts in ISO 8601, which sort as the times do."""
    if not pa.types.is_string(times.type):
        return True
    some = times.drop_null().unique()[:_DATE_SAMPLE].to_pylist()
    return all(_parses(text.strip(), None) for text in some)


def _are_dates(texts: list[str]) -> bool:
    """Whether all of them are dates or times of one of the common formats, or ISO 8601."""
    texts = [text.strip() for text in texts]
    if not all(len(text) <= 40 and _LOOKS_LIKE_A_DATE.fullmatch(text) for text in texts):
        return False
    return any(all(_parses(text, form) for text in texts) for form in (None, *_DATES))


def _parses(text: str, form: str | None) -> bool:
    try:
        _ = datetime.strptime(text, form) if form else datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
