"""The input files: which there are, whether they can be predicted at all, and the work in them."""

import contextlib
import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.batch_prediction.job import InputFile
from components.errors import PipelineStop
from components.inference import arrow
from components.inference.columns import EXPECTED, unknown_problems
from components.ingest import opening
from components.ingest.arrow_types import is_text
from components.ingest.opening import header_of, hint
from components.ingest.settings import CsvFormat
from components.registry.signature import Signature

BLOCK_ROWS = 1 << 16
"""Rows that are in memory together, and in one shard."""
UNREADABLE = (*opening.UNREADABLE, pa.ArrowException, UnicodeError, BeamIOError)
_ENDINGS = (".csv", ".csv.gz", ".parquet")
_NAME_LIMIT = 10_000
_TOLD = 10


class Wanted(NamedTuple):
    """What is read of a row."""

    signature: Signature
    key: str | None
    columns: Sequence[str]
    """To be carried into the output."""
    csv: CsvFormat = CsvFormat()
    """How CSV files are written."""

    @property
    def names(self) -> list[str]:
        """All of these columns, each once."""
        key = [self.key] if self.key else []
        return [*dict.fromkeys([*key, *self.signature["inputs"], *self.columns])]


class Item(NamedTuple):
    """What one worker reads: a CSV file, or row groups of a Parquet file that follow each other."""

    file: int
    """Its number in the job."""
    path: str
    name: str
    """In the keys of rows that have none, unlike the other files'."""
    names: list[str]
    """The columns to read."""
    before: int = 0
    """Rows of the file before these."""
    rows: int | None = None
    """How many, where that is known."""
    groups: Sequence[int] = ()
    """The row groups of a Parquet file."""
    last_column: str = ""
    """Of the CSV file."""
    csv: CsvFormat = CsvFormat()
    """How it is written."""


def find(pattern: str, output: str) -> list[InputFile]:
    """The files that match, sorted; of a folder on this machine, all that can be inputs.

    Raises:
        PipelineStop: If there are none, or one that is no input.
    """
    # Beam takes "*/x.csv" for nothing, and with whole paths a job is known from any folder.
    whole = pattern if "://" in pattern else os.path.abspath(pattern)
    is_folder = os.path.isdir(whole)
    try:
        (match,) = FileSystems.match([f"{glob.escape(whole)}/*" if is_folder else whole])
    except (ValueError, BeamIOError) as error:
        raise PipelineStop(f"--input {pattern} can't be listed: {error}") from error
    found = [
        InputFile(path=m.path, size=m.size_in_bytes, changed=m.last_updated_in_seconds)
        for m in sorted(match.metadata_list, key=lambda m: m.path)
        if m.path.endswith(_ENDINGS) or not is_folder
    ]
    if problem := _no_input(pattern, output, [file.path for file in found]):
        raise PipelineStop(problem)
    return found


def _no_input(pattern: str, output: str, paths: Sequence[str]) -> str | None:
    """What is wrong with the files that match, if anything."""
    if not paths:
        return (
            f"No file matches --input '{pattern}'. Give a folder of {', '.join(_ENDINGS)} files, "
            "or a pattern, e.g. 'data/*.csv'; in quotation marks, so that the shell leaves it as "
            "it is."
        )
    if others := [path for path in paths if not path.endswith(_ENDINGS)]:
        return (
            f"--input '{pattern}' matches {_listed(others)}. Files must end in "
            f"{', '.join(_ENDINGS)}: choose a pattern that matches only those."
        )
    if own := [path for path in paths if _is_below(path, output)]:
        return (
            f"--input '{pattern}' matches {_listed(own)}, which is below --output {output}. Write "
            "the predictions elsewhere, or they would be the next run's input."
        )
    return None


def plan(files: Sequence[InputFile], wanted: Wanted) -> tuple[list[Item], list[str]]:
    """Looks at each file's columns, without reading its rows.

    Returns:
        The work, and warnings.

    Raises:
        PipelineStop: If files can't be read or lack columns; all mistakes at once.
    """
    items: list[Item] = []
    problems: list[str] = []
    absent: dict[str, list[str]] = {}
    names = _distinct_names([file.path for file in files])
    for number, (file, name) in enumerate(zip(files, names, strict=True)):
        try:
            types, groups = _look(file.path, wanted.csv)
        except (PipelineStop, *UNREADABLE) as error:
            problems.append(unreadable(file.path, error))
            continue
        found = [*_problems(types, wanted)]
        if found and groups is None and (why := hint([*types], wanted.csv)):
            found = [why]
        problems += [f"{file.path}: {problem}" for problem in found]
        for column in wanted.names:
            if column not in types:
                absent.setdefault(column, []).append(file.path)
        there = [column for column in wanted.names if column in types]
        item = Item(number, file.path, name, there, last_column=[*types][-1], csv=wanted.csv)
        items += [item] if groups is None else _grouped(item, groups)
    if problems:
        raise PipelineStop("\n".join(first(problems)))
    return items, [
        f"column '{column}' is not in {_listed(paths)}; it counts as missing"
        for column, paths in absent.items()
    ]


def unreadable(path: str, error: Exception) -> str:
    """What is told of a file that can't be read."""
    if isinstance(error, PipelineStop):
        return str(error)
    if isinstance(error, UnicodeError):
        return f"{path} is in another encoding than data.csv.encoding says: {str(error)[:200]}."
    return f"{path} can't be read: {str(error)[:200]}. Check that it is whole and may be read."


@contextlib.contextmanager
def open_parquet(path: str) -> Iterator[Any]:
    """The bytes of a Parquet file."""
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        yield file


def _look(path: str, csv: CsvFormat) -> tuple[dict[str, pa.DataType | None], list[int] | None]:
    """The columns, with their types if they have any, and the rows of each row group."""
    if not path.endswith(".parquet"):
        return _header(header_of(path, csv)), None
    with open_parquet(path) as file:
        found = pq.ParquetFile(file)
        schema, metadata = found.schema_arrow, found.metadata
        groups = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
        return dict(zip(schema.names, schema.types, strict=True)), groups


def _header(header: list[str]) -> dict[str, pa.DataType | None]:
    if (longest := max(map(len, header))) > _NAME_LIMIT:
        raise OSError(f"its first line is no header (a name of {longest:,} characters)")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise OSError(f"its header has these columns twice: {', '.join(twice)}")
    return dict.fromkeys(header)


def _problems(types: Mapping[str, pa.DataType | None], wanted: Wanted) -> Iterator[str]:
    inputs = wanted.signature["inputs"]
    for problem in unknown_problems(wanted.signature, [types.keys()]):
        yield problem.replace("row 0", "it", 1).replace("it: no", "it has no", 1)
    needed = [name for name, column in inputs.items() if column["required"]]
    given = [*([wanted.key] if wanted.key else []), *wanted.columns]
    for name in dict.fromkeys([*needed, *given]):
        if name not in types:
            why = "the model requires it" if name in needed else _why(name, wanted)
            yield f"there is no column '{name}', and {why}"
    for name, kind in types.items():
        if kind is not None and name in inputs and not arrow.accepts(inputs[name]["type"], kind):
            expected = EXPECTED[inputs[name]["type"]]
            yield f"column '{name}' is {kind}, and must be {expected}; cast it in the file"
    kind = types.get(wanted.key or "")
    if kind is not None and not (is_text(kind) or pa.types.is_integer(kind)):
        yield f"the key '{wanted.key}' is {kind}, and must be a text or an integer"


def _why(name: str, wanted: Wanted) -> str:
    if name == wanted.key:
        return "it is the key; name another column with --key"
    return "--columns asks for it"


def _grouped(item: Item, groups: Sequence[int]) -> Iterator[Item]:
    """Items of whole row groups, of at least a block if there are so many rows."""
    begin, before, rows = 0, 0, 0
    for number, count in enumerate(groups):
        rows += count
        if rows >= BLOCK_ROWS or number == len(groups) - 1:
            yield item._replace(before=before, rows=rows, groups=range(begin, number + 1))
            begin, before, rows = number + 1, before + rows, 0


def _distinct_names(paths: Sequence[str]) -> list[str]:
    """The paths below the folder that all files have in common."""
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [os.path.relpath(path, folder) for path in paths]


def _is_below(path: str, folder: str) -> bool:
    return os.path.abspath(path).startswith(os.path.abspath(folder) + os.sep)


def first(problems: Sequence[str]) -> Iterable[str]:
    """As many as a person reads, and how many more there are."""
    more = len(problems) - _TOLD
    return [*problems[:_TOLD], *([f"and {more} more"] if more > 0 else [])]


def _listed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return f"{', '.join(paths[:3])}{more}"
