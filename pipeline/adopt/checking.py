"""What is wrong with a request: all of it at once, before anything is decided."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from components.errors import PipelineStop
from pipeline.adopt import profiling
from pipeline.adopt.request import Request

_NAME = re.compile(r"[a-z][a-z0-9-]*")
FEWEST_ROWS = 40
_LARGEST = 3.4028235e38
"""Of float32, in which ingest keeps numbers."""


def chosen_name(request: Request) -> str:
    """The configuration's name: the one given, or a tidy one from the data's file or folder."""
    if request.name is not None:
        return request.name
    stem = re.split(r"[*?\[]", request.data)[0].rstrip("/")
    stem = Path(stem).name.split(".")[0] if stem else ""
    tidy = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    return tidy if _NAME.fullmatch(tidy) else f"data-{tidy}".strip("-")


def absent(request: Request) -> Iterator[str]:
    """Yields what a request has to name, and does not."""
    if not request.data:
        yield "no data is named: a file, a folder or a pattern (make adopt DATA=... LABEL=...)"
    if not request.label:
        yield "no label is named: the column that is to be predicted"


def name_mistakes(name: str) -> Iterator[str]:
    """Yields why a name cannot be a configuration's."""
    if not _NAME.fullmatch(name):
        yield f"--name {name!r}: use lower-case letters, digits and '-', and begin with a letter"


def table_mistakes(table: pa.Table, request: Request) -> Iterator[str]:
    """Yields what of the request the table does not allow."""
    names = table.column_names
    if len(names) == 1:
        yield (
            f"there is one column only, '{names[0][:80]}'. Is the separator another one? Give it "
            "with --separator ';' (or '\\t')"
        )
    yield from _option_mistakes(table, request)
    for name in names:
        if _is_too_large(table[name]):
            yield f"column '{name}' has infinite numbers, or some that are too large for float32"
    if table.num_rows < FEWEST_ROWS:
        yield (
            f"{table.num_rows} rows are too few: train, eval and test each need some. At least "
            f"{FEWEST_ROWS} are needed, and some hundreds for a model worth having"
        )
    if request.label in names:
        yield from _label_mistakes(table[request.label], request)


def _option_mistakes(table: pa.Table, request: Request) -> Iterator[str]:
    names = table.column_names
    wanted = [("--label", request.label), ("--key", request.key), ("--time", request.time)]
    wanted += [("--keep", name) for name in request.keep]
    wanted += [("--exclude", name) for name in request.exclude]
    for option, name in wanted:
        if name is not None and name not in names:
            yield f"{option} {name}: there is no such column{_like(name, names)}"
        elif option != "--label" and name == request.label:
            yield f"{option} {name}: that is the label"
    both = sorted(set(request.keep) & {*request.exclude, request.key, request.time})
    if both:
        yield f"--keep {', '.join(both)}: also left out by another option"
    for option, name in wanted[1:3]:
        if name in names and table[name].null_count:
            yield f"{option} {name}: is empty in {table[name].null_count:,} rows; all need a value"
    if request.time in names and not profiling.sorts_by_time(table[request.time]):
        yield (
            f"--time {request.time}: these texts do not sort by time. Write them as 2024-01-31, or "
            "as seconds since 1970"
        )


def _is_too_large(column: pa.ChunkedArray) -> bool:
    if not pa.types.is_floating(column.type):
        return False
    largest = pc.max(pc.abs(column)).as_py()
    return largest is not None and largest > _LARGEST


def _label_mistakes(label: pa.ChunkedArray, request: Request) -> Iterator[str]:
    name, rows, empty = request.label, len(label), label.null_count
    distinct = pc.count_distinct(label, mode="only_valid").as_py()
    if empty == rows:
        yield f"the label '{name}' is empty in all rows"
    elif distinct < 2:
        value = str(label.drop_null()[0].as_py())[:40]
        yield f"the label '{name}' is always '{value}': there is nothing to learn"
    elif empty and not request.quarantine:
        yield (
            f"the label '{name}' is empty in {empty:,} of {rows:,} rows ({empty / rows:.1%}). Fill "
            "or remove those rows, or add --quarantine: then each run sets them aside "
            "(data.bad_rows)"
        )


def _like(name: str, names: Sequence[str]) -> str:
    lower = {n.strip().lower(): n for n in names}
    close = [lower[name.strip().lower()]] if name.strip().lower() in lower else (
        difflib.get_close_matches(name, names, n=1))  # fmt: skip
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; there are: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"


def stop(subject: str, mistakes: Iterable[str]) -> None:
    """Stops if there is any mistake.

    Raises:
      PipelineStop: lists them.
    """
    found = [mistake if mistake.endswith("?") else f"{mistake}." for mistake in mistakes]
    if len(found) == 1:
        raise PipelineStop(f"{subject}: {found[0]}")
    if found:
        lines = "\n".join(f"  {mistake}" for mistake in found)
        raise PipelineStop(f"{subject}: {len(found)} things are wrong:\n{lines}")
