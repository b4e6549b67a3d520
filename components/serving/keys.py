"""Keys of rows (book pattern 20, Keyed Predictions): what callers match answers to rows by.

A key is a text or a 64-bit integer. It travels beside the columns under the reserved name `key`;
if a model has a column of that name, it is the column, and that model's rows have no keys.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from components.registry.signature import Signature

KEY = "key"
Keys = list[str | int]
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


def are_offered(signature: Signature) -> bool:
    """Whether rows of this model can have keys."""
    return KEY not in signature["inputs"]


def problems(keys: Sequence[Any]) -> list[str]:
    """What is wrong with keys; a sentence for each row."""
    return [
        f"row {number}: '{KEY}' must be a text or a 64-bit integer, got {type(key).__name__}"
        for number, key in enumerate(keys)
        if not _is_key(key)
    ]


def _is_key(key: Any) -> bool:
    if isinstance(key, int) and not isinstance(key, bool):
        return _LEAST <= key <= _MOST
    return isinstance(key, str)


def split(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[dict[str, Any]]]:
    """Keys and rows without them, where every row has one."""
    bare = [{name: value for name, value in row.items() if name != KEY} for row in rows]
    return [row[KEY] for row in rows], bare
