"""Logged predictions and late labels, joined by key in SQL; and rows of the log as examples.

DuckDB holds keys, times and labels, and spills to disk beyond its memory. The features stay in
the log's files, which are read again, a batch at a time, for the rows that were joined.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.continued_evaluation.settings import Labels
from components.errors import PipelineStop
from components.evaluation.thresholds import LOGGED_PREDICTION
from components.ingest import rows
from components.ingest.batches import as_lists
from components.ingest.settings import Kind
from components.ingest.spans import fingerprint

VERSION, PREDICTION = "__version", LOGGED_PREDICTION
"""The columns that examples from the log have beside the features."""
_COLUMNS = {"key", "version", "time", "prediction"}
_ROWS = 4096
_SHOWN = 30
_TRIMMED = r"regexp_replace({}::VARCHAR, '^[\s\p{{Z}}]+|[\s\p{{Z}}]+$', '', 'g')"


class Log(NamedTuple):
    """Files of a model's prediction log, sorted, and what identifies them."""

    files: list[str]
    fingerprint: str


class Label(NamedTuple):
    """The label in the examples."""

    column: str
    kind: Kind
    classes: Sequence[str | int | float] | None
    """The values that it can have; None if it is a number to predict."""


@dataclass
class Outcome:
    """What became of predictions and labels.

    Attributes:
      counts: By field of `evidence.Joined`.
      columns: Those that all rows of the version have.
      digest: Of the joined rows' keys, times and labels; the same in any order.
      unlabelled: The first key of the version, in order, without a label; None if there is none.
      unasked: The first key with a label, in order, that the version did not predict.
    """

    counts: Counter[str] = field(default_factory=Counter)
    columns: list[str] = field(default_factory=list)
    digest: str = ""
    unlabelled: str | None = None
    unasked: str | None = None


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


def join(
    log: Sequence[str], files: Sequence[str], labels: Labels, label: Label, version: int
) -> Iterator[Any]:
    """Joins; yields the `Outcome`, then (file of the log, row numbers, labels) for each file.

    Of several predictions of a key the last counts; labels of a key that differ are not used.

    Args:
      log: The log's files.
      files: The label files: CSV, or Parquet.
      labels: How they are written.
      label: What a label can be.
      version: That is judged.

    Raises:
      PipelineStop: A file cannot be read to its end, or has not these columns.
    """
    with rows.tables(files, labels.csv) as tables:
        run = tables.connection
        columns = _load_log(run, log, version)
        malformed = _load_labels(tables, files, labels, label)
        run.execute(_LAST, {"version": version})
        run.execute(_ONE_LABEL)
        run.execute(_JOINED)
        found = run.execute(_COUNTS, {"version": version})
        names = [name for name, *_ in found.description or ()]
        counts = Counter(dict(zip(names, found.fetchall()[0], strict=True)))
        counts["malformed_labels"] += malformed
        outcome = Outcome(counts, columns, *run.execute(_KEYS).fetchall()[0])
        yield outcome
        joined = run.execute(_BY_FILE)
        while (of_file := joined.fetchone()) is not None:
            yield log[of_file[0]], np.array(of_file[1], np.int64), of_file[2]


def _load_log(run: Any, log: Sequence[str], version: int) -> list[str]:
    """Makes the table `log`; the columns that all rows of a version have come back."""
    run.execute(
        "CREATE TABLE log "
        "(file INT, row BIGINT, key VARCHAR, version BIGINT, time BIGINT, bare BOOL)"
    )
    common: set[str] | None = None
    for number, path in enumerate(log):
        with _opened(path) as file:
            table = file.read(["key", "version", "time"])
            names = features_of(file)
        if len(table) and table["version"][0].as_py() == version:
            common = names if common is None else common & names
        keys = pc.fill_null(pc.utf8_trim_whitespace(table["key"]), "")
        values = {"key": keys, "version": table["version"], "time": table["time"].cast(pa.int64())}
        run.register("new", pa.table({"row": np.arange(len(table)), **values}))
        run.execute(
            "INSERT INTO log SELECT $1, row, key, version, time, $2 FROM new", [number, not names]
        )
    return sorted(common or ())


def _load_labels(tables: rows.Tables, files: Sequence[str], labels: Labels, label: Label) -> int:
    """Makes the table `labels` (key, label, outcome); the number of rows that are none is back."""
    for file in files:
        _check_columns(file, tables.columns(file), labels)
    wanted = rows.Columns({labels.key: None, labels.label: None}, label=labels.label, exact=False)
    loaded = tables.load("given", files, wanted)
    text = _TRIMMED.format(rows.quoted(labels.label))
    value = (
        text
        if label.kind == "BYTES"
        else rows.value_of(label.kind, "VARCHAR", "text", labels.csv, is_label=False)
    )
    tables.connection.execute(
        f"CREATE TABLE labels AS SELECT key, label, CASE WHEN coalesce(key, '') = '' "
        f"THEN 'labels_without_key' WHEN coalesce(text, '') = '' THEN 'empty_labels' "
        f"WHEN coalesce({_allowed(label)}, false) THEN 'used' ELSE 'malformed_labels' END AS what "
        f"FROM (SELECT *, {value.replace(text, 'text')} AS label FROM (SELECT "
        f"{_TRIMMED.format(rows.quoted(labels.key))} AS key, {text} AS text FROM given))"
    )
    return loaded.bad


def _check_columns(path: str, header: Iterable[str], labels: Labels) -> None:
    names = [*header]
    mistakes = [
        f"continued_evaluation.labels.{setting} is '{name}', and the file has no such column"
        for setting, name in (("key", labels.key), ("label", labels.label))
        if name not in names
    ]
    if mistakes:
        more = ", …" if len(names) > _SHOWN else ""
        raise PipelineStop(
            f"{path}: {'; '.join(mistakes)}. Its columns: {', '.join(names[:_SHOWN])}{more}. "
            "Correct the setting or the file."
        )


def _allowed(label: Label) -> str:
    """SQL for whether a label is one."""
    if label.classes is None:
        return "NOT isinf(label)" if label.kind == "FLOAT" else "label IS NOT NULL"
    sql_type = {"INT": "BIGINT", "FLOAT": "FLOAT", "BYTES": "VARCHAR"}[label.kind]
    classes = (f"TRY_CAST({rows.literal(str(name))} AS {sql_type})" for name in label.classes)
    return f"label IN ({', '.join(classes)})"


_LAST = """
CREATE TABLE last AS
SELECT key, max(time) AS time, arg_max(file, (time, file, row)) AS file,
       arg_max(row, (time, file, row)) AS row, arg_max(bare, (time, file, row)) AS bare,
       count(*) AS predictions
FROM log WHERE version = $version AND key <> '' GROUP BY key
"""
_ONE_LABEL = """
CREATE TABLE answers AS
SELECT key, any_value(label) AS label, count(*) AS labels, count(DISTINCT label) AS different
FROM labels WHERE what = 'used' GROUP BY key
"""
_JOINED = """
CREATE TABLE joined AS
SELECT key, time, file, row, bare, label, labels
FROM last JOIN answers USING (key) WHERE different = 1
"""
_COUNTS = """
WITH unasked AS (
    SELECT labels, key IN (SELECT key FROM log) AS predicted FROM answers ANTI JOIN last USING (key)
)
SELECT
    (SELECT count(*) FROM joined) AS joined,
    (SELECT count(*) FROM last) - (SELECT count(*) FROM joined) AS unlabelled,
    (SELECT count(*) FROM log WHERE version = $version AND key = '') AS without_key,
    (SELECT count(*) FROM log WHERE version <> $version) AS other_versions,
    (SELECT coalesce(sum(predictions - 1), 0)::BIGINT FROM last) AS repeated_predictions,
    (SELECT coalesce(sum(labels - 1), 0)::BIGINT FROM joined) AS repeated_labels,
    (SELECT coalesce(sum(labels), 0)::BIGINT FROM last JOIN answers USING (key)
     WHERE different > 1) AS conflicting_labels,
    (SELECT coalesce(sum(labels), 0)::BIGINT FROM unasked WHERE NOT predicted) AS foreign_labels,
    (SELECT coalesce(sum(labels), 0)::BIGINT FROM unasked WHERE predicted)
        AS labels_of_other_versions,
    (SELECT count(*) FROM labels WHERE what = 'labels_without_key') AS labels_without_key,
    (SELECT count(*) FROM labels WHERE what = 'empty_labels') AS empty_labels,
    (SELECT count(*) FROM labels WHERE what = 'malformed_labels') AS malformed_labels,
    (SELECT count(*) FROM joined WHERE bare) AS without_features
"""
_KEYS = """
SELECT
    (SELECT coalesce(bit_xor(md5_number(concat_ws('|', key, time, label))), 0)::VARCHAR
     FROM joined),
    (SELECT min(key) FROM last ANTI JOIN joined USING (key)),
    (SELECT min(key) FROM answers ANTI JOIN last USING (key))
"""
_BY_FILE = """
SELECT file, list(row ORDER BY row), list(label ORDER BY row)
FROM joined GROUP BY file ORDER BY file
"""


Chosen = tuple[Label, np.ndarray, Sequence[Any]]
"""Rows of a file, by their numbers int64 [N], ascending; and their labels [N]."""


def examples_of(
    path: str, version: int, types: dict[str, str], chosen: Chosen | None = None
) -> Iterator[pa.RecordBatch]:
    """Yields rows of a file of the log as lists: the features, VERSION, PREDICTION and the label.

    Args:
      path: The file.
      version: A file of another version has no rows.
      types: The schema's type of each column, which a logged one must have.
      chosen: The rows that are wanted, with their labels; None for all, without.

    Raises:
      PipelineStop: The file cannot be read, or a column has another type.
    """
    first = 0
    with _opened(path) as file:
        for batch in file.iter_batches(_ROWS):
            if batch["version"][0].as_py() != version:
                return
            lists = _as_lists(batch, types, version)
            if chosen is None:
                yield lists
            else:
                label, rows, values = chosen
                begin = int(np.searchsorted(rows, first))
                end = int(np.searchsorted(rows, first + len(batch)))
                taken = lists.take(pa.array(rows[begin:end] - first))
                yield taken.append_column(label.column, _labels(label, values[begin:end]))
            first += len(batch)


def _labels(label: Label, values: Sequence[Any]) -> pa.Array:
    typed = pa.array(values, pa.string() if label.kind == "BYTES" else rows.ARROW[label.kind])
    column = typed.cast(pa.binary()) if label.kind == "BYTES" else typed
    return as_lists(pa.record_batch([column], ["label"]))["label"]


def inputs_alone(lists: pa.RecordBatch) -> pa.RecordBatch | None:
    """The features of rows that `examples_of` yields; None if none is logged."""
    names = [name for name in lists.schema.names if name not in (VERSION, PREDICTION)]
    return lists.select(names) if names else None


def _as_lists(batch: pa.RecordBatch, types: dict[str, str], version: int) -> pa.RecordBatch:
    columns: dict[str, pa.Array] = {}
    if "features" in batch.schema.names:
        logged = batch["features"]
        columns = dict(zip([field.name for field in logged.type], logged.flatten(), strict=True))
    _check_types(columns, types, version)
    flat = {
        name: column.cast(pa.binary()) if pa.types.is_string(column.type) else column
        for name, column in columns.items()
    }
    lists = as_lists(pa.RecordBatch.from_pydict({**flat, VERSION: batch["version"]}))
    return lists.append_column(PREDICTION, batch["prediction"])


def _check_types(columns: dict[str, pa.Array], types: dict[str, str], version: int) -> None:
    kinds = {arrow_type: kind for kind, arrow_type in rows.ARROW.items()}
    mistakes = [
        f"'{name}' is {kinds.get(column.type, column.type)} and in the schema {types[name]}"
        for name, column in columns.items()
        if name in types and column.type not in (rows.ARROW[types[name]], pa.null())
    ]
    if mistakes:
        raise PipelineStop(
            f"The log of version {version} does not fit the schema: {', '.join(mistakes)}. Set the "
            "type in the schema back, or promote a version that was trained with it."
        )


def features_of(file: pq.ParquetFile) -> set[str]:
    """The columns whose values a file of the log has."""
    schema = file.schema_arrow
    if "features" not in schema.names:
        return set()
    return {column.name for column in schema.field("features").type}


@contextlib.contextmanager
def _opened(path: str) -> Iterator[pq.ParquetFile]:
    """A file of the log.

    Raises:
      PipelineStop: It cannot be read.
    """
    try:
        with pq.ParquetFile(path) as file:
            if lacking := sorted(_COLUMNS - set(file.schema_arrow.names)):
                raise pa.ArrowInvalid(f"it lacks {', '.join(lacking)}")
            yield file
    except (OSError, pa.ArrowException) as error:
        raise PipelineStop(
            f"{path} cannot be read ({str(error)[:200]}). Restore the file, or move it out of the "
            "prediction log; its predictions are not judged then."
        ) from error
