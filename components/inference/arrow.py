"""Rows as they come from files, checked a block at a time: what `columns.py` does for callers.

The rules are those of `components.inference.columns`, with the same words for what is wrong, and a
test holds the two side by side. A row that breaks one is set aside instead of stopping the others.

CSV has no types: its fields come as bytes, and only there

- a number is text that JSON or the ingest (`components.ingest.rows`) reads as one, with spaces
  around it, "+1.0", ".5" and, for an integer, "0x1f";
- "nan", "NA" and the like are missing numbers, as in the ingest (`data.csv.nulls`);
- a text must be UTF-8.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.inference.columns import DTYPES, EXPECTED, MISSING, Columns
from components.ingest.arrow_types import convert, is_text, parse
from components.ingest.settings import CsvFormat
from components.registry.signature import Signature

Mask = np.ndarray
"""bool [rows]."""
_MOST_FLOAT = float(np.finfo(np.float32).max)
_MOST_INT = int(np.iinfo(np.int64).max)
_NULLS = tuple(CsvFormat().nulls)
_FRACTIONAL = "^[^xX]*[.eE]"
"""What is written as a float, and is no hexadecimal integer."""


class Checked(NamedTuple):
    """What came of a block of rows."""

    columns: Columns
    """Of the good rows, every input of the signature."""
    good: Mask
    reasons: dict[int, list[str]]
    """What is wrong with each of the other rows."""


class _Values(NamedTuple):
    """A column, [rows]: where it is wrong, its value is the missing one."""

    values: np.ndarray
    wrong: Mask


def check(
    signature: Signature, batch: pa.RecordBatch, typed: bool, nulls: Sequence[str] = _NULLS
) -> Checked:
    """Checks rows and turns them into what a version takes.

    Args:
        signature: Of the version.
        batch: The rows. Columns that are not there are missing in all rows; others are ignored.
        typed: Whether the columns have types, as in Parquet, or are the bytes of CSV's fields.
        nulls: Texts that stand for a missing number in CSV, as `data.csv.nulls` says.
    """
    columns: Columns = {}
    reasons: dict[int, list[str]] = {}
    for name, column in signature["inputs"].items():
        kind = column["type"]
        array = batch[name] if name in batch.schema.names else pa.nulls(len(batch))
        columns[name], wrong = _typed(kind, array) if typed else _parsed(kind, array, nulls)
        for row in np.flatnonzero(wrong).tolist():
            shown = _shown(array[row].as_py(), typed)
            reasons.setdefault(row, []).append(f"'{name}' must be {EXPECTED[kind]}, got {shown}")
        if column["required"]:
            for row in np.flatnonzero(_is_missing(kind, columns[name]) & ~wrong).tolist():
                reasons.setdefault(row, []).append(f"'{name}' is required ({EXPECTED[kind]})")
    good: Mask = np.ones(len(batch), bool)
    good[[*reasons]] = False
    if reasons:
        columns = {name: values[good] for name, values in columns.items()}
    return Checked(columns, good, reasons)


def accepts(kind: str, given: pa.DataType) -> bool:
    """Whether values of an Arrow type can be values of an input column's type at all.

    Args:
        kind: "FLOAT", "INT" or "BYTES".
        given: The type in the file.
    """
    of = pa.types
    if of.is_dictionary(given):
        return accepts(kind, given.value_type)
    if of.is_null(given):
        return True
    if kind == "BYTES":
        return is_text(given) or _is_moment(given)
    number = of.is_integer(given) or of.is_floating(given) or of.is_boolean(given)
    return number or (kind == "FLOAT" and of.is_decimal(given))


def _is_moment(given: pa.DataType) -> bool:
    """Whether it is a date or a time, which the ingest makes a text of."""
    of = pa.types
    return bool(of.is_date(given) or of.is_timestamp(given) or of.is_time(given))


def mask(array: pa.BooleanArray) -> Mask:
    """As numpy."""
    found: Mask = array.to_numpy(zero_copy_only=False)
    return found


def _typed(kind: str, array: pa.Array) -> _Values:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_boolean(array.type) and kind != "BYTES":
        array = array.cast(pa.int8())
    if _is_moment(array.type) and kind == "BYTES":
        array = convert(array, pa.string())
    if accepts(kind, array.type):
        return _CONVERT[kind](array)
    return _Values(np.full(len(array), MISSING[kind], DTYPES[kind]), mask(array.is_valid()))


def _float(array: pa.Array) -> _Values:
    valid = mask(array.is_valid())
    numbers = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        good = np.abs(numbers) <= _MOST_FLOAT
    return _Values(np.where(good, numbers, np.nan).astype(np.float32), valid & ~good)


def _int(array: pa.Array) -> _Values:
    valid = mask(array.is_valid())
    if pa.types.is_floating(array.type) or pa.types.is_null(array.type):
        numbers = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
        good = (numbers == np.floor(numbers)) & (np.abs(numbers) < 2.0**63)
        integers = np.where(good, numbers, 0).astype(np.int64)
    else:
        lowest = -_MOST_INT if pa.types.is_signed_integer(array.type) else 0
        integers = array.fill_null(0).cast(pa.int64(), safe=False).to_numpy()
        good = valid & (integers >= lowest)  # above int64, an unsigned one has become negative
    return _Values(np.where(good, integers, MISSING["INT"]), valid & ~good)


def _text(array: pa.Array) -> _Values:
    values = array.cast(pa.binary()).fill_null(b"").to_numpy(zero_copy_only=False)
    return _Values(values, np.zeros(len(array), bool))


_CONVERT: dict[str, Callable[[pa.Array], _Values]] = {"FLOAT": _float, "INT": _int, "BYTES": _text}


def _parsed(kind: str, fields: pa.Array, nulls: Sequence[str]) -> _Values:
    texts = parse(fields, pa.string())
    unread = mask(pc.and_(fields.is_valid(), texts.is_null()))
    if kind != "BYTES":
        texts = pc.replace_substring_regex(texts, r"^([ \t]*)\+([0-9.])", r"\1\2")
        is_none = pc.is_in(pc.ascii_trim(texts, " \t"), value_set=pa.array(["", *nulls]))
        texts = pc.replace_with_mask(texts, is_none, pa.scalar(None, pa.string()))
    parser = {"FLOAT": _float_of_text, "INT": _int_of_text, "BYTES": _text}[kind]
    values, wrong = parser(texts)
    return _Values(values, wrong | unread)


def _float_of_text(texts: pa.Array) -> _Values:
    numbers = parse(pc.ascii_trim(texts, " \t"), pa.float64())
    unread = mask(pc.and_(texts.is_valid(), numbers.is_null()))
    values, wrong = _float(pc.if_else(pc.is_nan(numbers), None, numbers))
    return _Values(values, wrong | unread)


def _int_of_text(texts: pa.Array) -> _Values:
    trimmed = pc.ascii_trim(texts, " \t")
    try:
        return _int(trimmed.cast(pa.int64()))
    except pa.ArrowInvalid:
        fractional = pc.match_substring_regex(trimmed, _FRACTIONAL)
    integers = parse(pc.if_else(fractional, None, trimmed), pa.int64())
    floats = parse(pc.if_else(fractional, trimmed, None), pa.float64())
    unread = pc.and_(texts.is_valid(), pc.and_(integers.is_null(), floats.is_null()))
    values, wrong = _int(integers)
    others, others_wrong = _int(floats)
    from_floats = mask(floats.is_valid())
    return _Values(np.where(from_floats, others, values), wrong | others_wrong | mask(unread))


def _is_missing(kind: str, values: np.ndarray) -> Mask:
    return np.isnan(values) if kind == "FLOAT" else values == MISSING[kind]


def _shown(value: Any, typed: bool) -> str:
    text = repr(value if typed else value.decode(errors="backslashreplace"))
    return text if len(text) <= 40 else f"{text[:40]}..."
