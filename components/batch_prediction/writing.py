"""What batch prediction writes: shards of predictions, and rows that were set aside.

A file appears whole, and its name says which rows it is of, so that a block that is predicted twice
is there once.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components import files
from components.inference.prediction_log import write_file

Format = Literal["parquet", "jsonl"]
FORMATS: tuple[Format, ...] = ("parquet", "jsonl")
PREDICTIONS, REJECTED = "predictions", "rejected"
_ESCAPED = r'["\\\x00-\x1f]'
"""Characters that JSON does not take as they are."""


def block_name(file: int, first: int) -> str:
    """What a block's files are called.

    Args:
        file: The file's number in the job.
        first: The number of the block's first row in the file.
    """
    return f"part-{file:05d}-{first:012d}"


def write_shard(path: Path, table: pa.Table) -> None:
    """Writes predictions as Parquet or JSONL, as the path's ending says."""
    if path.suffix == ".parquet":
        write_file(path, table)
    else:
        write_lines(path, as_json_lines(table).to_pylist())


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Writes lines of text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.new_file(str(path), ".part") as temporary:
        Path(temporary).write_text("".join(f"{line}\n" for line in lines))


def count_rows(path: Path) -> int:
    """The rows of a shard or of a file of rejected rows; 0 if it is not there."""
    if not path.exists():
        return 0
    if path.suffix == ".parquet":
        rows: int = pq.read_metadata(path).num_rows
        return rows
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def as_json_lines(table: pa.Table) -> pa.Array:
    """Every row as a JSON object, string [rows]: a column at a time, not a row at a time."""
    parts: list[Any] = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        parts += [f"{', ' if parts else '{'}{json.dumps(name)}: ", _as_json(column)]
    lines = pc.binary_join_element_wise(*parts, "}", "")
    return lines.combine_chunks() if isinstance(lines, pa.ChunkedArray) else lines


def _as_json(column: pa.ChunkedArray) -> pa.ChunkedArray:
    of = pa.types
    kind = column.type
    if of.is_floating(kind):
        column = pc.if_else(pc.is_finite(column), column, None)
    if of.is_integer(kind) or of.is_boolean(kind) or of.is_float32(kind) or of.is_float64(kind):
        return pc.fill_null(column.cast(pa.string()), "null")
    if of.is_string(kind) and not pc.any(pc.match_substring_regex(column, _ESCAPED)).as_py():
        return pc.fill_null(pc.binary_join_element_wise('"', column, '"', ""), "null")
    return pa.chunked_array([pa.array([as_json(v) for v in column.to_pylist()], pa.string())])


def as_json(value: Any) -> str:
    """Any value of a file as JSON: what JSON has no type for is text, NaN is null."""
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {str(name): _plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case bytes():
            return value.decode(errors="backslashreplace")
        case float():
            return value if np.isfinite(value) else None
        case None | bool() | int() | str():
            return value
    return str(value)
