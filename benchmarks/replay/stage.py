"""Where both replays start: the taxi rows in quarters, an emptied workspace, and a champion.

Months would be too small: in 2016 there are 201 to 222 rows a quarter.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd
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

CONFIG = os.path.relpath(Path(__file__).with_name("replay"), loading.CONFIGS)
"""As the commands take a configuration's name."""
FIRST_YEAR = range(1, 5)
"""The spans that the first champion is trained on."""
_TIME = "trip_start_timestamp"
"""The column that says when a trip began, in seconds since 1970."""
_MARKER = ".replay"


def read_quarters() -> dict[int, tuple[str, pd.DataFrame]]:
    """The rows that `configs/taxi.yaml` names, as text, by span: '2013 Q1' and its rows is span 1.

    Raises:
      PipelineStop: They are not the taxi rows.
    """
    config = loading.load("taxi")
    files = sorted(loading.data_folder(config).glob(config.data.pattern))
    rows = pd.concat([pd.read_csv(file, dtype=str, keep_default_na=False) for file in files])
    if _TIME not in rows:
        raise PipelineStop(
            f"The replays are of the taxi rows, in quarters by {_TIME}, and configs/taxi.yaml "
            "names rows without it. Put the taxi data back into `data:` of configs/taxi.yaml."
        )
    quarter = pd.to_datetime(rows[_TIME].astype(int), unit="s").dt.to_period("Q")
    return {
        number: (f"{period.year} Q{period.quarter}", found.reset_index(drop=True))
        for number, (period, found) in enumerate(rows.groupby(quarter), 1)
    }


def write_span(folder: Path, span: int, rows: pd.DataFrame) -> None:
    """Writes `span-<span>/rows.csv` into `data.path`; the folder appears whole, by one rename."""
    folder.mkdir(parents=True, exist_ok=True)
    with new_folder(str(folder / f"span-{span}")) as temporary:
        rows.to_csv(Path(temporary, "rows.csv"), index=False)


@dataclass(frozen=True)
class Stage:
    """What a replay works with; `quiet` takes what the commands say meanwhile, into the log."""

    overrides: list[str]
    config: Config
    workspace: Workspace
    quarters: dict[int, tuple[str, pd.DataFrame]]
    console: Console
    quiet: Console
    log: Path

    @property
    def model(self) -> str:
        """`registry/<model>`."""
        return str(self.workspace.registry / self.config.registry.model)

    def fresh_spans(self, last: int) -> list[int]:
        """The spans after the first year up to `last`, in order."""
        return [span for span in self.quarters if FIRST_YEAR[-1] < span <= last]

    def live(self, span: int) -> Record:
        """A span arrives and is evaluated, and what its decision asks for is done.

        Raises:
          PipelineStop: Something failed.
        """
        write_span(loading.data_folder(self.config), span, self.quarters[span][1])
        record = self.evaluate(span)
        if record is not None:
            code = run.follow(record, self.model, CONFIG, self.overrides, self.quiet, self.log)
            if code in (0, run.LOOK):
                return record
        raise PipelineStop(f"Span {span} failed. Why, is at the end of {shown(self.log)}")

    def evaluate(self, span: int, *overrides: str) -> Record | None:
        """Judges the champion on a span; None if a component failed."""
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
    workspace = Workspace(loading.PROJECT / config.workspace)
    if not loading.data_folder(config).is_relative_to(workspace.root):
        raise PipelineStop(
            f"data.path ({config.data.path}) is not inside the workspace ({config.workspace}), the "
            "folder that a replay empties and fills. Correct benchmarks/replay/replay.yaml."
        )
    with _emptied(workspace.root):
        workspace.make()
        log = workspace.logs / f"{config.name}-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
        with output_to(log) as console, open(log, "a", encoding="utf-8") as file:
            quiet = Console(file=file, highlight=False, soft_wrap=True, width=100)
            quarters = read_quarters()
            stage = Stage([*overrides], config, workspace, quarters, console, quiet, log)
            console.print(f"{config.registry.model}: log in {shown(log)}")
            for span in FIRST_YEAR:
                write_span(loading.data_folder(config), span, quarters[span][1])
            training.train(CONFIG, config, workspace, quiet, log)
            if stage.champion() is None:
                raise PipelineStop(
                    f"The first year made no champion. Why, is at the end of {shown(log)}"
                )
            yield stage


@contextmanager
def _emptied(root: Path) -> Iterator[None]:
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
