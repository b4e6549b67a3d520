"""Batch prediction: files in, predictions out (book pattern Batch Serving).

A file is a work item, or all files together if the query sees a span whole. What comes of an item
is one shard, which appears whole, so that an item that is predicted twice is there once.
"""

import contextlib
import glob
import logging
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.shared import Shared

from components import files
from components.batch_prediction import job as jobs
from components.batch_prediction.job import Form, InputFile, Job
from components.errors import PipelineStop
from components.inference import prediction_log
from components.inference.columns import DTYPES, MISSING, unknown_problems
from components.inference.columns import Columns as Inputs
from components.inference.model import DETAILS, Chosen, LoadedVersion, choose, likeliest
from components.inference.prediction_log import LogSettings
from components.ingest import query
from components.ingest.rows import (
    MOST_LISTED,
    Columns,
    Reading,
    Wanted,
    among_all,
    kind_of,
    tables,
)
from components.registry import signature, store
from components.registry.signature import Signature

PROGRESS = logging.getLogger("progress")
_ENDING = re.compile(r"\.(csv|tsv|jsonl|ndjson|json|parquet)(\.gz|\.zst)?$")
_OWN_COLUMNS = {"key", "prediction", "uncertainty", "quantiles", "probabilities", "edges"}
_OWN_COLUMNS |= {"attributions", "baseline", "predicted_label", "version"}
_SHOWN = 10
_ROWS = 1 << 13
"""Predicted at a time: the model's layers of so many rows stay small."""
_BATCH = 1 << 16
"""Rows that are in memory, and in a file of the prediction log, together."""
_AGAIN, _NUMBER = "as in the file: ", "number in the file: "
"""Before the name of a column that the model reads, as it comes out once more; of the column with
the rows' numbers. No model reads such names."""
Item = tuple[str, list[str], str]
"""What one worker reads: the name of the files that come of it, without their ending; the files;
and the name in the keys of rows that have none, unlike the other items'."""


class Result(NamedTuple):
    """What came of a run."""

    rows: int
    """Predicted."""
    rejected: int
    """Set aside."""
    files: int
    version: int
    done_before: bool
    """Whether the very same job was finished already, and nothing was done."""


def run(
    pattern: str,
    output: Path,
    registry: str,
    form: Form,
    beam_flags: Sequence[str],
    version: str | int = store.CHAMPION,
    overwrite: bool = False,
    log: LogSettings | None = None,
    log_folder: str = "",
) -> Result:
    """Predicts the rows of files with one version, and writes what came of each.

    Killed at any moment and run again, it goes on; each row is in the output once.

    Args:
        pattern: A folder of files, or a pattern of them.
        output: The folder for everything that is written.
        registry: The model's folder, `workspace/registry/<model>`.
        form: How rows are read, and what is written.
        beam_flags: Of the runner.
        version: A number or a label.
        overwrite: Whether to start anew where there is output already.
        log: What goes to the prediction log; nothing if unset.
        log_folder: `workspace/predictions`.

    Raises:
        PipelineStop: If it can't be done; nothing is written unless the message says so.
    """
    inputs, others = _find(pattern, output, form)
    new = Job(
        id=uuid.uuid4().hex,
        started=store.now(),
        registry=registry,
        version=choose(registry, version).version,
        wanted=str(version),
        form=form,
        files=inputs,
        others=others,
    )
    job, there = jobs.begin(output, new, overwrite)
    counts = there[1] if job == there[0] else None
    if counts is not None:
        return Result(counts["rows"], counts["rejected"], len(inputs), job.version, True)
    form, of = _form(job)
    columns, items = columns_of(of, form), [*_items(job)]
    warnings = _check_inputs(job, form, of, columns)
    with jobs.opened(output, job, there) as temporary:
        if job == there[0]:
            warnings.append(f"goes on with version {job.version}, as begun on {job.started}")
        for warning in warnings:
            PROGRESS.warning("%s", warning)
        work = PredictItem(
            job, form, columns, output, temporary, log or LogSettings(), Path(log_folder)
        )
        with beam.Pipeline(options=PipelineOptions([*beam_flags])) as pipeline:
            created = pipeline | "Items" >> beam.Create(items) | beam.Reshuffle()
            created | "Predict" >> beam.ParDo(work)
        _stop_at(sorted({path.read_text() for path in temporary.glob("*.problem")}))
        if (job.files, job.others) != _find(pattern, output, form):
            raise PipelineStop(
                f"Input files have changed since the job began. What is in {output} may be a mix: "
                "run again with --overwrite when they no longer change."
            )
        shards = [output / jobs.PREDICTIONS / f"{part}.parquet" for part, *_ in items]
        if not all(map(Path.exists, shards)):
            _stop_at([f"Not all of {output} could be written. Make room, then run again."])
        rejected = (output / jobs.REJECTED).glob("part-*.jsonl")
        counts = {
            "rows": sum(pq.read_metadata(shard).num_rows for shard in shards),
            "rejected": sum(path.read_bytes().count(b"\n") for path in rejected),
        }
        jobs.finish(output, counts)
    return Result(counts["rows"], counts["rejected"], len(inputs), job.version, False)


def _find(pattern: str, output: Path, form: Form) -> tuple[list[InputFile], list[InputFile]]:
    """The files of the rows, sorted, and those that the query reads beside them.

    Of a folder they are all whose names say that they hold rows.

    Raises:
        PipelineStop: If there are none, or one that is an output.
    """
    # Beam takes "*/x.csv" for nothing, and with whole paths a job is known from any folder.
    whole = pattern if "://" in pattern else os.path.abspath(pattern)
    found = _match(f"{glob.escape(whole)}/*" if os.path.isdir(whole) else whole)
    if os.path.isdir(whole):
        found = [file for file in found if _ENDING.search(file.path)]
    if not found:
        raise PipelineStop(
            f"No file matches --input '{pattern}'. Give a folder of .csv, .jsonl or .parquet "
            "files, or a pattern, e.g. 'data/*.csv'; in quotation marks, so that the shell leaves "
            "it as it is."
        )
    below = os.path.abspath(output) + os.sep
    if own := [file.path for file in found if os.path.abspath(file.path).startswith(below)]:
        raise PipelineStop(
            f"--input '{pattern}' matches {_listed(own)}, which is below --output {output}. Write "
            "the predictions elsewhere, or they would be the next run's input."
        )
    others = form.query.files() if form.query else []
    return found, [file for other in others for file in _match(glob.escape(other))]


def _match(pattern: str) -> list[InputFile]:
    try:
        (match,) = FileSystems.match([pattern])
    except (ValueError, BeamIOError) as error:
        raise PipelineStop(f"--input {pattern} can't be listed: {error}") from error
    return [
        InputFile(path=m.path, size=m.size_in_bytes, changed=m.last_updated_in_seconds)
        for m in sorted(match.metadata_list, key=lambda m: m.path)
    ]


def _form(job: Job) -> tuple[Form, Signature]:
    """The form with the key, and the version's signature.

    Raises:
        PipelineStop: If the version, or the output, cannot have what is asked for.
    """
    manifest = store.read_manifest(job.registry, job.version)
    config, form = manifest["config"], job.form
    if taken := sorted({*form.columns} & _OWN_COLUMNS):
        raise PipelineStop(
            f"--columns has {', '.join(taken)}, and the output has columns of that name already. "
            "Rename it in the input."
        )
    model = config.get("model", {})
    has = {
        "": True,
        "uncertain": model.get("members", 1) > 1,
        "distribution": bool(model.get("buckets")),
        "explain": bool(model.get("explain")),
    }
    if not has[form.detail]:
        raise PipelineStop(
            f"Version {job.version}: {DETAILS[form.detail]}, or leave the option out."
        )
    key = form.key or config["features"]["key"]
    return form.model_copy(update={"key": key}), signature.of(manifest)


def columns_of(of: Signature, form: Form) -> Columns:
    """The columns that are read: of the model, the key, and those to be carried into the output."""
    inputs = of["inputs"]
    carried = [*([form.key] if form.key else []), *form.columns]
    kinds: dict[str, Wanted] = {name: column["type"] for name, column in inputs.items()}
    kinds |= {_named(name, inputs): None for name in carried}
    again = {_AGAIN + name: name for name in carried if name in inputs}
    required = {name for name, column in inputs.items() if column["required"]}
    filled = required | ({_named(form.key, inputs)} if form.key else set())
    optional = {*inputs} - required - {*again.values()}
    return Columns(kinds, filled, exact=False, optional=optional, of=again)


def _named(name: str, inputs: Mapping[str, Any]) -> str:
    return _AGAIN + name if name in inputs else name


def _check_inputs(job: Job, form: Form, of: Signature, columns: Columns) -> list[str]:
    """Looks at each file's columns, without reading its rows.

    Returns:
        Warnings: optional columns that are missing.

    Raises:
        PipelineStop: With the mistakes of all files, the first ones.
    """
    paths = [file.path for file in job.files]
    if form.query:
        query.check(paths, form.csv, columns, form.query, form.types)
        return []
    problems: list[str] = []
    absent: dict[str, list[str]] = {}
    for path in paths:
        try:
            with tables([path], form.csv) as reader:
                there = reader.columns(path)
                for problem in unknown_problems(of, [{*there}]):
                    problems.append(f"{path}: {problem.removeprefix('row 0').lstrip(': ')}")
                reader.read(path, columns)
            for name in {*of["inputs"]} - {*there}:
                absent.setdefault(name, []).append(path)
            if form.key and kind_of(there[form.key]) not in ("INT", "BYTES"):
                problems.append(
                    f"{path}: the key '{form.key}' is {there[form.key]}, and must be a text or an "
                    "integer. Name another column with --key, or write it as a text."
                )
        except PipelineStop as stop:
            problems.append(str(stop))
    _stop_at(problems)
    return [
        f"column '{name}' is not in {_listed(lacking)}; it counts as missing"
        for name, lacking in sorted(absent.items())
    ]


def _stop_at(problems: Sequence[str]) -> None:
    if problems:
        rest = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise PipelineStop("\n".join([*problems[:_SHOWN], *rest]))


def _listed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return f"{', '.join(paths[:3])}{more}"


def _items(job: Job) -> Iterator[Item]:
    paths = [file.path for file in job.files]
    if job.form.query and job.form.query.over == "span":
        yield "part-00000", paths, "rows"
        return
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    for number, path in enumerate(paths):
        yield f"part-{number:05d}", [path], os.path.relpath(path, folder)


class PredictItem(beam.DoFn):
    """Makes the shard of an item; one whose shard is there is not done again.

    A problem is a file and no exception: runners wrap exceptions beyond recognition.
    """

    def __init__(
        self,
        job: Job,
        form: Form,
        columns: Columns,
        output: Path,
        temporary: Path,
        log: LogSettings,
        log_folder: Path,
    ):
        """Takes what every worker knows.

        Args:
            job: What is predicted.
            form: With the key.
            columns: That are read.
            output: The folder for everything that is written.
            temporary: The run's own for what is not whole yet, and for what went wrong.
            log: What goes to the prediction log.
            log_folder: `workspace/predictions`.
        """
        super().__init__()
        self._job, self._form, self._columns = job, form, columns
        self._output, self._temporary = output, temporary
        self._log, self._log_folder, self._shared = log, log_folder, Shared()

    def process(self, item: Item) -> None:
        """Predicts an item; its shard appears last."""
        part, paths, name = item
        try:
            if not (self._output / jobs.PREDICTIONS / f"{part}.parquet").exists():
                self._predict(part, paths, name)
                PROGRESS.info("%s: predicted", name)
            return
        except PipelineStop as stop:
            problem = str(stop)
        except OSError as error:
            problem = (
                f"The predictions can't be written: {error}. Make room or correct the rights, then "
                "run again: what is there stays."
            )
        with contextlib.suppress(OSError):  # there may be no room for it; the shard is missing too
            (self._temporary / f"{part}.problem").write_text(problem)

    def _predict(self, part: str, paths: list[str], name: str) -> None:
        shard, lines = (self._temporary / f"{part}.{end}" for end in ("parquet", "jsonl"))
        form = self._form
        with query.used_rows(
            paths, form.csv, self._columns, form.query, MOST_LISTED, form.types
        ) as rows:
            found = self._tables(part, name, rows)
            first = next(found)
            with pq.ParquetWriter(shard, first.schema, compression="zstd") as writer:
                for table in chain([first], found):
                    writer.write_table(table)
        if rows.bad_rows:
            lines.write_text("".join(f"{row.as_json()}\n" for row in rows.bad_rows))
            _put(lines, self._output / jobs.REJECTED)
        _put(shard, self._output / jobs.PREDICTIONS)

    def _tables(self, part: str, name: str, rows: Reading) -> Iterator[pa.Table]:
        """Yields what comes of the rows, one table at least, and logs it."""
        job, form = self._job, self._form
        chosen = Chosen(job.registry, job.version)
        # Held here, or it would be forgotten: Shared only remembers what somebody uses.
        self._version = self._shared.acquire(lambda: LoadedVersion(chosen), tag=str(chosen))
        unsplit = [] if form.key else rows.unsplit()
        for count, batch in enumerate(_blocks(rows)):
            # Rows of CSV with more or fewer fields count, too.
            numbers = [] if form.key else among_all(batch[_NUMBER].to_numpy(), unsplit).tolist()
            keys = [f"{name}:{number}" for number in numbers]
            table, inputs, predictions = predict(self._version, batch, keys, form)
            if self._log.enabled:
                predicted = prediction_log.Predicted(
                    version=job.version,
                    microseconds=int(datetime.fromisoformat(job.started).timestamp() * 1e6),
                    keys=table["key"].to_pylist(),
                    columns=inputs,
                    predictions=predictions,
                )
                file = f"batch-{job.id}-{part}-{count:05d}"
                prediction_log.write_named(
                    self._log_folder, chosen.name, file, predicted, self._log
                )
            yield table


def _put(path: Path, folder: Path) -> None:
    """Moves a file that is whole into a folder."""
    files.sync(str(path))
    path.rename(folder / path.name)


def _blocks(rows: Reading) -> Iterator[pa.Table]:
    """Yields the rows of a file, numbered, in batches that depend on it alone; one at least."""
    parts: list[pa.RecordBatch] = []
    for batch in rows:
        parts.append(batch.append_column(_NUMBER, pa.array(rows.numbers)))
        if sum(map(len, parts)) >= _BATCH:
            yield pa.Table.from_batches(parts)
            parts = []
    if parts:
        yield pa.Table.from_batches(parts)


def predict(
    version: LoadedVersion, batch: pa.Table, keys: list[str], form: Form
) -> tuple[pa.Table, Inputs, np.ndarray]:
    """Predicts rows.

    Args:
        version: By which.
        batch: The columns of `columns_of`.
        keys: The rows' keys, if the form names no column of them.
        form: What is written.

    Returns:
        Of `_OWN_COLUMNS` those that there are, and the columns asked for; what was predicted; and
        predictions, float32 [rows, outputs].

    Raises:
        PipelineStop: If a query makes keys that are numbers with a fraction.
    """
    read = version.signature["inputs"]
    inputs = {name: _as_input(batch[name], column["type"]) for name, column in read.items()}
    values = [
        version.predict_with(
            form.detail, {name: column[start : start + _ROWS] for name, column in inputs.items()}
        )
        for start in range(0, max(len(batch), 1), _ROWS)
    ]
    found = version.split(form.detail, np.concatenate(values))
    predictions = found.pop("predictions")
    key = batch[_named(form.key, read)] if form.key else pa.array(keys, pa.string())
    if pa.types.is_floating(key.type):  # of a query; of files it is known before
        raise PipelineStop(f"The key '{form.key}' is {key.type}, and must be a text or an integer.")
    columns = {
        "key": key if pa.types.is_integer(key.type) else key.cast(pa.string()),
        "prediction": _as_column(predictions),
    }
    for name, beside in found.items():
        parts = [pa.array(part) for part in np.ascontiguousarray(beside.T)]
        is_struct = name == "attributions"  # a number for each column
        columns[name] = (
            pa.StructArray.from_arrays(parts, sorted(read)) if is_struct else _as_column(beside)
        )
    if names := likeliest(version.signature, predictions):
        columns["predicted_label"] = _as_labels(names)
    columns["version"] = pa.array(np.full(len(batch), version.version))
    for name in form.columns:
        carried = batch[_named(name, read)]
        is_text = pa.types.is_binary(carried.type)
        columns[name] = carried.cast(pa.string()) if is_text else carried
    return pa.table(columns), inputs, predictions


def _as_input(column: pa.ChunkedArray, kind: str) -> np.ndarray:
    filled: np.ndarray = column.fill_null(pa.scalar(MISSING[kind], column.type)).to_numpy()
    return filled.astype(DTYPES[kind], copy=False)


def _as_labels(names: list[Any]) -> pa.Array:
    """Names; several of a row, of a multilabel problem, in a list."""
    if isinstance(names[0], list):
        return pa.array([[str(name) for name in row] for row in names], pa.list_(pa.string()))
    return pa.array(map(str, names), pa.string())


def _as_column(values: np.ndarray) -> pa.Array:
    """A number a row, or of several outputs a list."""
    if values.shape[1] == 1:
        return pa.array(np.ascontiguousarray(values[:, 0]))
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))
