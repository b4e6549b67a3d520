"""The prediction log as examples: LabelledLog joins it with late labels, ServedInputs has it all.

The join is SQL: DuckDB holds keys, times and labels, and spills to disk beyond its memory. The
features stay in the log's files, and are read a batch at a time. No other component of TFX is
imported, so that a step of its own does not wait for them.
"""

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from tfx import types
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration.portable import data_types
from tfx.types import standard_artifacts

from components import files
from components.continued_evaluation.evidence import Joined
from components.continued_evaluation.settings import Labels
from components.errors import PipelineStop
from components.evaluation.thresholds import LOGGED_PREDICTION
from components.features.table import FeatureTable
from components.inference.model import choose
from components.ingest import rows
from components.ingest.batches import as_lists
from components.ingest.component import describe, describe_spans
from components.ingest.settings import Kind, Spans
from components.ingest.spans import Inputs, check_unchanged, fingerprint, resolve
from components.registry.finding import FindingDriver

SPLIT, SERVED = "test", "served"
JOINED_FILE = "joined.json"
JUDGED_VERSION, LOGGED_COLUMNS = "judged_version", "logged_columns"
"""Custom properties: whose predictions they are, and the columns that all of them have (JSON)."""
VERSION, PREDICTION = "__version", LOGGED_PREDICTION
"""The columns that examples from the log have beside the features."""
_PROGRESS = logging.getLogger("progress")
_COLUMNS = {"key", "version", "time", "prediction"}
_ROWS, _SHOWN = 4096, 30
_TRIMMED = r"coalesce(regexp_replace({}::VARCHAR, '^[\s\p{{Z}}]+|[\s\p{{Z}}]+$', '', 'g'), '')"


class Label(NamedTuple):
    """The label in the examples."""

    column: str
    kind: Kind
    classes: Sequence[str | int | float] | None
    """The values that it can have; None if it is a number to predict."""


class Outcome(NamedTuple):
    """What became of predictions and labels.

    Attributes:
      counts: What became of each row.
      columns: Those that all rows of the version have.
      digest: Of the joined rows' keys, times and labels; the same in any order.
    """

    counts: Joined
    columns: list[str]
    digest: str


def log_files(predictions: str, model: str, days: int) -> list[str]:
    """The files of the last `days` days, up to the newest that is logged; there may be none."""
    found = {path: _day(path) for path in Path(predictions, model).resolve().glob("*/*.parquet")}
    newest = max(found.values(), default=0)
    return sorted(str(path) for path, day in found.items() if day and newest - day < days)


def _day(path: Path) -> int:
    """The number of the day that a file's folder is named after; 0 if it is none."""
    try:
        return date.fromisoformat(path.parent.name).toordinal()
    except ValueError:
        return 0


def join(
    tables: rows.Tables,
    log: Sequence[str],
    files: Sequence[str],
    labels: Labels,
    label: Label,
    version: int,
) -> Outcome:
    """Joins a version's logged predictions with labels, as the table `joined`.

    Of several predictions of a key the last counts; labels of a key that differ are not used.

    Args:
      tables: May read all files.
      log: The log's files.
      files: The label files: CSV, JSON lines or Parquet.
      labels: How they are written.
      label: What a label can be.
      version: That is judged.

    Raises:
      PipelineStop: A file cannot be read to its end or has not these columns, or nothing can be
        joined.
    """
    features, run = [logged_columns(path) for path in log], tables.connection
    try:
        run.execute(_LOG.format(key=_TRIMMED.format("key")), [[*log]])
    except duckdb.Error as error:
        raise _unreadable("The prediction log", error) from error
    bad = _load_labels(tables, files, labels, label)
    run.execute(_JOIN.format(version=version))
    bare = [number for number, names in enumerate(features) if not names]
    [counts] = run.sql(_COUNTS.format(version=version, bare=bare)).to_arrow_table().to_pylist()
    [(digest, unlabelled, unasked)] = run.sql(_KEYS).fetchall()
    own = run.sql(f"SELECT DISTINCT file FROM log WHERE version = {version}").fetchall()
    counts["malformed_labels"] += bad
    if not counts["joined"]:
        raise _nothing_joined(counts, version, unlabelled, unasked)
    columns = set.intersection(*(features[number] for (number,) in own))
    return Outcome(Joined(**counts), sorted(columns), digest)


def _load_labels(tables: rows.Tables, files: Sequence[str], labels: Labels, label: Label) -> int:
    """Makes the table `labels` (key, label, what); returns how many rows of the files are none."""
    for file in files:
        _check_columns(file, [*tables.columns(file)], labels)
    wanted = rows.Columns({labels.key: None, labels.label: None}, label=labels.label, exact=False)
    tables.create("given", files, wanted)
    bad = sum(reading.bad for reading in tables.fill("given", files, wanted))
    value, allowed = "text", "NOT isinf(label)" if label.kind == "FLOAT" else "label IS NOT NULL"
    if label.kind != "BYTES":
        value = rows.number(label.kind, "text", labels.csv)
    if label.classes is not None:
        kind = {"INT": "BIGINT", "FLOAT": "FLOAT", "BYTES": "VARCHAR"}[label.kind]
        classes = (f"TRY_CAST({rows.literal(str(name))} AS {kind})" for name in label.classes)
        allowed = f"label IN ({', '.join(classes)})"
    key, text = (_TRIMMED.format(rows.quoted(name)) for name in (labels.key, labels.label))
    tables.connection.execute(
        f"CREATE TABLE labels AS SELECT key, label, CASE WHEN key = '' THEN 'labels_without_key' "
        f"WHEN text = '' THEN 'empty_labels' WHEN coalesce({allowed}, false) THEN 'used' "
        f"ELSE 'malformed_labels' END AS what "
        f"FROM (SELECT *, {value} AS label FROM (SELECT {key} AS key, {text} AS text FROM given))"
    )
    return bad


def _check_columns(path: str, names: Sequence[str], labels: Labels) -> None:
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


def _nothing_joined(
    counts: Mapping[str, int], version: int, unlabelled: str | None, unasked: str | None
) -> PipelineStop:
    """The error for no joined row, with the first key of each side that has no other."""
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    of_log = f"the key {unlabelled!r}" if unlabelled else "no keys"
    of_labels = f"labels of the key {unasked!r}" if unasked else "no other labels"
    return PipelineStop(
        f"No label could be joined with a prediction of version {version}: "
        f"{told.replace('_', ' ')}. The log has {of_log} of this version, and the files have "
        f"{of_labels}. Write keys in the same way on both sides, or wait for more predictions "
        "or labels."
    )


_LOG = """
CREATE TABLE log AS
SELECT file_index AS file, file_row_number AS row, {key} AS key, version, epoch_us(time) AS time
FROM read_parquet($1, union_by_name = true)
"""
_JOIN = """
CREATE TABLE last AS
SELECT key, max(time) AS time, arg_max(file, (time, file, row)) AS file,
       arg_max(row, (time, file, row)) AS row, count(*) AS predictions
FROM log WHERE version = {version} AND key <> '' GROUP BY key;
CREATE TABLE answers AS
SELECT key, any_value(label) AS label, count(*) AS labels, count(DISTINCT label) AS different
FROM labels WHERE what = 'used' GROUP BY key;
CREATE TABLE joined AS
SELECT key, time, file, row, label, labels
FROM last JOIN answers USING (key) WHERE different = 1
"""
_COUNTS = """
WITH unasked AS (
    SELECT labels, key IN (SELECT key FROM log) AS predicted FROM answers ANTI JOIN last USING (key)
)
SELECT
    (SELECT count(*) FROM joined) AS joined,
    (SELECT count(*) FROM last) - (SELECT count(*) FROM joined) AS unlabelled,
    (SELECT count(*) FROM log WHERE version = {version} AND key = '') AS without_key,
    (SELECT count(*) FROM log WHERE version <> {version}) AS other_versions,
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
    (SELECT count(*) FROM joined WHERE list_contains({bare}::BIGINT[], file::BIGINT))
        AS without_features
"""
_FILES = """
SELECT DISTINCT file_index FROM read_parquet($1, union_by_name = true) WHERE version = $2 ORDER BY 1
"""
_ROWS_OF = """
SELECT {columns} FROM read_parquet($1, union_by_name = true, file_row_number = true) AS logged
"""
_JOINED = "JOIN joined ON file = {}[logged.file_index::BIGINT + 1] AND row = logged.file_row_number"
_KEYS = """
SELECT
    (SELECT coalesce(bit_xor(md5_number(concat_ws('|', key, time, label))), 0)::VARCHAR
     FROM joined),
    (SELECT min(key) FROM last ANTI JOIN joined USING (key)),
    (SELECT min(key) FROM answers ANTI JOIN last USING (key))
"""


def logged_rows(
    run: duckdb.DuckDBPyConnection,
    log: Sequence[str],
    version: int,
    types: Mapping[str, str],
    label: str = "",
) -> Iterator[pa.RecordBatch]:
    """Yields a version's rows of the log that have features as lists, with VERSION and PREDICTION.

    Args:
      run: May read the log.
      log: Its files, each of one version.
      version: Whose rows.
      types: The schema's type of each column, which a logged one must have.
      label: Only the rows of the table `joined`, also without features, with the label as this
        column.

    Raises:
      PipelineStop: A file cannot be read, or a column has another type.
    """
    features = [logged_columns(path) for path in log]
    try:
        found = run.execute(_FILES, [[*log], version]).fetchall() if log else []
        own = [number for (number,) in found if label or features[number]]
        columns = ["version", "prediction", *(["label"] if label else [])]
        columns += ["features"] if any(features[number] for number in own) else []
        query = _ROWS_OF.format(columns=", ".join(columns)) + (_JOINED.format(own) if label else "")
        if own:
            relation = run.sql(query, params=[[log[number] for number in own]])
            for batch in relation.to_arrow_reader(_ROWS):
                yield _as_lists(batch, types, version, label)
    except (duckdb.Error, OSError, pa.ArrowException) as error:
        raise _unreadable("The prediction log", error) from error


def _as_lists(
    batch: pa.RecordBatch, types: Mapping[str, str], version: int, label: str
) -> pa.RecordBatch:
    columns: dict[str, pa.Array] = {label: batch["label"]} if label else {}
    if "features" in batch.schema.names:
        logged = batch["features"]
        columns |= zip([field.name for field in logged.type], logged.flatten(), strict=True)
    kinds = {arrow_type: kind for kind, arrow_type in rows.ARROW.items()}
    mistakes = [
        f"'{name}' is {kinds.get(column.type, column.type)} and in the schema {types[name]}"
        for name, column in columns.items()
        if name in types and kinds.get(column.type) != types[name]
    ]
    if mistakes:
        raise PipelineStop(
            f"The log of version {version} does not fit the schema: {', '.join(mistakes)}. Set the "
            "type in the schema back, or promote a version that was trained with it."
        )
    flat = {
        name: column.cast(pa.binary()) if pa.types.is_string(column.type) else column
        for name, column in columns.items()
    }
    lists = as_lists(pa.RecordBatch.from_pydict({**flat, VERSION: batch["version"]}))
    return lists.append_column(PREDICTION, batch["prediction"])


def logged_columns(path: str) -> set[str]:
    """The columns whose values a file of the log has.

    Raises:
      PipelineStop: It cannot be read.
    """
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    if lacking := sorted(_COLUMNS - {*schema.names}):
        raise _unreadable(path, f"it lacks {', '.join(lacking)}")
    return {c.name for c in schema.field("features").type} if "features" in schema.names else set()


def _unreadable(what: str, why: object) -> PipelineStop:
    return PipelineStop(
        f"{what} cannot be read ({str(why)[:300]}). Restore the file, or move it out of the "
        "prediction log; its predictions are not judged then."
    )


class LogDriver(FindingDriver):
    """Finds version, log and, where they are joined, label files: a part of the cache key."""

    def find(self, info: data_types.ExecutionInfo) -> dict[str, Any]:
        """See `find`."""
        return find(info.exec_properties)


def find(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a component's properties ask for: the version, the log's identity, the label `Inputs`.

    Raises:
      PipelineStop: One of them is not there.
    """
    folder = os.path.join(given["registry"], given["model_name"])
    found: dict[str, Any] = {"version": int(given["version"]) or choose(folder).version}
    labels = Labels.model_validate_json(given["labels"]) if "labels" in given else None
    days = labels.days if labels else int(given["days"])
    log = log_files(given["predictions"], given["model_name"], days)
    if labels and not log:
        raise PipelineStop(
            f"There is no prediction log in {Path(given['predictions'], given['model_name'])}. Set "
            "prediction_log.enabled=true and send a key with each row to predict; or, if the data "
            "itself has labels, set continued_evaluation.labels=null."
        )
    found["log"] = fingerprint(os.path.realpath(given["predictions"]), log)
    if labels:
        found["labels"] = vars(_label_files(given["labels_folder"], labels, str(given["span"])))
    return found


def _label_files(folder: str, labels: Labels, span: str) -> Inputs:
    if span != "newest" and not span.isdecimal():
        raise PipelineStop(f"The span is '{span}'; it can be newest, or a number.")
    wanted: Spans = int(span) if span.isdecimal() else "newest"
    try:
        return resolve(folder, labels.pattern, wanted)
    except PipelineStop as stop:  # in the words of the ingest, which reads other settings
        text = re.sub(r"\bdata\.(path|pattern)\b", r"continued_evaluation.labels.\1", str(stop))
        text = text.replace("data.spans", "the span").replace("The data folder", "The folder")
        raise PipelineStop(f"Labels: {text}") from stop


@component
def LabelledLog(
    examples: OutputArtifact[standard_artifacts.Examples],
    predictions: Parameter[str],
    registry: Parameter[str],
    model_name: Parameter[str],
    version: Parameter[int],
    labels: Parameter[str],
    labels_folder: Parameter[str],
    span: Parameter[str],
    features: Parameter[str],
    columns: Parameter[str],
    code: Parameter[str],
    found: Parameter[str] = "",
) -> None:
    """Joins a version's logged predictions with labels that came later, by key.

    Of several predictions of a key the last counts. Keys are compared as text, without whitespace
    around: an integer is logged in decimal.

    Args:
        examples: Output: a standard Examples artifact with the split test. An example has the
            columns that are logged, the label as the schema names and types it, `__version` (INT)
            and `__prediction` (FLOAT, a list). `joined.json` is an `evidence.Joined`. Custom
            properties, beside the ingest's: `judged_version`, and `logged_columns`.
        predictions: The folder of the prediction logs.
        registry: The folder of all registered models.
        model_name: The model's folder in both.
        version: Which version; 0 for the champion at run time.
        labels: `settings.Labels` as JSON.
        labels_folder: Its `path`, resolved.
        span: Which span of the labels: newest, or a number.
        features: The FeatureTable as JSON, for the label and what it can be.
        columns: The schema's type of each column, as JSON.
        code: Fingerprint of the code this depends on, for the cache.
        found: What the driver found; where none has run, as on Kubeflow Pipelines, "".

    Raises:
        PipelineStop: If the files cannot be used as they are, or nothing can be joined.
    """
    del code
    given = {
        "predictions": predictions,
        "registry": registry,
        "model_name": model_name,
        "version": version,
        "labels": labels,
        "labels_folder": labels_folder,
        "span": span,
    }
    there = json.loads(found) if found else find(given)
    number, inputs = there["version"], Inputs(**there["labels"])
    settings, table = Labels.model_validate_json(labels), FeatureTable.model_validate_json(features)
    kinds = json.loads(columns)
    classes = table.label.classes or ([0, 1] if table.problem == "binary" else None)
    label = Label(table.label.column, kinds[table.label.column], classes)
    log = log_files(predictions, model_name, settings.days)
    # Of the label files alone: a log grows while it is read, and its files never change.
    check_unchanged(labels_folder, inputs, "Label files")
    with rows.tables([*inputs.files, *log], settings.csv) as tables:
        outcome = join(tables, log, inputs.files, settings, label, number)
        if outcome.counts.without_features:
            _PROGRESS.warning(
                "%s of %s joined predictions have no logged features: they can be judged, and not "
                "be computed again",
                f"{outcome.counts.without_features:,}",
                f"{outcome.counts.joined:,}",
            )
        batches = logged_rows(tables.connection, log, number, kinds, label.column)
        _write(examples, SPLIT, batches)
    check_unchanged(labels_folder, inputs, "Label files")
    files.write_atomically(f"{examples.uri}/{JOINED_FILE}", outcome.counts.model_dump_json())
    source = f"{inputs.fingerprint},joined:{outcome.digest}"
    describe(examples, {SPLIT: outcome.counts.joined}, source)
    describe_spans(examples, inputs)
    examples.set_int_custom_property(JUDGED_VERSION, number)
    examples.set_string_custom_property(LOGGED_COLUMNS, json.dumps(outcome.columns))


@component
def ServedInputs(
    examples: OutputArtifact[standard_artifacts.Examples],
    predictions: Parameter[str],
    registry: Parameter[str],
    model_name: Parameter[str],
    version: Parameter[int],
    days: Parameter[int],
    columns: Parameter[str],
    code: Parameter[str],
    found: Parameter[str] = "",
) -> None:
    """Puts out what a version was given to predict, as it was logged, for StatisticsGen.

    Args:
        examples: Output: a standard Examples artifact with the split served, and the rows in its
            custom property `rows_served`. They are 0, and the split empty, if nothing is logged.
        predictions: As of `LabelledLog`, and so are all others but:
        registry: See there.
        model_name: See there.
        version: See there.
        days: The last days of the log, up to the newest that is logged.
        columns: See there.
        code: See there.
        found: See there.

    Raises:
        PipelineStop: If a file of the log cannot be used.
    """
    del code
    given = {
        "predictions": predictions,
        "registry": registry,
        "model_name": model_name,
        "version": version,
        "days": days,
    }
    there = json.loads(found) if found else find(given)
    log = log_files(predictions, model_name, days)
    with rows.tables(log) as tables:
        own = logged_rows(tables.connection, log, there["version"], json.loads(columns))
        count = _write(examples, SERVED, (one.drop_columns([VERSION, PREDICTION]) for one in own))
    describe(examples, {SERVED: count}, there["log"])
    examples.set_int_custom_property(JUDGED_VERSION, there["version"])


LabelledLog.DRIVER_CLASS = ServedInputs.DRIVER_CLASS = LogDriver


def _write(examples: types.Artifact, split: str, batches: Iterable[pa.RecordBatch]) -> int:
    """Writes batches of lists as tf.Examples of a split, which appears whole; returns the rows."""
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    encoder, rows = RecordBatchToExamplesEncoder(), 0
    with files.new_folder(os.path.join(examples.uri, f"Split-{split}")) as folder:
        path = os.path.join(folder, "data_tfrecord-00000-of-00001.gz")
        with tf.io.TFRecordWriter(path, "GZIP") as writer:
            for batch in batches:
                for example in encoder.encode(batch):
                    writer.write(example)
                rows += len(batch)
    return rows
