"""`make replay`: four years of taxi trips, lived through a quarter at a time.

Months would be too small: in 2016 there are 201 to 222 rows a quarter.
"""

import argparse
import fcntl
import os
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from rich.console import Console

from components import files
from components.continued_evaluation import run
from components.continued_evaluation.evidence import OVERALL, Value
from components.continued_evaluation.history import Record
from components.continued_evaluation.run import TITLES
from components.errors import PipelineStop
from components.evaluation.thresholds import CANDIDATE, HEURISTIC
from components.registry import store
from pipeline import loading
from pipeline import run as training
from pipeline.command_line import ended
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
_LINE = "{:>4}  {:7}  {:>5}  {:>7}  {:24}  {:>6}  {:>6}  {:11}  {:>5}  {}"


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
          PipelineStop: something failed.
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


def read_quarters() -> dict[int, tuple[str, pd.DataFrame]]:
    """The rows that `configs/taxi.yaml` names, as text, by span: '2013 Q1' and its rows is span 1.

    Raises:
      PipelineStop: they are not the taxi rows.
    """
    config = loading.load("taxi")
    found = sorted(loading.data_folder(config).glob(config.data.pattern))
    rows = pd.concat([pd.read_csv(file, dtype=str, keep_default_na=False) for file in found])
    if _TIME not in rows:
        raise PipelineStop(
            f"The replays are of the taxi rows, in quarters by {_TIME}, and configs/taxi.yaml "
            "names rows without it. Put the taxi data back into `data:` of configs/taxi.yaml."
        )
    quarter = pd.to_datetime(rows[_TIME].astype(int), unit="s").dt.to_period("Q")
    return {
        number: (f"{period.year} Q{period.quarter}", part.reset_index(drop=True))
        for number, (period, part) in enumerate(rows.groupby(quarter), 1)
    }


def write_span(folder: Path, span: int, rows: pd.DataFrame) -> None:
    """Writes `span-<span>/rows.csv` into `data.path`; the folder appears whole, by one rename."""
    folder.mkdir(parents=True, exist_ok=True)
    with files.new_folder(str(folder / f"span-{span}")) as temporary:
        rows.to_csv(Path(temporary, "rows.csv"), index=False)


@contextmanager
def begin(overrides: Sequence[str]) -> Iterator[Stage]:
    """Empties the workspace, keeps other replays out of it, and trains on the first year.

    Raises:
      PipelineStop: the settings are wrong, the folder is not a replay's, or there is no champion.
    """
    config = loading.load(CONFIG, overrides)
    training.check_against_schema(config)
    workspace = Workspace(loading.PROJECT / config.workspace)
    data = loading.data_folder(config)
    if not data.is_relative_to(workspace.root):
        raise PipelineStop(
            f"data.path ({config.data.path}) is not inside the workspace ({config.workspace}), the "
            "folder that a replay empties and fills. Correct benchmarks/replay.yaml."
        )
    with _emptied(workspace.root):
        workspace.make()
        log = workspace.logs / f"{config.name}-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
        with output_to(log) as console, open(log, "a", encoding="utf-8") as file:
            quiet = Console(file=file, highlight=False, soft_wrap=True, width=100)
            stage = Stage([*overrides], config, workspace, read_quarters(), console, quiet, log)
            console.print(f"{config.registry.model}: log in {shown(log)}")
            for span in FIRST_YEAR:
                write_span(data, span, stage.quarters[span][1])
            training.train(CONFIG, config, workspace, quiet, log)
            if stage.champion() is None:
                raise PipelineStop(f"The first year made no champion. Why, is in {shown(log)}")
            yield stage


@contextmanager
def _emptied(root: Path) -> Iterator[None]:
    """Empties a folder that a replay made, and holds it; another replay in it is waited for.

    Raises:
      PipelineStop: something else made it.
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
        fcntl.flock(held, fcntl.LOCK_EX)
        for path in set(root.iterdir()) - {marker}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield


def reasons_in_short(record: Record | None) -> str:
    """'drift_from_training company, age'."""
    reasons = record.decision.reasons if record else []
    words = ((reason.kind, reason.column or reason.metric) for reason in reasons)
    return ", ".join(dict.fromkeys(" ".join(filter(None, each)) for each in words))


class Lived(NamedTuple):
    """What became of a span."""

    record: Record
    left_alone: dict[str, Value]
    """The metrics of the first year's champion on the same rows."""
    after: int | None
    """The champion after it."""

    @property
    def overall(self) -> dict[str, Value]:
        """The champion's metrics over all rows."""
        return self.record.evidence.judged[OVERALL]

    @property
    def rule(self) -> Value:
        """The heuristic's AUC."""
        return self.record.evidence.metrics[HEURISTIC][OVERALL]["auc"]


def main(given: argparse.Namespace) -> int:
    """Lives through the spans up to the last one asked for, from an empty workspace.

    Raises:
      PipelineStop: the settings are wrong, the workspace is not a replay's, or something failed.
    """
    began = time.monotonic()
    with begin(given.set) as stage:
        # A model of which nobody renews the champion.
        files.copy_tree(stage.model, f"{stage.model}-left-alone")
        metrics = store.read_manifest(stage.model, 1)["metrics"]
        auc, rule = (metrics[model][OVERALL]["auc"] for model in (CANDIDATE, HEURISTIC))
        say = stage.console.print
        say(f"Version 1, of the first year: auc {auc:.4f}, the rule {rule:.4f}\n")
        titles = ("span", "quarter", "rows", "version", "auc (95 %)", "rule", "v1", "decision")
        say(_LINE.format(*titles, "after", "why"), style="bold")
        lived = []
        for span in stage.fresh_spans(given.last):
            record = stage.live(span)
            lived.append(Lived(record, _first_champion(stage, record), stage.champion()))
            say(_line(lived[-1], stage.quarters[span][0]), markup=False)
        actions = [each.record.decision.action for each in lived]
        counts = (f"{title.lower()} {actions.count(a)}" for a, title in TITLES.items())
        made = len(store.list_versions(stage.model)) - 1
        say(f"\n{len(lived)} spans in {time.monotonic() - began:.0f} s: {', '.join(counts)}; ")
        say(f"{made} new versions.\n" + "\n".join(_comparisons(lived)))
        run.tell_last(stage.model, CONFIG, stage.config, stage.workspace, stage.console)
    return 0


def _first_champion(stage: Stage, record: Record) -> dict[str, Value]:
    """The metrics that the first year's champion has on a span."""
    found: Record | None = record
    if record.evidence.champion != 1:
        name = f"registry.model={stage.config.registry.model}-left-alone"
        found = stage.evaluate(record.evidence.span, name)
    if found is None:
        raise PipelineStop(f"Version 1 could not be evaluated. Why: {shown(stage.log)}")
    return found.evidence.judged[OVERALL]


def _line(lived: Lived, quarter: str) -> str:
    """A span's line; `rule` and `v1` are the AUC of the heuristic and of version 1."""
    evidence = lived.record.evidence
    others = (lived.rule.value, lived.left_alone["auc"].value)
    return _LINE.format(
        *(evidence.span, quarter, f"{evidence.rows.total:,}", f"v{evidence.champion}"),
        str(lived.overall["auc"]),
        *("-" if value is None else f"{value:.4f}" for value in others),
        TITLES[lived.record.decision.action].lower(),
        *(f"v{lived.after}", reasons_in_short(lived.record)),
    ).rstrip()


def _comparisons(lived: Sequence[Lived]) -> Iterator[str]:
    """The champions beside the first year's, where they are not the same; and beside the rule."""
    renewed = [each for each in lived if each.record.evidence.champion != 1]
    for metric in ("auc", "log_loss"):
        pairs = [(each.overall[metric], each.left_alone[metric]) for each in renewed]
        yield _compared(f"{metric} of renewed champions less that of version 1", pairs)
    rules = [(each.overall["auc"], each.rule) for each in lived]
    yield _compared("auc of the champions less that of the rule", rules)


def _compared(what: str, pairs: Sequence[tuple[Value, Value]]) -> str:
    """The mean of differences between two models on the same spans; each span counts once."""
    gains = [a.value - b.value for a, b in pairs if a.value is not None and b.value is not None]
    if len(gains) < 2:
        return f"{what}: too few spans to compare them."
    mean, error = statistics.mean(gains), statistics.stdev(gains) / len(gains) ** 0.5
    above = f"above 0 on {sum(gain > 0 for gain in gains)} of {len(gains)} spans"
    return f"{what}: {mean:+.4f} (standard error {error:.4f}), {above}"


def arguments(name: str) -> argparse.ArgumentParser:
    """What both replays take."""
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--set", action="append", default=[], metavar="SETTING=VALUE")
    parser.add_argument("--last", type=int, choices=range(5, 17), default=16)
    return parser


if __name__ == "__main__":
    chosen = arguments("benchmarks.replay").parse_args()
    raise SystemExit(ended(lambda: main(chosen)))
