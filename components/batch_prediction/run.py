"""Batch prediction: files in, predictions out (book pattern Batch Serving)."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from components.batch_prediction import inputs
from components.batch_prediction import job as jobs
from components.batch_prediction.inputs import Item, Wanted
from components.batch_prediction.job import Begun, InputFile, Options
from components.batch_prediction.prediction import OWN_COLUMNS
from components.batch_prediction.transform import Place, PredictItems
from components.errors import PipelineStop
from components.inference.prediction_log import LogSettings
from components.registry import signature, store

PROGRESS = logging.getLogger("progress")
_REPORT = ".report.json"


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
    files = inputs.find(options.input, options.output)
    begun = jobs.begin(options, registry, files)
    counts = begun.counts
    if counts is None or not begun.is_done:
        place = Place(Path(options.output), log or LogSettings(), Path(log_folder))
        counts = _do(options, begun, place, beam_flags)
    return Result(
        rows=counts["rows"],
        rejected=counts["rejected"],
        files=len(files),
        seconds=time.monotonic() - began,
        version=begun.job.version,
        folder=options.output,
        done_before=begun.is_done,
    )


def _do(options: Options, begun: Begun, place: Place, beam_flags: Sequence[str]) -> dict[str, int]:
    job = begun.job
    wanted = _wanted(begun, options)
    items, warnings = inputs.plan(job.files, wanted)
    with jobs.locked(place.output, begun):
        jobs.open_output(place.output, begun)
        for warning in warnings:
            PROGRESS.warning("%s", warning)
        if begun.goes_on:
            PROGRESS.warning("goes on with version %s, as begun on %s", job.version, job.started)
        counts = _predict(items, begun, wanted, place, beam_flags)
        _check_unchanged(options, job.files)
        jobs.finish(place.output, counts)
    return counts


def _wanted(begun: Begun, options: Options) -> Wanted:
    job = begun.job
    manifest = store.read_manifest(job.registry, job.version)
    key = job.key or manifest["config"]["features"]["key"]
    taken = sorted({*options.columns} & {*OWN_COLUMNS})
    if taken:
        raise PipelineStop(
            f"--columns has {', '.join(taken)}, and the output has columns of that name already. "
            "Rename it in the input."
        )
    return Wanted(signature.of(manifest), key, job.columns, job.csv)


def _predict(
    items: list[Item], begun: Begun, wanted: Wanted, place: Place, beam_flags: Sequence[str]
) -> dict[str, int]:
    report = place.output / _REPORT
    with beam.Pipeline(options=PipelineOptions([*beam_flags])) as pipeline:
        created = pipeline | "Items" >> beam.Create(items)
        created | PredictItems(begun.job, wanted, place, report)
    results = json.loads(report.read_text())
    report.unlink()
    problems = sorted({result["problem"] for result in results if "problem" in result})
    if problems:
        raise PipelineStop("\n".join(inputs.first(problems)))
    return {name: sum(result[name] for result in results) for name in ("rows", "rejected")}


def _check_unchanged(options: Options, files: list[InputFile]) -> None:
    if {*files} - {*inputs.find(options.input, options.output)}:
        raise PipelineStop(
            f"Input files have changed since the job began. What is in {options.output} may be a "
            "mix: run again with --overwrite when they no longer change."
        )
