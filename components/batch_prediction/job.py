"""What a run of batch prediction does, in a file in its output, so that a killed one can go on.

`job.json` says version, input files and form; it is there before the first shard. `_SUCCESS` says
the counts; it is there after the last. What is being written lies in a folder of the run's own
until it is whole; the next run removes that, so a worker that outlived its run adds nothing to it.
"""

import contextlib
import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from components import files
from components.errors import PipelineStop
from components.files import TEMPORARY
from components.ingest.settings import CsvFormat, Kind, Query
from components.settings import Strict

JOB, SUCCESS, PREDICTIONS, REJECTED = "job.json", "_SUCCESS", "predictions", "rejected"
_LOCK = ".lock"
State = tuple["Job | None", dict[str, int] | None]
"""The job whose output it is, and its counts if it is finished."""


class Form(Strict):
    """How rows are read, and what is written."""

    key: str | None = None
    """The column that identifies a row; the feature table's if unset."""
    columns: list[str] = Field(default_factory=list)
    """Columns to carry into the output."""
    detail: str = ""
    """What is written beside the prediction, as in `components.inference.model.DETAILS`."""
    csv: CsvFormat = CsvFormat()
    """How files of CSV and JSON are written."""
    query: Query | None = None
    """What the rows are put through."""
    types: dict[str, Kind] = Field(default_factory=dict)
    """Of columns that the query reads and the model does not."""


class InputFile(Strict):
    """A file, as it was when the job began."""

    path: str
    size: int
    changed: float
    """Seconds since 1970."""


class Job(Strict):
    """What is predicted."""

    id: str
    started: str
    """In UTC."""
    registry: str
    """The model's folder."""
    version: int
    wanted: str
    """How the version was asked for."""
    form: Form
    files: list[InputFile]
    others: list[InputFile]
    """Those that the query reads beside the rows."""


def begin(output: Path, new: Job, overwrite: bool) -> tuple[Job, State]:
    """Decides what is to be done; nothing is written.

    An unfinished job goes on with its own version, also if the label it was asked for has moved. A
    finished one is the same only if it would predict with the same version again.

    Args:
        output: The folder for everything that is written.
        new: What is asked for.
        overwrite: Whether to start anew where there is output already.

    Returns:
        The job, and what is there; it is finished if that is the same job, with counts.

    Raises:
        PipelineStop: If the output holds something else.
    """
    there = before, counts = state(output)
    if before is not None and not overwrite:
        _check_same(output, before, new, finished=counts is not None)
        return before, there
    if before is None and output.exists():
        if not output.is_dir():
            raise PipelineStop(f"{output} is a file. Name a folder for the predictions.")
        own = (_LOCK, TEMPORARY)  # of a run that was killed as it began
        if not all(file.name.startswith(own) for file in output.iterdir()):
            raise PipelineStop(
                f"{output} holds files that are not from batch prediction; they are left alone. "
                "Name another folder, or empty it."
            )
    return new, there


@contextlib.contextmanager
def opened(output: Path, job: Job, there: State) -> Iterator[Path]:
    """Keeps other runs out of an output folder, and makes it ready for the job's shards.

    Old shards go before the new job's file comes: killed in between, the folder holds the old job,
    unfinished. A new job's file comes before anything else: killed then, the folder is known.

    Yields:
        A new folder for what is not whole yet.

    Raises:
        PipelineStop: If a run is in it, or has been since it was looked at, or it can't be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        file = (output / _LOCK).open("w")
    except OSError as error:
        raise PipelineStop(f"--output {output} can't be written: {error}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_free = state(output) == there
        except BlockingIOError:
            is_free = False
        if not is_free:
            raise PipelineStop(f"Another run writes to {output} now. Wait for it, then run again.")
        folders = (output / PREDICTIONS, output / REJECTED)
        if job != there[0]:
            (output / SUCCESS).unlink(missing_ok=True)
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            files.write_atomically(str(output / JOB), job.model_dump_json(indent=1))
        for folder in folders:
            folder.mkdir(exist_ok=True)
        for left in output.glob(f"{TEMPORARY}*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=output) as temporary:
            yield Path(temporary)


def finish(output: Path, counts: dict[str, int]) -> None:
    """Marks the job as finished, when its shards' names are on the disk too."""
    files.sync_folders(str(output))
    files.write_atomically(str(output / SUCCESS), json.dumps(counts) + "\n")


def state(output: Path) -> State:
    """What an output folder holds.

    Raises:
        PipelineStop: If it cannot be read.
    """
    there, counts = output / JOB, output / SUCCESS
    try:
        return (
            Job.model_validate_json(there.read_bytes()) if there.exists() else None,
            json.loads(counts.read_bytes()) if counts.exists() else None,
        )
    except (OSError, ValueError) as error:
        raise PipelineStop(
            f"{JOB} or {SUCCESS} in {output} is damaged, or of an older state of this project "
            f"({str(error)[:200]}). Delete {output}, or name another folder."
        ) from error


def _check_same(output: Path, there: Job, new: Job, finished: bool) -> None:
    """Compares two jobs; an unfinished one keeps its version while it is asked for alike."""
    goes_on = not finished and there.wanted == new.wanted
    was, now = (
        {"registry": job.registry, "version": job.version, **dict(job.form)} for job in (there, new)
    )
    found = [
        f"{name} is {_shown(now[name])}, and was {_shown(was[name])}"
        for name in was
        if now[name] != was[name] and not (name == "version" and goes_on)
    ]
    changed = sorted({f.path for f in {*there.files, *there.others} ^ {*new.files, *new.others}})
    if changed:
        found.append(f"other or changed input files: {', '.join(changed[:3])}")
    if found:
        go_on = "" if finished else "go on with it by the options it was started with, "
        raise PipelineStop(
            f"{output} holds the {'finished' if finished else 'unfinished'} job of "
            f"{there.started}, which is another one: {'; '.join(found)}. Name another folder, "
            f"{go_on}or replace it with --overwrite."
        )


def _shown(value: Any) -> str:
    return str(value)[:200] if value else "not given"
