"""Logged predictions and late labels as they lie in their files, in bounded memory."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from components.errors import PipelineStop
from components.evaluation.thresholds import LOGGED_PREDICTION
from components.inference import arrow
from components.inference.columns import DTYPES, MISSING
from components.ingest.arrow_types import ARROW, parse
from components.ingest.opening import (
    UNREADABLE,
    Source,
    as_in_file,
    header_of,
    is_unclosed,
    undecodable,
    unreadable,
)
from components.ingest.settings import CsvFormat
from components.ingest.spans import fingerprint
from components.ingest.writing import as_lists

VERSION, PREDICTION = "__version", LOGGED_PREDICTION
"""The columns that examples from the log have beside the features."""
_COLUMNS = {"key", "version", "time", "prediction"}
_ROWS = 4096
_BYTES = 1 << 22
"""Of CSV, read at a time. A row must fit into it."""
_SHOWN = 30


class Log(NamedTuple):
    """Files of a model's prediction log, sorted, and what identifies them."""

    files: list[str]
    fingerprint: str


class Logged(NamedTuple):
    """Rows of the log, of one version."""

    version: int
    keys: list[str]
    """Without whitespace around; "" for a row without a key."""
    times: list[int]
    """Microseconds since 1970."""
    features: list[str]
    """The columns that are logged; none for other versions than the one asked for."""
    examples: pa.RecordBatch | None
    """A list a row: the features, VERSION and PREDICTION; None for other versions."""


@dataclass(frozen=True)
class LabelColumns:
    """The columns of label files, and what a label can be."""

    key: str
    label: str
    kind: str
    """The label's type: INT, FLOAT or BYTES."""
    classes: list[str | int | float] | None
    """The values that a label can have; None if it is a number to predict."""
    csv: CsvFormat = field(default_factory=CsvFormat)
    """How the files are written."""


class Labelled(NamedTuple):
    """Rows of a label file."""

    keys: list[str]
    """Without whitespace around."""
    labels: list[Any]
    left_out: Counter[str]
    """How many other rows there were, by their field of `evidence.Joined`."""


def find_log(predictions: str, model: str, days: int) -> Log:
    """Finds the log of the last `days` days up to the newest that is logged; it may be empty.

    Args:
      predictions: `workspace/predictions`.
      model: The model's name in the registry.
      days: How many days.

    Raises:
      PipelineStop: A file vanishes meanwhile.
    """
    folder = Path(predictions) / model
    days_of = {path: _day(path.parent.name) for path in folder.glob("*/*.parquet")}
    newest = max(days_of.values(), default=0)
    files = sorted(str(path) for path, day in days_of.items() if day and newest - day < days)
    return Log(files, fingerprint(str(folder), files))


def _day(name: str) -> int:
    """The number of the day that a folder is named after; 0 if it is none."""
    try:
        return date.fromisoformat(name).toordinal()
    except ValueError:
        return 0


def read_log(path: str, version: int, types: dict[str, str]) -> Iterator[Logged]:
    """Yields the rows of a file of the log, in order.

    Args:
      path: The file.
      version: Of other versions only the keys are read.
      types: The schema's type of each column, which a logged one must have.

    Raises:
      PipelineStop: The file cannot be read, or a column has another type.
    """
    try:
        with pq.ParquetFile(path) as file:
            if lacking := sorted(_COLUMNS - set(file.schema_arrow.names)):
                raise pa.ArrowInvalid(f"it lacks {', '.join(lacking)}")
            found = _version_of(file)
            wanted = None if found == version else ["key", "time"]
            for batch in file.iter_batches(_ROWS, columns=wanted):
                yield _logged(batch, found, types if wanted is None else None)
    except (OSError, pa.ArrowException) as error:
        raise PipelineStop(
            f"{path} cannot be read ({str(error)[:200]}). Restore the file, or move it out of the "
            "prediction log; its predictions are not judged then."
        ) from error


def _version_of(file: pq.ParquetFile) -> int:
    """The one version of all its rows; 0 if there are none."""
    for first in file.iter_batches(1, columns=["version"]):
        return int(first["version"][0].as_py())
    return 0


def _logged(batch: pa.RecordBatch, version: int, types: dict[str, str] | None) -> Logged:
    keys = pc.fill_null(pc.utf8_trim_whitespace(batch["key"]), "").to_pylist()
    times = batch["time"].cast(pa.int64()).to_pylist()
    if types is None:
        return Logged(version, keys, times, [], None)
    columns: dict[str, pa.Array] = {}
    if "features" in batch.schema.names:
        logged = batch["features"]
        columns = dict(zip([field.name for field in logged.type], logged.flatten(), strict=True))
    _check_types(columns, types, version)
    flat = {name: _as_bytes(column) for name, column in columns.items()}
    lists = as_lists(pa.RecordBatch.from_pydict({**flat, VERSION: batch["version"]}))
    examples = lists.append_column(PREDICTION, batch["prediction"])
    return Logged(version, keys, times, list(columns), examples)


def _as_bytes(column: pa.Array) -> pa.Array:
    return column.cast(pa.binary()) if pa.types.is_string(column.type) else column


def _check_types(columns: dict[str, pa.Array], types: dict[str, str], version: int) -> None:
    kinds = {arrow_type: kind for kind, arrow_type in ARROW.items()}
    mistakes = [
        f"'{name}' is {kinds.get(column.type, column.type)} and in the schema {types[name]}"
        for name, column in columns.items()
        if name in types and column.type != ARROW[types[name]]
    ]
    if mistakes:
        raise PipelineStop(
            f"The log of version {version} does not fit the schema: {', '.join(mistakes)}. Set the "
            "type in the schema back, or promote a version that was trained with it."
        )


def read_labels(path: str, columns: LabelColumns) -> Iterator[Labelled]:
    """Yields the rows of a file with labels, in order; rows that cannot be used are counted.

    Keys and labels are taken without whitespace around. A label is read as `inference.arrow` reads
    a field of CSV, so an integer may be written "1.0", as pandas does where others are missing.

    Args:
      path: A CSV file with a header; gzipped if its name ends in .gz.
      columns: Which of its columns are read, and what a label can be.

    Raises:
      PipelineStop: The file cannot be read to its end, or a column is not there.
    """
    try:
        header = header_of(path, columns.csv)
        _check_header(path, header, columns)
        ragged = _Ragged()
        allowed = _allowed(columns)
        for fields in _read_fields(path, header, columns, ragged):
            yield _usable(fields, columns.kind, allowed)
        yield Labelled([], [], Counter(malformed_labels=ragged.count))
    except UnicodeError as error:
        setting = "continued_evaluation.labels.csv"
        raise PipelineStop(undecodable(path, columns.csv, setting)) from error
    except pa.ArrowInvalid as error:
        raise PipelineStop(
            f"{path} can't be parsed: {error}. Correct it, then run again."
        ) from error
    except UNREADABLE as error:
        raise unreadable(path, error) from error


def _check_header(path: str, header: list[str], columns: LabelColumns) -> None:
    mistakes = [
        f"continued_evaluation.labels.{setting} is '{name}', and the file has "
        + ("no such column" if name not in header else f"{header.count(name)} such columns")
        for setting, name in (("key", columns.key), ("label", columns.label))
        if header.count(name) != 1
    ]
    if mistakes:
        more = ", …" if len(header) > _SHOWN else ""
        raise PipelineStop(
            f"{path}: {'; '.join(mistakes)}. Its columns: {', '.join(header[:_SHOWN])}{more}. "
            "Correct the setting or the file."
        )


class _Ragged:
    """Rows with more or fewer fields than the header: how many, and the last of them."""

    def __init__(self) -> None:
        self.count, self.last, self.text = 0, 0, ""

    def __call__(self, row: Any) -> str:
        self.count, self.last, self.text = self.count + 1, row.number, row.text
        return "skip"


def _read_fields(
    path: str, header: list[str], columns: LabelColumns, ragged: _Ragged
) -> Iterator[pa.RecordBatch]:
    """Yields keys and labels as the bytes that stand in the file."""
    # By number, as other columns may share a name; the header is the first row then.
    names = [str(number) for number in range(len(header))]
    key, label = (names[header.index(name)] for name in (columns.key, columns.label))
    # With marks, because Arrow hands ragged rows out as UTF-8, or ends the process.
    source = Source(path, columns.csv, marks=columns.csv.is_utf8)
    rows, last_value = 0, b""
    parsing = pyarrow.csv.ParseOptions(
        delimiter=columns.csv.separator, newlines_in_values=True, invalid_row_handler=ragged
    )
    for batch in _open_csv(source, names, [*{key, label, names[-1]}], parsing):
        if len(batch):
            fields = pa.RecordBatch.from_arrays([batch[key], batch[label]], ["key", "label"])
            fields = fields.slice(0 if rows else 1)
            yield as_in_file(fields) if source.has_marks else fields
            rows, last_value = rows + len(batch), batch[names[-1]][-1].as_py()
    ends_ragged = ragged.count > 0 and ragged.last == rows + ragged.count
    if ragged.text.count('"') % 2 if ends_ragged else is_unclosed(last_value, source):
        raise OSError("the last quotation mark is not closed; is the file cut off?")


def _open_csv(
    source: Source, names: list[str], wanted: list[str], parsing: pyarrow.csv.ParseOptions
) -> Iterator[pa.RecordBatch]:
    return iter(
        pyarrow.csv.open_csv(
            source,
            # One thread: only then do rows that are set aside have numbers.
            pyarrow.csv.ReadOptions(block_size=_BYTES, use_threads=False, column_names=names),
            parsing,
            pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.binary()), include_columns=wanted
            ),
        )
    )


def _allowed(columns: LabelColumns) -> np.ndarray | None:
    """The classes as values of the label's type; a class that is none cannot be met."""
    if columns.classes is None:
        return None
    values, good = _values(pa.array([str(name) for name in columns.classes]), columns.kind)
    return values[good]


def _usable(fields: pa.RecordBatch, kind: str, allowed: np.ndarray | None) -> Labelled:
    keys, texts = (_trimmed(fields[name]) for name in ("key", "label"))
    no_text = arrow.mask(pc.or_(keys.is_null(), texts.is_null()))
    no_key = ~no_text & _is_empty(keys)
    empty = ~no_text & ~no_key & _is_empty(texts)
    rest = ~no_text & ~no_key & ~empty
    values, good = _values(texts.filter(pa.array(rest)), kind)
    missing = np.isnan(values) if kind == "FLOAT" else np.zeros(len(values), bool)
    if allowed is not None:
        good &= missing | np.isin(values, allowed)
    used = good & ~missing
    left_out = Counter(
        malformed_labels=int(no_text.sum() + (~good).sum()),
        labels_without_key=int(no_key.sum()),
        empty_labels=int(empty.sum() + (good & missing).sum()),
    )
    found = keys.filter(pa.array(rest)).filter(pa.array(used))
    return Labelled(found.to_pylist(), values[used].tolist(), left_out)


def _trimmed(fields: pa.Array) -> pa.Array:
    """As text without whitespace around; null where it is no UTF-8."""
    return pc.utf8_trim_whitespace(parse(fields, pa.string()))


def _is_empty(texts: pa.Array) -> np.ndarray:
    return arrow.mask(pc.fill_null(pc.equal(texts, ""), False))


def _values(texts: pa.Array, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Texts as values of a type, NaN where one is missing, and where they are values at all."""
    signature = {"inputs": {"label": {"type": kind, "required": False}}, "ignored": []}
    batch = pa.RecordBatch.from_arrays([texts.cast(pa.binary())], ["label"])
    checked = arrow.check(signature, batch, typed=False)
    values = np.full(len(texts), MISSING[kind], DTYPES[kind])
    values[checked.good] = checked.columns["label"]
    return values, checked.good
