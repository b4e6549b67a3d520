"""Batch prediction: files in, predictions out (book pattern Batch Serving).

A file is a work item, or all files together if the query sees a span whole. What comes of an item
is one shard, which appears whole, so that an item that is predicted twice is there once.
"""

import contextlib
import glob
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

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
from components.batch_prediction.job import Form, InputFile, Job, Options, State
from components.batch_prediction.prediction import (
    OWN_COLUMNS,
    Predicted,
    blocks,
    columns_of,
    predict,
    write,
)
from components.errors import PipelineStop
from components.inference import prediction_log
from components.inference.columns import unknown_problems
from components.inference.model import DETAILS, LoadedVersion
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
_SHOWN = 10


@dataclass(frozen=True)
class Result:
    """What came of a run."""

    rows: int
    """Predicted."""
    rejected: int
    """Set aside."""
    files: int
    version: int
    done_before: bool
    """Whether the very same job was finished already, and nothing was done."""


class Item(NamedTuple):
    """What one worker reads."""

    number: int
    files: list[str]
    name: str
    """In the keys of rows that have none, unlike the other items'."""

    @property
    def part(self) -> str:
        """The name of the files that come of it, without their ending."""
        return f"part-{self.number:05d}"


class Work(NamedTuple):
    """What every worker knows."""

    job: Job
    form: Form
    """With the key."""
    columns: Columns
    output: Path
    temporary: Path
    """The run's own folder for what is not whole yet, and for what went wrong."""
    log: LogSettings
    log_folder: Path


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
    inputs, others = _files(options)
    job, there = jobs.begin(options, registry, inputs, others)
    counts = there[1] if job == there[0] else None
    done_before = counts is not None
    if counts is None:
        counts = _do(options, job, there, beam_flags, log or LogSettings(), Path(log_folder))
    return Result(counts["rows"], counts["rejected"], len(inputs), job.version, done_before)


def _do(
    options: Options,
    job: Job,
    there: State,
    beam_flags: Sequence[str],
    log: LogSettings,
    log_folder: Path,
) -> dict[str, int]:
    form, of = _form(job)
    warnings = _check_inputs(job, form, of)
    output, items = Path(options.output), [*_items(job)]
    with jobs.opened(output, job, there) as temporary:
        for warning in warnings:
            PROGRESS.warning("%s", warning)
        if job == there[0]:
            PROGRESS.warning("goes on with version %s, as begun on %s", job.version, job.started)
        work = Work(job, form, columns_of(of, form), output, temporary, log, log_folder)
        with beam.Pipeline(options=PipelineOptions([*beam_flags])) as pipeline:
            created = pipeline | "Items" >> beam.Create(items) | beam.Reshuffle()
            created | "Predict" >> beam.ParDo(PredictItem(work))
        _stop_at(sorted({path.read_text() for path in temporary.glob("*.problem")}))
        if (job.files, job.others) != _files(options):
            raise PipelineStop(
                f"Input files have changed since the job began. What is in {options.output} may be "
                "a mix: run again with --overwrite when they no longer change."
            )
        shards = [output / jobs.PREDICTIONS / f"{item.part}.parquet" for item in items]
        if not all(map(Path.exists, shards)):
            _stop_at([f"Not all of {output} could be written. Make room, then run again."])
        counts = {"rows": sum(pq.read_metadata(shard).num_rows for shard in shards)}
        counts["rejected"] = sum(map(_lines, (output / jobs.REJECTED).glob("part-*.jsonl")))
        jobs.finish(output, counts)
    return counts


class PredictItem(beam.DoFn):
    """Makes the shard of an item; one whose shard is there is not done again.

    A problem is a file and no exception: runners wrap exceptions beyond recognition.
    """

    def __init__(self, work: Work):
        """Takes what every worker knows."""
        super().__init__()
        self._work, self._shared = work, Shared()

    def process(self, item: Item) -> None:
        """Predicts an item; its shard appears last."""
        try:
            if not (self._work.output / jobs.PREDICTIONS / f"{item.part}.parquet").exists():
                self._predict(item)
                PROGRESS.info("%s: predicted", item.name)
            return
        except PipelineStop as stop:
            problem = str(stop)
        except OSError as error:
            problem = (
                f"The predictions can't be written: {error}. Make room or correct the rights, then "
                "run again: what is there stays."
            )
        with contextlib.suppress(OSError):  # there may be no room for it; the shard is missing too
            (self._work.temporary / f"{item.part}.problem").write_text(problem)

    def _predict(self, item: Item) -> None:
        _, form, columns, output, temporary, *_ = self._work
        shard, lines = temporary / f"{item.part}.parquet", temporary / f"{item.part}.jsonl"
        with query.used_rows(
            item.files, form.csv, columns, form.query, MOST_LISTED, form.types
        ) as rows:
            write(str(shard), self._tables(item, rows))
        if rows.bad_rows:
            lines.write_text("".join(f"{row.as_json()}\n" for row in rows.bad_rows))
            _put(lines, output / jobs.REJECTED)
        _put(shard, output / jobs.PREDICTIONS)

    def _tables(self, item: Item, rows: Reading) -> Iterator[pa.Table]:
        form, chosen = self._work.form, self._work.job.chosen
        # Held here, or it would be forgotten: Shared only remembers what somebody uses.
        self._version = self._shared.acquire(lambda: LoadedVersion(chosen), tag=str(chosen))
        unsplit = [] if form.key else rows.unsplit()
        for number, (batch, numbers) in enumerate(blocks(rows)):
            names = [] if form.key else _names(item, numbers, unsplit)
            found = predict(self._version, batch, names, form)
            if self._work.log.enabled:
                self._log(f"{item.part}-{number:05d}", found)
            yield found.table

    def _log(self, name: str, found: Predicted) -> None:
        job, *_, log, log_folder = self._work
        predicted = prediction_log.Predicted(
            version=job.version,
            microseconds=int(datetime.fromisoformat(job.started).timestamp() * 1e6),
            keys=found.table["key"].to_pylist(),
            columns=found.inputs,
            predictions=found.predictions,
        )
        name = f"batch-{job.id}-{name}"
        prediction_log.write_named(log_folder, job.chosen.name, name, predicted, log)


def _put(path: Path, folder: Path) -> None:
    """Moves a file that is whole into a folder."""
    files.sync(str(path))
    path.rename(folder / path.name)


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
                for problem in unknown_problems(of, [{*reader.columns(path)}]):
                    problems.append(f"{path}: {problem.removeprefix('row 0').lstrip(': ')}")
                reader.read(path, columns)
                there = reader.columns(path)
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


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _listed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return f"{', '.join(paths[:3])}{more}"
