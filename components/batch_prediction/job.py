"""What a run of batch prediction does, in a file in its output, so that a killed one can go on.

`job.json` says version, input files and options; it is there before the first shard. `_SUCCESS`
says the counts; it is there after the last.
"""

import contextlib
import fcntl
import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from components import files
from components.batch_prediction.writing import FORMATS, PREDICTIONS, REJECTED, Format
from components.errors import PipelineStop
from components.files import TEMPORARY
from components.inference.model import Chosen, choose
from components.ingest.settings import CsvFormat
from components.registry import store
from components.settings import Strict

JOB, SUCCESS = "job.json", "_SUCCESS"
_LOCK = ".lock"


@dataclass(frozen=True)
class Options:
    """What the person asked for."""

    input: str
    """A folder of files, or a pattern of them: CSV, gzipped or not, or Parquet."""
    output: str
    """The folder for everything that is written."""
    version: str | int = store.CHAMPION
    """A number or a label."""
    key: str | None = None
    """The column that identifies a row; the feature table's if unset."""
    columns: Sequence[str] = ()
    """Columns to carry into the output."""
    format: str = "parquet"
    """Or "jsonl"."""
    overwrite: bool = False
    """Whether to start anew where there is output already."""
    csv: CsvFormat = field(default_factory=CsvFormat)
    """How CSV files are written."""


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
    key: str | None
    columns: list[str]
    format: Format
    csv: CsvFormat = CsvFormat()
    files: list[InputFile]

    @property
    def chosen(self) -> Chosen:
        """The version."""
        return Chosen(self.registry, self.version)


@dataclass(frozen=True)
class Begun:
    """What an output folder holds, and the job that is to be done there."""

    job: Job
    before: Job | None
    """The job that was there."""
    counts: dict[str, int] | None
    """What came of it, if it is finished."""

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to do."""
        return self.counts is not None and self.job == self.before

    @property
    def goes_on(self) -> bool:
        """Whether an unfinished job is taken up."""
        return self.counts is None and self.job == self.before


def begin(options: Options, registry: str, inputs: list[InputFile]) -> Begun:
    """Decides what is to be done; nothing is written.

    An unfinished job goes on with its own version, also if the label it was asked for has moved. A
    finished one is the same only if it would predict with the same version again.

    Raises:
        PipelineStop: If the output holds something else.
    """
    output = Path(options.output)
    if options.format not in FORMATS:
        raise PipelineStop(f"--format is '{options.format}'; it can be {' or '.join(FORMATS)}.")
    before, counts = _state(output)
    new = Job(
        id=uuid.uuid4().hex,
        started=store.now(),
        registry=registry,
        version=choose(registry, options.version).version,
        wanted=str(options.version),
        key=options.key,
        columns=[*options.columns],
        format=options.format,
        csv=options.csv,
        files=inputs,
    )
    if before is None:
        _check_empty(output)
        return Begun(new, None, None)
    if options.overwrite:
        return Begun(new, before, counts)
    if differences := _differences(before, new, finished=counts is not None):
        raise PipelineStop(_refusal(output, before, differences, finished=counts is not None))
    return Begun(before, before, counts)


def open_output(output: Path, begun: Begun) -> None:
    """Makes the output ready for the job's shards. The caller holds the lock.

    Old shards go before the new job's file comes: killed in between, the folder holds the old job,
    unfinished. A new job's file comes before anything else: killed then, the folder is known.
    """
    folders = (output / PREDICTIONS, output / REJECTED)
    if not begun.goes_on:
        (output / SUCCESS).unlink(missing_ok=True)
        for folder in folders:
            if folder.exists():
                shutil.rmtree(folder)
        files.write_atomically(str(output / JOB), begun.job.model_dump_json(indent=1))
    for folder in (output, *folders):
        folder.mkdir(exist_ok=True)
        for left in folder.glob(f"{TEMPORARY}*"):
            left.unlink()


def finish(output: Path, counts: dict[str, int]) -> None:
    """Marks the job as finished, when its shards' names are on the disk too."""
    files.sync_folders(str(output))
    files.write_atomically(str(output / SUCCESS), json.dumps(counts) + "\n")


@contextlib.contextmanager
def locked(output: Path, begun: Begun) -> Iterator[None]:
    """Keeps other runs out of an output folder, which is made.

    Raises:
        PipelineStop: If one is in it, or has been since `begun` was found, or it can't be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        file = (output / _LOCK).open("w")
    except OSError as error:
        raise PipelineStop(f"--output {output} can't be written: {error}.") from error
    with file:
        if not _lock(file) or _state(output) != (begun.before, begun.counts):
            raise PipelineStop(f"Another run writes to {output} now. Wait for it, then run again.")
        yield


def _lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_current(output: Path, job_id: str) -> bool:
    """Whether the output still is that job's: a worker may outlive a killed run."""
    there, _ = _state(output)
    return there is not None and there.id == job_id


def _state(output: Path) -> tuple[Job | None, dict[str, int] | None]:
    """The job whose output it is, and its counts if it is finished."""
    try:
        there = _read(output / JOB)
        return (None if there is None else Job.model_validate(there)), _read(output / SUCCESS)
    except (OSError, ValueError) as error:
        raise PipelineStop(
            f"{JOB} or {SUCCESS} in {output} is damaged ({str(error)[:200]}). Delete {output}, or "
            "name another folder."
        ) from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _check_empty(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise PipelineStop(f"{output} is a file. Name a folder for the predictions.")
    own = (_LOCK, TEMPORARY)  # of a run that was killed as it began
    if output.is_dir() and [f for f in output.iterdir() if not f.name.startswith(own)]:
        raise PipelineStop(
            f"{output} holds files that are not from batch prediction; they are left alone. Name "
            "another folder, or empty it."
        )


def _differences(there: Job, new: Job, finished: bool) -> list[str]:
    found = []
    if there.registry != new.registry:
        found.append(f"the model is {new.registry}, and was {there.registry}")
    if there.version != new.version and (finished or there.wanted != new.wanted):
        found.append(f"the version is {new.version}, and was {there.version}")
    for name in ("key", "columns", "format"):
        if getattr(there, name) != getattr(new, name):
            now, before = (_shown(getattr(of, name)) for of in (new, there))
            found.append(f"--{name} is {now}, and was {before}")
    if there.csv != new.csv:
        found.append(f"data.csv is {_form(new.csv)}, and was {_form(there.csv)}")
    changed = sorted({f.path for f in {*there.files} ^ {*new.files}})
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        found.append(f"other or changed input files: {', '.join(changed[:3])}{more}")
    return found


def _form(csv: CsvFormat) -> str:
    return f"{csv.separator!r} in {csv.encoding}"


def _shown(value: str | list[str] | None) -> str:
    return (value if isinstance(value, str) else ",".join(value or ())) or "not given"


def _refusal(output: Path, there: Job, differences: list[str], finished: bool) -> str:
    state = "finished" if finished else "unfinished"
    go_on = "" if finished else "go on with it by the options it was started with, "
    return (
        f"{output} holds the {state} job of {there.started}, which is another one: "
        f"{'; '.join(differences)}. Name another folder, {go_on}or replace it with --overwrite."
    )
