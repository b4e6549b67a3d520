"""Where both replays start: the taxi rows in quarters, an emptied workspace, and a champion.

Months would be too small: in 2016 there are 201 to 222 rows a quarter.
"""

import csv
import fcntl
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from components.continued_evaluation import run
from components.continued_evaluation.history import Record
from components.errors import PipelineStop
from components.files import new_folder
from components.registry import store
from pipeline import loading
from pipeline import run as training
from pipeline.config import Config
from pipeline.telling import output_to, shown
from pipeline.workspace import Workspace

TIME = "trip_start_timestamp"
"""The column that says when a trip began, in seconds since 1970."""

Row = list[str]


class Quarters(NamedTuple):
    """Rows as the text of their fields, by span; the earliest quarter is span 1."""

    header: Row
    spans: dict[int, list[Row]]
    first: int
    """The earliest quarter, counted from the first one of year 0."""

    def name(self, span: int) -> str:
        """'2014 Q3'."""
        year, quarter = divmod(self.first + span - 1, 4)
        return f"{year} Q{quarter + 1}"


def read_quarters() -> Quarters:
    """Reads the rows that `configs/taxi.yaml` names.

    Raises:
      PipelineStop: They are not the taxi rows.
    """
    config = loading.load("taxi")
    folder = loading.data_folder(config)
    files = sorted(folder.glob(config.data.pattern))
    header, rows = _read(files)
    if TIME not in header:
        raise PipelineStop(
            f"The replays are of the taxi rows, in quarters by {TIME}. configs/taxi.yaml names "
            f"{folder}/{config.data.pattern}, which has no such column. Put the taxi data back "
            "into `data:` of configs/taxi.yaml."
        )
    return divide(header, rows)


def _read(files: Iterable[Path]) -> tuple[Row, list[Row]]:
    """The first file's header, and the rows of all."""
    header: Row = []
    rows: list[Row] = []
    for path in files:
        with open(path, encoding="utf-8", newline="") as file:
            header, *found = csv.reader(file)
            rows += found
    return header, rows


def divide(header: Row, rows: Iterable[Row]) -> Quarters:
    """Divides rows by the quarter (UTC) in which their trip began; they stay in their order."""
    column = header.index(TIME)
    by_quarter: dict[int, list[Row]] = {}
    for row in rows:
        by_quarter.setdefault(_quarter(int(row[column])), []).append(row)
    first = min(by_quarter)
    spans = {quarter - first + 1: by_quarter[quarter] for quarter in sorted(by_quarter)}
    return Quarters(header, spans, first)


def _quarter(seconds: int) -> int:
    """The quarter, counted from the first one of year 0."""
    began = datetime.fromtimestamp(seconds, UTC)
    return began.year * 4 + (began.month - 1) // 3


def write_span(folder: Path, span: int, header: Row, rows: Iterable[Row]) -> None:
    """Writes `span-<span>/rows.csv`; the folder appears whole, by one rename.

    Args:
      folder: `data.path`; made if it isn't there.
      span: Its number; its folder must not be there yet.
      header: The columns.
      rows: Their values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with new_folder(str(folder / f"span-{span}")) as temporary:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
        Path(temporary, "rows.csv").write_text(text.getvalue(), encoding="utf-8", newline="")


CONFIG = os.path.relpath(Path(__file__).with_name("replay"), loading.CONFIGS)
"""As the commands take a configuration's name."""
FIRST_YEAR = range(1, 5)
"""The spans that the first champion is trained on."""

_MARKER = ".replay"


@dataclass(frozen=True)
class Stage:
    """What a replay works with.

    Attributes:
      overrides: Of the configuration `replay`.
      config: With them.
      workspace: Emptied at the start.
      quarters: All rows.
      console: For the person.
      quiet: What the commands say meanwhile, which goes into the log.
      log: The file.
    """

    overrides: list[str]
    config: Config
    workspace: Workspace
    quarters: Quarters
    console: Console
    quiet: Console
    log: Path

    @property
    def model(self) -> str:
        """`registry/<model>`."""
        return str(self.workspace.registry / self.config.registry.model)

    def fresh_spans(self, last: int) -> list[int]:
        """The spans after the first year up to `last`, in order."""
        return [span for span in sorted(self.quarters.spans) if FIRST_YEAR[-1] < span <= last]

    def arrive(self, span: int) -> None:
        """Puts a span's rows where the configuration looks for them."""
        folder = loading.data_folder(self.config)
        write_span(folder, span, self.quarters.header, self.quarters.spans[span])

    def live(self, span: int) -> Record:
        """A span arrives and is evaluated, and what its decision asks for is done.

        Raises:
          PipelineStop: Something failed.
        """
        self.arrive(span)
        record = self.evaluate(span)
        if record is not None:
            code = run.follow(record, self.model, CONFIG, self.overrides, self.quiet, self.log)
            if code in (0, run.LOOK):
                return record
        raise PipelineStop(f"Span {span} failed. Why, is at the end of {shown(self.log)}")

    def evaluate(self, span: int, *overrides: str) -> Record | None:
        """Judges the champion on a span; None if a component failed.

        Args:
          span: Which.
          overrides: Of the configuration, beside the stage's own.
        """
        config = loading.load(CONFIG, [*self.overrides, *overrides, f"data.spans={span}"])
        return run.evaluate(config, self.workspace, self.quiet, self.log)

    def champion(self) -> int | None:
        """The champion's version."""
        return store.read_labels(self.model).get(store.CHAMPION)


@contextmanager
def begin(overrides: Sequence[str]) -> Iterator[Stage]:
    """Empties the workspace, keeps other replays out of it, and trains on the first year.

    Raises:
      PipelineStop: The settings are wrong, the folder is not a replay's, or there is no champion.
    """
    config = loading.load(CONFIG, overrides)
    training.check_against_schema(config)
    quarters = read_quarters()
    workspace = Workspace(loading.PROJECT / config.workspace)
    if not loading.data_folder(config).is_relative_to(workspace.root):
        raise PipelineStop(
            f"data.path ({config.data.path}) is not inside the workspace ({config.workspace}), the "
            "folder that a replay empties and fills. Correct benchmarks/replay/replay.yaml."
        )
    with emptied(workspace.root):
        workspace.make()
        log = workspace.logs / f"{config.name}-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
        with output_to(log) as console, open(log, "a", encoding="utf-8") as file:
            quiet = Console(file=file, highlight=False, soft_wrap=True, width=100)
            stage = Stage([*overrides], config, workspace, quarters, console, quiet, log)
            console.print(f"{config.registry.model}: log in {shown(log)}")
            _train(stage)
            yield stage


def _train(stage: Stage) -> None:
    for span in FIRST_YEAR:
        stage.arrive(span)
    training.train(CONFIG, stage.config, stage.workspace, stage.quiet, stage.log)
    if stage.champion() is None:
        log = shown(stage.log)
        raise PipelineStop(f"The first year made no champion. Why, is at the end of {log}")


@contextmanager
def emptied(root: Path) -> Iterator[None]:
    """Empties a folder that a replay made, and holds it.

    Raises:
      PipelineStop: Something else made it, or another replay is at work in it.
    """
    marker = root / _MARKER
    if root.exists() and not marker.exists() and any(root.iterdir()):
        raise PipelineStop(
            f"A replay starts from an empty {shown(root)}, and it was not a replay that made this "
            "folder. Move it away, or choose another with --set workspace=FOLDER and "
            "--set data.path=FOLDER/data."
        )
    root.mkdir(parents=True, exist_ok=True)
    with open(marker, "a", encoding="utf-8") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PipelineStop(
                f"Another replay is at work in {shown(root)}. Wait until it is through."
            ) from None
        for path in root.iterdir():
            if path != marker:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield
