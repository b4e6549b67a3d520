"""Decoded tf.Examples as arrays: columns, the hashes of rows, and the rows of each slice."""

from collections.abc import Collection, Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

SliceKey = tuple[tuple[str, str | int | float], ...]


def scalars(batches: list[pa.RecordBatch], column: str) -> pa.Array:
    """The first value of each row of a list column over all batches; null where it is empty."""
    parts = []
    for batch in batches:
        lists = batch[column] if column in batch.schema.names else pa.nulls(batch.num_rows)
        filled = pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type)
        parts.append(_first(lists) if filled else pa.nulls(batch.num_rows))
    typed = [part.type for part in parts if not pa.types.is_null(part.type)]
    return pa.concat_arrays([part.cast(typed[0]) if typed else part for part in parts])


def _first(lists: pa.ListArray) -> pa.Array:
    """The first element of each list, null for a missing or an empty one."""
    starts, ends = lists.offsets[:-1], lists.offsets[1:]
    filled = pc.and_(pc.less(starts, ends), lists.is_valid())
    return lists.values.take(pc.if_else(filled, starts, None))


def frame(batches: list[pa.RecordBatch], columns: Collection[str]) -> pd.DataFrame:
    """Columns as pandas has them; None or NaN where a value is missing, and for the text ""."""
    made = {}
    for name in columns:
        values = scalars(batches, name)
        made[name] = values.to_pandas(integer_object_nulls=True)
        if pa.types.is_large_binary(values.type) or pa.types.is_binary(values.type):
            texts = made[name].str.decode("utf-8", errors="replace")
            made[name] = texts.where(texts != "", None)
    return pd.DataFrame(made, index=range(sum(batch.num_rows for batch in batches)))


def row_hashes(batches: list[pa.RecordBatch]) -> np.ndarray:
    """FarmHash of each row's values, uint64 [N]; whatever the order of columns or rows."""
    from components.ingest.splitting import fingerprints

    names = sorted({name for batch in batches for name in batch.schema.names})
    columns = [_narrow(scalars(batches, name)) for name in names]
    return fingerprints(pa.record_batch(columns, names))


def _narrow(column: pa.Array) -> pa.Array:
    """The type that ingest has for a column's values."""
    return column.cast(pa.binary()) if pa.types.is_large_binary(column.type) else column


def slice_rows(
    batches: list[pa.RecordBatch], slices: list[tuple[str, ...]]
) -> Iterator[tuple[SliceKey, np.ndarray]]:
    """Yields each slice's key and the numbers of its rows; a row without a value is in none."""
    table = frame(batches, {column for names in slices for column in names})
    for names in slices:
        groups = table.groupby(sorted(names)).indices if names else {(): np.arange(len(table))}
        for found, rows in groups.items():
            values = found if isinstance(found, tuple) else (found,)
            plain = (value.item() if isinstance(value, np.generic) else value for value in values)
            yield tuple(zip(sorted(names), plain, strict=True)), rows
