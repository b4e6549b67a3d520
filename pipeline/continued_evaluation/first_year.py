"""Where both replays start: an emptied workspace, and a champion trained on the first year."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console

from components.continued_evaluation.history import Record
from components.errors import PipelineStop
from components.registry import store
from pipeline import loading
from pipeline import run as training
from pipeline.config import Config
from pipeline.console import output_to, shown
from pipeline.continued_evaluation import run
from pipeline.continued_evaluation.quarters import Quarters, read_quarters, write_span
from pipeline.workspace import Workspace

CONFIG = "replay"
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
            "folder that a replay empties and fills. Correct configs/replay.yaml."
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
