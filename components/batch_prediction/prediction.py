"""A block of rows, predicted: what goes into its shard, and what is set aside."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.batch_prediction.inputs import Item, Wanted
from components.batch_prediction.reading import Block
from components.batch_prediction.writing import as_json
from components.inference import arrow
from components.inference.columns import Columns
from components.inference.model import LoadedVersion, likeliest
from components.ingest.arrow_types import is_text, parse

OWN_COLUMNS = ("key", "prediction", "predicted_label", "version")
_ROWS = 1 << 13
"""Predicted at a time: the model's layers of so many rows stay small."""


class Predicted(NamedTuple):
    """What came of a block."""

    table: pa.Table
    """key, prediction, version, and the columns asked for, of the good rows; where the classes have
    names, also predicted_label."""
    columns: Columns
    """What was predicted."""
    predictions: np.ndarray
    """float32 [good rows, outputs]."""
    rejected: list[str]
    """The other rows, a line of JSON each, in the file's order."""


def predict(item: Item, block: Block, wanted: Wanted, version: LoadedVersion) -> Predicted:
    """Checks a block's rows and predicts the good ones."""
    typed = item.rows is not None
    rows = _as_batch(block.rows)
    checked = arrow.check(version.signature, rows, typed, wanted.csv.nulls)
    reasons = checked.reasons
    given = _given(rows, wanted, typed, reasons)
    good: arrow.Mask = np.ones(len(rows), bool)
    good[[*reasons]] = False
    columns = {name: values[good[checked.good]] for name, values in checked.columns.items()}
    predictions = _predict(version, columns)
    kept = pa.array(good)
    keys = given[wanted.key] if wanted.key else _row_keys(item.name, block.numbers)
    table = pa.table(
        {
            "key": keys.filter(kept),
            "prediction": _as_column(predictions),
            **_label(version, predictions),
            "version": pa.array(np.full(len(predictions), version.version)),
            **{name: given[name].filter(kept) for name in wanted.columns},
        }
    )
    told = [*_rejected(item, block, rows, keys, reasons)]
    told += _malformed(item, block, has_key=wanted.key is not None)
    return Predicted(table, columns, predictions, [line for _, line in sorted(told)])


def _label(version: LoadedVersion, predictions: np.ndarray) -> dict[str, pa.Array]:
    """The likeliest class of each row by name, string [rows], where the classes have names."""
    labels = likeliest(version.signature, predictions)
    if labels is None:
        return {}
    return {"predicted_label": pa.array([str(label) for label in labels], pa.string())}


def _as_batch(table: pa.Table) -> pa.RecordBatch:
    arrays = [
        column.combine_chunks() if len(table) else pa.array([], column.type)
        for column in table.columns
    ]
    return pa.RecordBatch.from_arrays(arrays, table.column_names)


def _given(
    rows: pa.RecordBatch, wanted: Wanted, typed: bool, reasons: dict[int, list[str]]
) -> dict[str, pa.Array]:
    """The key and the columns asked for, as they came; what is wrong joins the reasons."""
    given = {}
    for name in dict.fromkeys([*([wanted.key] if wanted.key else []), *wanted.columns]):
        values = rows[name]
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        is_key = name == wanted.key
        as_text = not typed or (is_key and is_text(values.type))
        given[name] = parse(values, pa.string()) if as_text else values
        broken = arrow.mask(pc.and_(values.is_valid(), given[name].is_null()))
        for row in np.flatnonzero(broken).tolist():
            reasons.setdefault(row, []).append(f"'{name}' must be UTF-8")
        empty = _is_empty(given[name]) & ~broken if is_key else ()
        for row in np.flatnonzero(empty).tolist():
            reasons.setdefault(row, []).append(f"the key '{name}' is missing")
    return given


def _is_empty(keys: pa.Array) -> np.ndarray:
    if is_text(keys.type):
        keys = pc.if_else(pc.equal(pc.binary_length(keys), 0), None, keys)
    return arrow.mask(keys.is_null())


def _predict(version: LoadedVersion, columns: Columns) -> np.ndarray:
    rows = len(next(iter(columns.values())))
    parts = [
        version.predict({name: values[start : start + _ROWS] for name, values in columns.items()})
        for start in range(0, rows, _ROWS)
    ]
    return np.concatenate(parts) if parts else np.empty((0, version.outputs), np.float32)


def _as_column(predictions: np.ndarray) -> pa.Array:
    """A number, or of several classes a list, in class order."""
    outputs = predictions.shape[1]
    values = pa.array(predictions.ravel())
    if outputs == 1:
        return values
    return pa.ListArray.from_arrays(
        pa.array(np.arange(len(predictions) + 1, dtype=np.int32) * outputs), values
    )


def _row_keys(name: str, numbers: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(name, pa.array(numbers).cast(pa.string()), ":")


def _rejected(
    item: Item, block: Block, rows: pa.RecordBatch, keys: pa.Array, reasons: dict[int, list[str]]
) -> Iterator[tuple[int, str]]:
    for row, told in reasons.items():
        number = int(block.numbers[row])
        key = keys[row].as_py()
        came = rows.slice(row, 1).to_pylist()[0]
        yield number, as_json(_told(item, number, key, told) | {"columns": came})


def _malformed(item: Item, block: Block, has_key: bool) -> Iterator[tuple[int, str]]:
    for row in block.malformed:
        key = None if has_key else f"{item.name}:{row.number}"
        told = _told(item, row.number, key, [row.reason])
        yield row.number, as_json(told | {"text": row.text})


def _told(item: Item, number: int, key: Any, reasons: list[str]) -> dict[str, Any]:
    return {"file": item.path, "row": number, "key": key, "reasons": reasons}
