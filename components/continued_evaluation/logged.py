"""The prediction log as examples: LabelledLog joins it with late labels, ServedInputs has it all.

The join is SQL: DuckDB holds keys, times and labels, and spills to disk beyond its memory. The
features stay in the log's files, and are read a file at a time, which has some 65,000 rows at most.
"""

import contextlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel
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
from components.ingest.settings import Spans
from components.ingest.spans import Inputs, check_unchanged, fingerprint, resolve
from components.registry.finding import FindingDriver

SPLIT, SERVED = "test", "served"
JOINED_FILE = "joined.json"
JUDGED_VERSION, LOGGED_COLUMNS = "judged_version", "logged_columns"
"""Custom properties: whose predictions they are, and the columns that all of them have (JSON)."""
VERSION, PREDICTION = "__version", LOGGED_PREDICTION
"""The columns that examples from the log have beside the features."""
_PROGRESS = logging.getLogger("progress")
_DAY = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
_FEATURES, _SHOWN = "features.", 30
_TRIMMED = r"coalesce(regexp_replace({}::VARCHAR, '^[\s\p{{Z}}]+|[\s\p{{Z}}]+$', '', 'g'), '')"


class Source(BaseModel):
    """Of which predictions something is to be known."""

    predictions: str
    """The folder of the prediction logs."""
    registry: str
    """The folder of all registered models."""
    model: str
    """The model's folder in both."""
    version: int = 0
    """0: the champion at run time."""
    days: int
    """The last days of the log, up to the newest that is logged."""
    columns: dict[str, str]
    """The schema's type of each column, which a logged one must have."""

    def files(self) -> list[str]:
        """The log's files; there may be none."""
        found = sorted(Path(self.predictions, self.model).resolve().glob(f"{_DAY}/*.parquet"))
        if not found:
            return []
        newest = date.fromisoformat(found[-1].parent.name)
        first = (newest - timedelta(self.days - 1)).isoformat()
        return [str(path) for path in found if path.parent.name >= first]


def _read(path: str) -> pa.Table:
    """The rows of a file of the log, its features as columns `features.<name>`."""
    with _reading(path):
        table = pq.read_table(path).flatten()
        if lacking := sorted({"key", "version", "time", "prediction"} - {*table.column_names}):
            raise OSError(f"it lacks {', '.join(lacking)}")
    return table


def _features(table: pa.Table, kinds: Mapping[str, str]) -> dict[str, pa.ChunkedArray]:
    """The features of a file's rows, by name.

    Args:
      table: The rows.
      kinds: The schema's type of each column, which a logged one must have.

    Raises:
      PipelineStop: A column has another type.
    """
    names = [name for name in table.column_names if name.startswith(_FEATURES)]
    found = {name.removeprefix(_FEATURES): table[name] for name in names}
    own = {arrow_type: kind for kind, arrow_type in rows.ARROW.items()}
    mistakes = [
        f"'{name}' is {own.get(column.type, column.type)} and in the schema {kinds[name]}"
        for name, column in found.items()
        if name in kinds and own.get(column.type) != kinds[name]
    ]
    if mistakes:
        raise PipelineStop(
            f"The log of version {table['version'][0]} does not fit the schema: "
            f"{', '.join(mistakes)}. Set the type in the schema back, or promote a version that "
            "was trained with it."
        )
    return found


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, OSError, pa.ArrowException) as error:
        raise PipelineStop(
            f"{what} cannot be read ({str(error)[:300]}). Restore the file, or move it out of the "
            "prediction log; its predictions are not judged then."
        ) from error


def join(
    tables: rows.Tables,
    log: Sequence[str],
    version: int,
    files: Sequence[str],
    labels: Labels,
    features: FeatureTable,
    kind: str,
) -> tuple[dict[str, int], str]:
    """Joins a version's logged predictions with labels, as the table `joined` (see `_JOIN`).

    Of several predictions of a key the last counts; labels of a key that differ are not used.

    Args:
      tables: May read all files.
      log: The files of the log.
      version: That is judged.
      files: The label files: CSV, JSON lines or Parquet.
      labels: How they are written.
      features: Says what a label can be.
      kind: The label's type in the schema.

    Returns:
      What became of each row, as `Joined`; and a digest of the joined rows' keys, times and
      labels, the same in any order.

    Raises:
      PipelineStop: A file cannot be read to its end or has not these columns, or nothing can be
        joined.
    """
    bad, run = _load_labels(tables, files, labels, features, kind), tables.connection
    with _reading("The prediction log"):
        run.execute(_LOG.format(key=_TRIMMED.format("key")), [[*log]])
    run.execute(_JOIN.format(version=version))
    [counts] = run.sql(_COUNTS.format(version=version)).to_arrow_table().to_pylist()
    [(digest, unlabelled, unasked)] = run.sql(_KEYS).fetchall()
    counts["malformed_labels"] += bad
    if not counts["joined"]:
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        of_log = f"the key {unlabelled!r}" if unlabelled else "no keys"
        of_labels = f"labels of the key {unasked!r}" if unasked else "no other labels"
        raise PipelineStop(
            f"No label could be joined with a prediction of version {version}: "
            f"{told.replace('_', ' ')}. The log has {of_log} of this version, and the files have "
            f"{of_labels}. Write keys in the same way on both sides, or wait for more predictions "
            "or labels."
        )
    return counts, digest


def _load_labels(
    tables: rows.Tables, files: Sequence[str], labels: Labels, features: FeatureTable, kind: str
) -> int:
    """Makes the table `labels` (key, label, what); returns how many rows of the files are none."""
    for file in files:
        names = [*tables.columns(file)]
        mistakes = [
            f"continued_evaluation.labels.{setting} is '{name}', and the file has no such column"
            for setting, name in (("key", labels.key), ("label", labels.label))
            if name not in names
        ]
        if mistakes:
            more = ", …" if len(names) > _SHOWN else ""
            raise PipelineStop(
                f"{file}: {'; '.join(mistakes)}. Its columns: {', '.join(names[:_SHOWN])}{more}. "
                "Correct the setting or the file."
            )
    wanted = rows.Columns({labels.key: None, labels.label: None}, label=labels.label, exact=False)
    tables.create("given", files, wanted)
    bad = sum(reading.bad for reading in tables.fill("given", files, wanted))
    value, allowed = "text", "NOT isinf(label)" if kind == "FLOAT" else "label IS NOT NULL"
    if kind != "BYTES":
        value = rows.number(kind, "text", labels.csv)
    if classes := features.label.classes or ([0, 1] if features.problem == "binary" else []):
        type_ = {"INT": "BIGINT", "FLOAT": "FLOAT", "BYTES": "VARCHAR"}[kind]
        casts = (f"TRY_CAST({rows.literal(str(name))} AS {type_})" for name in classes)
        allowed = f"label IN ({', '.join(casts)})"
    key, text = (_TRIMMED.format(rows.quoted(name)) for name in (labels.key, labels.label))
    tables.connection.execute(
        f"CREATE TABLE labels AS SELECT key, label, CASE WHEN key = '' THEN 'labels_without_key' "
        f"WHEN text = '' THEN 'empty_labels' WHEN coalesce({allowed}, false) THEN 'used' "
        f"ELSE 'malformed_labels' END AS what "
        f"FROM (SELECT *, {value} AS label FROM (SELECT {key} AS key, {text} AS text FROM given))"
    )
    return bad


_LOG = """
CREATE TABLE log AS
SELECT file_index AS file, file_row_number AS row, {key} AS key, version, epoch_us(time) AS time
FROM read_parquet($1)
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
FROM last JOIN answers USING (key) WHERE different = 1 ORDER BY file, row
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
    (SELECT count(*) FROM labels WHERE what = 'malformed_labels') AS malformed_labels
"""
_KEYS = """
SELECT
    (SELECT coalesce(bit_xor(md5_number(concat_ws('|', key, time, label))), 0)::VARCHAR
     FROM joined),
    (SELECT min(key) FROM last ANTI JOIN joined USING (key)),
    (SELECT min(key) FROM answers ANTI JOIN last USING (key))
"""


class LogDriver(FindingDriver):
    """Finds version, log and, where they are joined, label files: a part of the cache key."""

    def find(self, info: data_types.ExecutionInfo) -> dict[str, Any]:
        """See `find`."""
        given = info.exec_properties
        more = (given.get(name, "") for name in ("labels", "labels_folder", "span"))
        return find(Source.model_validate_json(given["log"]), *more)


def find(log: Source, labels: str = "", labels_folder: str = "", span: str = "") -> dict[str, Any]:
    """The version, the log's identity, and the `Inputs` of label files, if they are asked for.

    Raises:
      PipelineStop: One of them is not there.
    """
    folder, there = os.path.join(log.registry, log.model), log.files()
    found: dict[str, Any] = {
        "version": log.version or choose(folder).version,
        "log": fingerprint(os.path.realpath(log.predictions), there),
    }
    if labels and not there:
        raise PipelineStop(
            f"There is no prediction log in {Path(log.predictions, log.model)}. Set "
            "prediction_log.enabled=true and send a key with each row to predict; or, if the data "
            "itself has labels, set continued_evaluation.labels=null."
        )
    if labels:
        found["labels"] = vars(_label_files(labels_folder, labels, span))
    return found


def _label_files(folder: str, labels: str, span: str) -> Inputs:
    pattern = Labels.model_validate_json(labels).pattern
    if span != "newest" and not span.isdecimal():
        raise PipelineStop(f"The span is '{span}'; it can be newest, or a number.")
    wanted: Spans = int(span) if span.isdecimal() else "newest"
    try:
        return resolve(folder, pattern, wanted)
    except PipelineStop as stop:  # in the words of the ingest, which reads other settings
        text = re.sub(r"\bdata\.(path|pattern)\b", r"continued_evaluation.labels.\1", str(stop))
        text = text.replace("data.spans", "the span").replace("The data folder", "The folder")
        raise PipelineStop(f"Labels: {text}") from stop


@component
def LabelledLog(
    examples: OutputArtifact[standard_artifacts.Examples],
    log: Parameter[str],
    labels: Parameter[str],
    labels_folder: Parameter[str],
    span: Parameter[str],
    features: Parameter[str],
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
        log: A `Source` as JSON.
        labels: `settings.Labels` as JSON.
        labels_folder: Its `path`, resolved.
        span: Which span of the labels: newest, or a number.
        features: The FeatureTable as JSON, for the label and what it can be.
        code: Fingerprint of the code this depends on, for the cache.
        found: What the driver found; where none has run, as on Kubeflow Pipelines, "".

    Raises:
        PipelineStop: If the files cannot be used as they are, or nothing can be joined.
    """
    del code
    source, settings = Source.model_validate_json(log), Labels.model_validate_json(labels)
    table = FeatureTable.model_validate_json(features)
    there = json.loads(found) if found else find(source, labels, labels_folder, span)
    version, inputs, label = there["version"], Inputs(**there["labels"]), table.label.column
    # Of the label files alone: a log grows while it is read, and its files never change.
    check_unchanged(labels_folder, inputs, "Label files")
    paths = source.files()
    with rows.tables([*inputs.files, *paths], settings.csv) as tables:
        kind, run = source.columns[label], tables.connection
        counts, digest = join(tables, paths, version, inputs.files, settings, table, kind)
        written = _write(examples, SPLIT, _joined(run, paths, source.columns, label))
    check_unchanged(labels_folder, inputs, "Label files")
    logged = {names - {label, VERSION, PREDICTION}: count for names, count in written.items()}
    joined = Joined(**counts, without_features=logged.get(frozenset(), 0))
    if joined.without_features:
        _PROGRESS.warning(
            "%s of %s joined predictions have no logged features: they can be judged, and not be "
            "computed again",
            f"{joined.without_features:,}",
            f"{joined.joined:,}",
        )
    files.write_atomically(f"{examples.uri}/{JOINED_FILE}", joined.model_dump_json())
    describe(examples, {SPLIT: joined.joined}, f"{inputs.fingerprint},joined:{digest}")
    describe_spans(examples, inputs)
    examples.set_int_custom_property(JUDGED_VERSION, version)
    common = sorted(frozenset.intersection(*logged))
    examples.set_string_custom_property(LOGGED_COLUMNS, json.dumps(common))


def _joined(
    run: duckdb.DuckDBPyConnection, paths: Sequence[str], kinds: Mapping[str, str], label: str
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of the table `joined`, those of a file together."""
    for (file,) in run.sql("SELECT DISTINCT file FROM joined ORDER BY 1").fetchall():
        query = "SELECT row, label FROM joined WHERE file = $1 ORDER BY row"
        found = run.sql(query, params=[file]).to_arrow_table()
        table = _read(paths[file]).take(found["row"])
        columns = {**_features(table, kinds), label: found["label"], VERSION: table["version"]}
        yield _lists(columns).append_column(PREDICTION, table["prediction"].combine_chunks())


@component
def ServedInputs(
    examples: OutputArtifact[standard_artifacts.Examples],
    log: Parameter[str],
    code: Parameter[str],
    found: Parameter[str] = "",
) -> None:
    """Puts out what a version was given to predict, as it was logged, for StatisticsGen.

    Args:
        examples: Output: a standard Examples artifact with the split served, and the rows in its
            custom property `rows_served`. They are 0, and the split empty, if nothing is logged.
        log: As of `LabelledLog`, and so are all others.
        code: See there.
        found: See there.

    Raises:
        PipelineStop: If a file of the log cannot be used.
    """
    del code
    source = Source.model_validate_json(log)
    there = json.loads(found) if found else find(source)
    version = there["version"]
    tables = map(_read, source.files())
    own = (table for table in tables if table["version"][:1].to_pylist() == [version])
    features = (_features(table, source.columns) for table in own)
    written = _write(examples, SERVED, (_lists(columns) for columns in features if columns))
    describe(examples, {SERVED: written.total()}, there["log"])
    examples.set_int_custom_property(JUDGED_VERSION, version)


LabelledLog.DRIVER_CLASS = ServedInputs.DRIVER_CLASS = LogDriver


def _lists(columns: Mapping[str, pa.ChunkedArray]) -> pa.RecordBatch:
    (batch,) = pa.table(columns).combine_chunks().to_batches()
    return as_lists(rows.with_bytes(batch))


def _write(
    examples: types.Artifact, split: str, batches: Iterable[pa.RecordBatch]
) -> Counter[frozenset[str]]:
    """Writes batches of lists as tf.Examples of a split, which appears whole.

    Returns:
      How many rows have which columns.
    """
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    encoder, written = RecordBatchToExamplesEncoder(), Counter[frozenset[str]]()
    with files.new_folder(os.path.join(examples.uri, f"Split-{split}")) as folder:
        path = os.path.join(folder, "data_tfrecord-00000-of-00001.gz")
        with tf.io.TFRecordWriter(path, "GZIP") as writer:
            for batch in batches:
                for example in encoder.encode(batch):
                    writer.write(example)
                written[frozenset(batch.schema.names)] += len(batch)
    return written
