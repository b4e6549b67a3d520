"""Batch prediction: files in, predictions out (book pattern Batch Serving).

A file is a work item, or all files together if the query sees a span whole. What comes of an item
is one shard, which appears whole, so that an item that is predicted twice is there once.
"""

import glob
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
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
from components.batch_prediction.job import Begun, Form, InputFile, Job, Options
from components.batch_prediction.prediction import (
    OWN_COLUMNS,
    Predicted,
    bad_key,
    blocks,
    columns_of,
    predict,
    write,
)
from components.errors import PipelineStop
from components.inference import prediction_log
from components.inference.columns import unknown_problems
from components.inference.model import LoadedVersion
from components.inference.prediction_log import LogSettings
from components.ingest import query
from components.ingest.rows import (
    MOST_LISTED,
    Columns,
    Reading,
    among_all,
    kind_of,
    tables,
)
from components.registry import signature, store
from components.registry.signature import Signature

PROGRESS = logging.getLogger("progress")
_ENDING = re.compile(r"\.(csv|tsv|jsonl|ndjson|json|parquet)(\.gz|\.zst)?$")
_REPORT = ".report.json"
_SHOWN = 10


@dataclass(frozen=True)
class Result:
    """What came of a run."""

    rows: int
    """Predicted."""
    rejected: int
    """Set aside."""
    files: int
    seconds: float
    version: int
    folder: str
    done_before: bool
    """Whether the very same job was finished already, and nothing was done."""


class Item(NamedTuple):
    """What one worker reads."""

    number: int
    files: list[str]
    name: str
    """In the keys of rows that have none, unlike the other items'."""


class Place(NamedTuple):
    """Where a job writes."""

    output: Path
    log: LogSettings = LogSettings()
    log_folder: Path = Path()


def run(
    options: Options,
    registry: str,
    beam_flags: Sequence[str],
    log: LogSettings | None = None,
    log_folder: str = "",
) -> Result:
    """Predicts the rows of files with one version, and writes what came of each.

    Killed at any moment and run again, it goes on; each row is in the output once.

    Args:
        options: What the person asked for.
        registry: The model's folder, `workspace/registry/<model>`.
        beam_flags: Of the runner.
        log: What goes to the prediction log; nothing if unset.
        log_folder: `workspace/predictions`.

    Raises:
        PipelineStop: If it can't be done; nothing is written unless the message says so.
    """
    began = time.monotonic()
    inputs, others = _files(options)
    begun = jobs.begin(options, registry, inputs, others)
    counts = begun.counts
    if counts is None or not begun.is_done:
        place = Place(Path(options.output), log or LogSettings(), Path(log_folder))
        counts = _do(options, begun, place, beam_flags)
    return Result(
        rows=counts["rows"],
        rejected=counts["rejected"],
        files=len(inputs),
        seconds=time.monotonic() - began,
        version=begun.job.version,
        folder=options.output,
        done_before=begun.is_done,
    )


def _do(options: Options, begun: Begun, place: Place, beam_flags: Sequence[str]) -> dict[str, int]:
    job = begun.job
    form, of = _form(job)
    warnings = _check_inputs(job, form, of)
    predicting = PredictItem(job, form, columns_of(of, form), place)
    with jobs.opened(place.output, begun):
        for warning in warnings:
            PROGRESS.warning("%s", warning)
        if begun.goes_on:
            PROGRESS.warning("goes on with version %s, as begun on %s", job.version, job.started)
        report = place.output / _REPORT
        with beam.Pipeline(options=PipelineOptions([*beam_flags])) as pipeline:
            items = pipeline | "Items" >> beam.Create([*_items(job)]) | beam.Reshuffle()
            found = items | "Predict" >> beam.ParDo(predicting)
            found | beam.combiners.ToList() | "Report" >> beam.Map(_write_json, str(report))
        results = json.loads(report.read_text())
        report.unlink()
        _stop_at(sorted({result["problem"] for result in results if "problem" in result}))
        if (job.files, job.others) != _files(options):
            raise PipelineStop(
                f"Input files have changed since the job began. What is in {options.output} may be "
                "a mix: run again with --overwrite when they no longer change."
            )
        counts = {name: sum(result[name] for result in results) for name in ("rows", "rejected")}
        jobs.finish(place.output, counts)
    return counts


class PredictItem(beam.DoFn):
    """An item -> its counts, or {"problem"}; an item whose shard is there is not done again.

    A problem is a result and no exception: runners wrap exceptions beyond recognition.
    """

    def __init__(self, job: Job, form: Form, columns: Columns, place: Place):
        """Takes the job, with its form complete, what is read of a row, and where it goes."""
        super().__init__()
        self._job, self._form, self._columns, self._place = job, form, columns, place
        self._shared = Shared()

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yields what came of an item."""
        name, output = f"part-{item.number:05d}", self._place.output
        shard = output / jobs.PREDICTIONS / f"{name}.{self._form.format}"
        rejected = output / jobs.REJECTED / f"{name}.jsonl"
        try:
            if not shard.exists():
                self._predict(item, shard, rejected)
                PROGRESS.info("%s: predicted", item.name)
            yield {"rows": _count(shard), "rejected": _count(rejected)}
        except PipelineStop as stop:
            yield {"problem": str(stop)}
        except OSError as error:
            yield {
                "problem": f"The predictions can't be written: {error}. Make room or correct the "
                "rights, then run again: what is there stays."
            }

    def _predict(self, item: Item, shard: Path, rejected: Path) -> None:
        """Writes the shard last: when it is there, the item is done."""
        form, job, read = self._form, self._job, self._columns
        with (
            query.used_rows(
                item.files, form.csv, read, form.query, MOST_LISTED, form.types
            ) as rows,
            files.new_file(str(shard), ".part") as temporary,
        ):
            write(temporary, form.format, self._tables(item, rows))
            jobs.check_current(self._place.output, job)
            if rows.bad_rows:
                with files.new_file(str(rejected), ".part") as lines:
                    Path(lines).write_text("".join(f"{row.as_json()}\n" for row in rows.bad_rows))

    def _tables(self, item: Item, rows: Reading) -> Iterator[pa.Table]:
        job, chosen = self._job, self._job.chosen
        # Held here, or it would be forgotten: Shared only remembers what somebody uses.
        self._version = self._shared.acquire(lambda: LoadedVersion(chosen), tag=str(chosen))
        unsplit = [] if self._form.key else rows.unsplit()
        for number, (batch, numbers) in enumerate(blocks(rows)):
            names = [] if self._form.key else _names(item, numbers, unsplit)
            found = predict(self._version, batch, names, self._form)
            if self._place.log.enabled:
                jobs.check_current(self._place.output, job)
                self._log(f"batch-{job.id}-part-{item.number:05d}-{number:05d}", found)
            yield found.table

    def _log(self, name: str, found: Predicted) -> None:
        job, place = self._job, self._place
        predicted = prediction_log.Predicted(
            version=job.version,
            microseconds=int(datetime.fromisoformat(job.started).timestamp() * 1e6),
            keys=found.table["key"].to_pylist(),
            columns=found.inputs,
            predictions=found.predictions,
        )
        model = job.chosen.name
        prediction_log.write_named(place.log_folder, model, name, predicted, place.log)


def find(pattern: str, output: str) -> list[InputFile]:
    """The files that match, sorted; of a folder, all whose names say that they hold rows.

    Raises:
        PipelineStop: If there are none, or one that is an output.
    """
    # Beam takes "*/x.csv" for nothing, and with whole paths a job is known from any folder.
    whole = pattern if "://" in pattern else os.path.abspath(pattern)
    is_folder = os.path.isdir(whole)
    found = [
        file
        for file in _match(f"{glob.escape(whole)}/*" if is_folder else whole)
        if _ENDING.search(file.path) or not is_folder
    ]
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
    return found


def _match(pattern: str) -> list[InputFile]:
    try:
        (match,) = FileSystems.match([pattern])
    except (ValueError, BeamIOError) as error:
        raise PipelineStop(f"--input {pattern} can't be listed: {error}") from error
    return [
        InputFile(path=m.path, size=m.size_in_bytes, changed=m.last_updated_in_seconds)
        for m in sorted(match.metadata_list, key=lambda m: m.path)
    ]


def _files(options: Options) -> tuple[list[InputFile], list[InputFile]]:
    """The files of the rows, and those that the query reads beside them."""
    others = options.form.query.files() if options.form.query else []
    return find(options.input, options.output), [f for o in others for f in _match(glob.escape(o))]


def _form(job: Job) -> tuple[Form, Signature]:
    """The form with the key, and the version's signature.

    Raises:
        PipelineStop: If the version, or the output, cannot have what is asked for.
    """
    manifest = store.read_manifest(job.registry, job.version)
    config, form = manifest["config"], job.form
    if taken := sorted({*form.columns} & {*OWN_COLUMNS}):
        raise PipelineStop(
            f"--columns has {', '.join(taken)}, and the output has columns of that name already. "
            "Rename it in the input."
        )
    if form.uncertainty and config.get("model", {}).get("members", 1) == 1:
        raise PipelineStop(
            f"Version {job.version} has no uncertainty: its network has one member. Leave out "
            "--uncertainty, or train with model.members."
        )
    key = form.key or config["features"]["key"]
    return form.model_copy(update={"key": key}), signature.of(manifest)


def _check_inputs(job: Job, form: Form, of: Signature) -> list[str]:
    """Looks at each file's columns, without reading its rows.

    Returns:
        Warnings: optional columns that are missing.

    Raises:
        PipelineStop: With the mistakes of all files, the first ones.
    """
    columns, paths = columns_of(of, form), [file.path for file in job.files]
    if form.query:
        query.check(paths, form.csv, columns, form.query, form.types)
        return []
    problems: list[str] = []
    absent: dict[str, list[str]] = {}
    for path in paths:
        try:
            with tables([path], form.csv) as reader:
                problems += _slips(of, path, [*reader.columns(path)])
                reader.read(path, columns)
                there = reader.columns(path)
            for name in {*of["inputs"]} - {*there}:
                absent.setdefault(name, []).append(path)
            if form.key and kind_of(there[form.key]) not in ("INT", "BYTES"):
                problems.append(f"{path}: {bad_key(form.key, there[form.key])}")
        except PipelineStop as stop:
            problems.append(str(stop))
    _stop_at(problems)
    return [
        f"column '{name}' is not in {_listed(lacking)}; it counts as missing"
        for name, lacking in sorted(absent.items())
    ]


def _slips(of: Signature, path: str, names: list[str]) -> Iterator[str]:
    """Yields which columns are misspelt, as callers of the server are told."""
    for problem in unknown_problems(of, [{*names}]):
        yield f"{path}: {problem.replace('row 0', 'it', 1).replace('it: no', 'it has no', 1)}"


def _stop_at(problems: Sequence[str]) -> None:
    if problems:
        more = len(problems) - _SHOWN
        rest = [f"and {more} more"] if more > 0 else []
        raise PipelineStop("\n".join([*problems[:_SHOWN], *rest]))


def _items(job: Job) -> Iterator[Item]:
    paths = [file.path for file in job.files]
    if job.form.query and job.form.query.over == "span":
        yield Item(0, paths, "rows")
        return
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    for number, path in enumerate(paths):
        yield Item(number, [path], os.path.relpath(path, folder))


def _names(item: Item, numbers: np.ndarray, unsplit: Sequence[int]) -> list[str]:
    """The keys of rows without any; rows of CSV with more or fewer fields count, too."""
    return [f"{item.name}:{number}" for number in among_all(numbers, unsplit).tolist()]


def _count(path: Path) -> int:
    """The rows of a shard or of a file of rejected rows; 0 if it is not there."""
    if not path.exists():
        return 0
    if path.suffix == ".parquet":
        rows: int = pq.read_metadata(path).num_rows
        return rows
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def _listed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return f"{', '.join(paths[:3])}{more}"


def _write_json(results: list[dict[str, Any]], path: str) -> None:
    Path(path).write_text(json.dumps(results))
