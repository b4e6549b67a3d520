"""What a slice is called, in tables, files and manifests: 'column=value, column=value'."""

import json
import re
from collections.abc import Iterable, Iterator

OVERALL = "overall"
"""All rows."""

_PLAIN = re.compile(r"""[^\s",=](?:[^",=\x00-\x1f\x7f\x85\u2028\u2029]*[^\s",=])?""")
_PART = re.compile(r'("(?:[^"\\]|\\.)*"|[^"=]*)=("(?:[^"\\]|\\.)*"|[^",]*)(?:, |$)')


def slice_name(parts: Iterable[tuple[str, str | int | float]]) -> str:
    """The name of the rows in which columns have these values; `OVERALL` for no columns.

    Columns and values are quoted as in JSON where a reader could not tell them from the rest.
    """
    return ", ".join(f"{_word(name)}={_word(str(value))}" for name, value in parts) or OVERALL


def columns_of(name: str) -> list[str]:
    """The columns of a slice by its name, sorted: none for `OVERALL`."""
    return sorted(_columns(name)) if name != OVERALL else []


def _columns(name: str) -> Iterator[str]:
    for column, _ in _PART.findall(name):
        yield json.loads(column) if column.startswith('"') else column


def _word(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
