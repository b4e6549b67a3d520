"""`make replay`: four years of taxi trips, lived through a quarter at a time."""

import argparse
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.markup import escape

from benchmarks.replay import stage as stages
from benchmarks.replay.faults import reasons_in_short
from benchmarks.replay.stage import Stage
from components import files
from components.continued_evaluation import history, telling
from components.continued_evaluation.evidence import OVERALL, Value
from components.continued_evaluation.telling import TITLES, interval, judged
from components.errors import PipelineStop
from components.evaluation.thresholds import CANDIDATE, HEURISTIC
from components.registry import store
from pipeline.command_line import ended
from pipeline.telling import shown


class Lived(NamedTuple):
    """What became of a span.

    Attributes:
      record: Its evaluation.
      left_alone: The metrics of the first year's champion on the same rows.
      after: The champion after it.
    """

    record: history.Record
    left_alone: dict[str, Value]
    after: int | None


def main(given: argparse.Namespace) -> int:
    """Lives through the spans up to the last one asked for, from an empty workspace.

    Raises:
      PipelineStop: The settings are wrong, the workspace is not a replay's, or something failed.
    """
    began = time.monotonic()
    with stages.begin(given.set) as stage:
        files.copy_tree(stage.model, _left_alone(stage.model))
        _tell_start(stage)
        lived = []
        for span in stage.fresh_spans(given.last):
            record = stage.live(span)
            lived.append(Lived(record, _first_champion(stage, record), stage.champion()))
            _tell(lived[-1], stage)
        _tell_end(lived, time.monotonic() - began, stage)
    return 0


def _left_alone(model: str) -> str:
    """The folder of a model of which nobody renews the champion."""
    return f"{model}-left-alone"


def _first_champion(stage: Stage, record: history.Record) -> dict[str, Value]:
    """The metrics that the first year's champion has on a span."""
    if record.evidence.champion == 1:
        return _overall(record)
    name = Path(_left_alone(stage.model)).name
    found = stage.evaluate(record.evidence.span, f"registry.model={name}")
    if found is None:
        raise PipelineStop(f"Version 1 could not be evaluated. Why: {shown(stage.log)}")
    return _overall(found)


def _overall(record: history.Record) -> dict[str, Value]:
    return judged(record.evidence)[OVERALL]


_LINE = "{:>4}  {:7}  {:>5}  {:>7}  {:24}  {:>6}  {:>6}  {:11}  {:>5}  {}"


def _tell_start(stage: Stage) -> None:
    """What version 1 is, and the heading of the lines to come."""
    metrics = store.read_manifest(stage.model, 1)["metrics"]
    auc, rule = (metrics[model][OVERALL]["auc"] for model in (CANDIDATE, HEURISTIC))
    rows = sum(len(stage.quarters[span][1]) for span in stages.FIRST_YEAR)
    stage.console.print(
        f"Version 1, of the first year's {rows:,} rows: auc {auc:.4f}, the rule {rule:.4f}\n"
    )
    heading = _LINE.format(
        *("span", "quarter", "rows", "version", "auc (95 %)", "rule", "v1"),
        *("decision", "after", "why"),
    )
    stage.console.print(f"[bold]{heading}[/]")


def _tell(lived: Lived, stage: Stage) -> None:
    """A span's line; `rule` and `v1` are the AUC of the heuristic and of version 1."""
    evidence = lived.record.evidence
    line = _LINE.format(
        evidence.span,
        stage.quarters[evidence.span][0],
        f"{evidence.rows.total:,}",
        f"v{evidence.champion}",
        interval(_overall(lived.record)["auc"]),
        _short(evidence.metrics[HEURISTIC][OVERALL]["auc"]),
        _short(lived.left_alone["auc"]),
        TITLES[lived.record.decision.action].lower(),
        f"v{lived.after}",
        reasons_in_short(lived.record),
    )
    stage.console.print(escape(line.rstrip()))


def _short(value: Value) -> str:
    return "-" if value.value is None else f"{value.value:.4f}"


def _tell_end(lived: Sequence[Lived], seconds: float, stage: Stage) -> None:
    """Counts, and whether renewing was worth it."""
    actions = [each.record.decision.action for each in lived]
    counts = ", ".join(
        f"{title.lower()} {actions.count(action)}"
        for action, title in reversed(TITLES.items())
        if action in actions
    )
    made = len(store.list_versions(stage.model)) - 1
    stage.console.print(f"\n{len(lived)} spans in {seconds:.0f} s: {counts}; {made} new versions.")
    for line in _comparisons(lived):
        stage.console.print(line)
    telling.tell_last(stage.model, stages.CONFIG, stage.config, stage.workspace, stage.console)


def _comparisons(lived: Sequence[Lived]) -> Iterator[str]:
    """The champions beside the first year's, where they are not the same; and beside the rule."""
    renewed = [each for each in lived if each.record.evidence.champion != 1]
    for metric in ("auc", "log_loss"):
        own = [_overall(each.record)[metric] for each in renewed]
        others = [each.left_alone[metric] for each in renewed]
        yield _compared(f"{metric} of renewed champions less that of version 1", own, others)
    own = [_overall(each.record)["auc"] for each in lived]
    others = [each.record.evidence.metrics[HEURISTIC][OVERALL]["auc"] for each in lived]
    yield _compared("auc of the champions less that of the rule", own, others)


def _compared(what: str, own: Iterable[Value], others: Iterable[Value]) -> str:
    """The mean of differences between two models on the same spans; each span counts once."""
    pairs = zip(own, others, strict=True)
    gains = [a.value - b.value for a, b in pairs if a.value is not None and b.value is not None]
    if len(gains) < 2:
        return f"{what}: too few spans to compare them."
    mean, error = statistics.mean(gains), statistics.stdev(gains) / len(gains) ** 0.5
    above = sum(gain > 0 for gain in gains)
    return (
        f"{what}: {mean:+.4f} (standard error {error:.4f}), "
        f"above 0 on {above} of {len(gains)} spans"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.replay", description=__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="SETTING=VALUE")
    parser.add_argument("--last", type=int, choices=range(5, 17), default=16)
    return parser.parse_args()


if __name__ == "__main__":
    chosen = _arguments()
    raise SystemExit(ended(lambda: main(chosen)))
