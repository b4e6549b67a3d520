"""What Arrow's types are as INT, FLOAT and BYTES: a Parquet file's columns become a CSV file's."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.ingest.settings import Kind

ARROW: dict[str, pa.DataType] = {"INT": pa.int64(), "FLOAT": pa.float32(), "BYTES": pa.string()}


def kind_of(given: pa.DataType) -> Kind | None:
    """The kind of a column; None for types that no column of a table of examples can have."""
    of = pa.types
    if of.is_dictionary(given):
        return kind_of(given.value_type)
    if of.is_boolean(given) or of.is_integer(given):
        return "INT"
    if of.is_floating(given) or of.is_decimal(given):
        return "FLOAT"
    if is_text(given) or of.is_date(given) or of.is_timestamp(given) or of.is_time(given):
        return "BYTES"
    return "BYTES" if of.is_null(given) else None


def fits(given: pa.DataType, kind: str) -> bool:
    """Whether a column of this type can be read as `kind`."""
    found = kind_of(given)
    return pa.types.is_null(given) or found == kind or (found, kind) == ("INT", "FLOAT")


def convert(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    """The values as another type; null also where a value cannot be had.

    Args:
        array: Of a type that fits, and no dictionary.
        wanted: int64, float32, float64 or string. An unsigned integer beyond int64 and a text that
            is not UTF-8 cannot be had; a number beyond float32 becomes infinite.
    """
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), wanted)
    if pa.types.is_string(wanted):
        return _texts(array)
    return _integers(array) if pa.types.is_integer(wanted) else _numbers(array, wanted)


def missing_as_null(values: pa.Array) -> pa.Array:
    """Without NaN and empty texts, which count as missing."""
    if pa.types.is_floating(values.type):
        return pc.if_else(pc.is_nan(values), None, values)
    if pa.types.is_string(values.type):
        return blanked(values, pc.equal(pc.binary_length(values), 0))
    return values


def blanked(texts: pa.Array, where: pa.Array) -> pa.Array:
    """Texts, null where it says so.

    Arrow 18's `if_else` makes invalid arrays of texts that are a slice of a longer array.
    """
    return pc.replace_with_mask(texts, where, pa.scalar(None, texts.type))


def decoded(array: pa.Array) -> pa.Array:
    """The values of a dictionary, or the array as it is."""
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def parse(texts: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Casts; null where that fails, which is found by halves: quick if it seldom does."""
    try:
        return texts.cast(wanted)
    except pa.ArrowInvalid:
        if len(texts) == 1:
            return pa.nulls(1, wanted)
        half = len(texts) // 2
        return pa.concat_arrays([parse(texts[:half], wanted), parse(texts[half:], wanted)])


def _integers(array: pa.Array) -> pa.Array:
    if not pa.types.is_uint64(array.type):
        return array.cast(pa.int64())
    small = pc.less(array, pa.scalar(1 << 63, pa.uint64()))
    return pc.if_else(small, array, None).cast(pa.int64())


def _numbers(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_decimal(array.type):
        return array.cast(pa.string()).cast(wanted)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    if pa.types.is_float64(array.type) and pa.types.is_float32(wanted):
        return _rounded(array)
    if pa.types.is_float16(array.type):
        array = array.cast(pa.float32())
    return array.cast(wanted, safe=False)


def _rounded(array: pa.Array) -> pa.Array:
    """float64 to float32, each as its shortest decimal number would be read from CSV.

    That differs from plain rounding where a float64 lies half-way between two float32.
    """
    exact = array.fill_null(0).to_numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = exact.astype(np.float32)
        towards = np.where(exact > rounded, np.float32(np.inf), np.float32(-np.inf))
        other = np.nextafter(rounded, towards).astype(np.float64)
        is_half_way: npt.NDArray[np.bool] = (rounded + other) / 2 == exact
    if is_half_way.any():
        texts = pa.array(exact[is_half_way]).cast(pa.string())
        rounded[is_half_way] = texts.cast(pa.float32()).to_numpy()
    return pc.if_else(array.is_valid(), pa.array(rounded), None)


def is_text(given: pa.DataType) -> bool:
    """Whether it is a type of texts, or of bytes that may be texts."""
    of = pa.types
    return bool(
        of.is_string(given)
        or of.is_large_string(given)
        or of.is_binary(given)
        or of.is_large_binary(given)
        or of.is_fixed_size_binary(given)
    )


def _texts(array: pa.Array) -> pa.Array:
    if is_text(array.type):
        # Parquet's strings are not checked when they are read.
        return parse(array.cast(pa.binary()), pa.string())
    if pa.types.is_timestamp(array.type):
        return _moments(array)
    if pa.types.is_time(array.type):
        array = array.cast(pa.time64("us"), safe=False)
        return pc.replace_substring_regex(array.cast(pa.string()), r"\.0+$", "")
    return array.cast(pa.date32(), safe=False).cast(pa.string())


def _moments(array: pa.Array) -> pa.Array:
    """ISO 8601 with a space, as pandas prints one: a fraction only where there is one.

    In UTC where it has a zone, as `components.ingest.rows` makes it.
    """
    if array.type.tz:
        array = array.cast(pa.timestamp(array.type.unit, "UTC"))
    if array.type.unit != "ns":
        array = array.cast(pa.timestamp("us", array.type.tz))
    texts = array.cast(pa.string())
    for pattern, by in (
        (r"Z$", "+00:00"),
        (r"([+-]\d\d)(\d\d)$", r"\1:\2"),
        (r"\.0+([+-].*)?$", r"\1"),
        (r"(\.\d{6})000([+-].*)?$", r"\1\2"),
    ):
        texts = pc.replace_substring_regex(texts, pattern, by)
    return texts
