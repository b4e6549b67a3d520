"""A batch of rows, predicted; and the file of what came of all batches of an item."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.batch_prediction.job import Form
from components.errors import PipelineStop
from components.inference.columns import DTYPES, MISSING
from components.inference.columns import Columns as Inputs
from components.inference.model import LoadedVersion, likeliest
from components.ingest.rows import Columns, Reading, Wanted
from components.registry.signature import Signature

_DETAILS = ("uncertainty", "quantiles", "probabilities", "edges", "attributions", "baseline")
OWN_COLUMNS = ("key", "prediction", *_DETAILS, "predicted_label", "version")
_ROWS = 1 << 13
"""Predicted at a time: the model's layers of so many rows stay small."""
_BATCH = 1 << 16
"""Rows that are in memory, and in a file of the prediction log, together."""
_FILES = "as in the file: "
"""Before the name of a column that the model reads, as it comes out once more."""


class Predicted(NamedTuple):
    """What came of a batch."""

    table: pa.Table
    """Of `OWN_COLUMNS` those that there are, and the columns asked for."""
    inputs: Inputs
    """What was predicted."""
    predictions: np.ndarray
    """float32 [rows, outputs]."""


def columns_of(signature: Signature, form: Form) -> Columns:
    """The columns that are read: of the model, the key, and those to be carried into the output."""
    inputs = signature["inputs"]
    kinds: dict[str, Wanted] = {name: column["type"] for name, column in inputs.items()}
    carried = [*([form.key] if form.key else []), *form.columns]
    of = {_FILES + name: name for name in carried if name in inputs}
    kinds |= {_named(name, inputs): None for name in carried}
    required = {name for name, column in inputs.items() if column["required"]}
    optional = {*inputs} - required - {*of.values()}
    filled = required | ({_named(form.key, inputs)} if form.key else set())
    return Columns(kinds, filled, exact=False, optional=optional, of=of)


def blocks(rows: Reading) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Yields the rows of a file in batches that depend on it alone, with their numbers."""
    parts: list[pa.RecordBatch] = []
    numbers: list[np.ndarray] = []
    for batch in rows:
        parts, numbers = [*parts, batch], [*numbers, rows.numbers]
        if sum(map(len, parts)) >= _BATCH:
            yield pa.Table.from_batches(parts), np.concatenate(numbers)
            parts, numbers = [], []
    if parts:
        yield pa.Table.from_batches(parts), np.concatenate(numbers)


def predict(version: LoadedVersion, batch: pa.Table, names: list[str], form: Form) -> Predicted:
    """Predicts rows.

    Args:
        version: By which.
        batch: The columns of `columns_of`.
        names: The rows' keys, if the form names no column of them.
        form: What is written.

    Raises:
        PipelineStop: If a query makes keys that are numbers with a fraction.
    """
    read = version.signature["inputs"]
    inputs = {name: _as_input(batch[name], column["type"]) for name, column in read.items()}
    values = [
        version.predict_with(
            form.detail, {name: column[start : start + _ROWS] for name, column in inputs.items()}
        )
        for start in range(0, max(len(batch), 1), _ROWS)
    ]
    found = version.split(form.detail, np.concatenate(values))
    predictions = found.pop("predictions")
    labels = likeliest(version.signature, predictions)
    carried = {name: _as_text(batch[_named(name, read)]) for name in form.columns}
    key = batch[_named(form.key, read)] if form.key else pa.array(names, pa.string())
    if pa.types.is_floating(key.type):  # of a query; of files it is known before
        raise PipelineStop(f"The key '{form.key}' is {key.type}, and must be a text or an integer.")
    columns = {
        "key": key if pa.types.is_integer(key.type) else key.cast(pa.string()),
        "prediction": _as_column(predictions),
        **{name: _as_detail(name, values, sorted(read)) for name, values in found.items()},
        **({"predicted_label": _as_labels(labels)} if labels else {}),
        "version": pa.array(np.full(len(batch), version.version)),
    }
    return Predicted(pa.table(columns | carried), inputs, predictions)


def write(path: str, tables: Iterator[pa.Table]) -> None:
    """Writes tables, of which there is one at least, as they come."""
    first = next(tables)
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        for table in chain([first], tables):
            writer.write_table(table)


def _named(name: str, inputs: Mapping[str, Any]) -> str:
    return _FILES + name if name in inputs else name


def _as_input(column: pa.ChunkedArray, kind: str) -> np.ndarray:
    filled = column.fill_null(pa.scalar(MISSING[kind], column.type))
    found: np.ndarray = filled.to_numpy()
    return found.astype(DTYPES[kind], copy=False)


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string()) if pa.types.is_binary(column.type) else column


def _as_detail(name: str, values: np.ndarray, columns: list[str]) -> pa.Array:
    """Attributions as a number for each column; all else as predictions are."""
    if name != "attributions":
        return _as_column(values)
    parts = [np.ascontiguousarray(part) for part in values.T]
    return pa.StructArray.from_arrays([pa.array(part) for part in parts], names=columns)


def _as_labels(labels: list[Any]) -> pa.Array:
    """Names; several of a row, of a multilabel problem, in a list."""
    if isinstance(labels[0], list):
        return pa.array([[str(name) for name in row] for row in labels], pa.list_(pa.string()))
    return pa.array(map(str, labels), pa.string())


def _as_column(values: np.ndarray) -> pa.Array:
    """A number a row, or of several outputs a list."""
    if values.shape[1] == 1:
        return pa.array(np.ascontiguousarray(values[:, 0]))
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))
