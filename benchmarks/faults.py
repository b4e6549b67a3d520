"""`make replay-faults`: known faults in fresh spans, and which check finds them.

The same life as in `make replay`. Before some spans are lived through, they are evaluated with each
of the faults, on a copy of the registry, so that no evaluation sees what another found.
"""

import argparse
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from benchmarks.replay import Stage, arguments, begin, reasons_in_short, write_span
from components.continued_evaluation.history import Record
from components.continued_evaluation.run import TITLES
from components.errors import PipelineStop
from components.files import new_file
from pipeline.command_line import ended
from pipeline.loading import PROJECT
from pipeline.telling import shown

LABEL = "big_tipper"
CLEAN = "no fault"
SPANS = (6, 10, 12, 15)
"""Where the faults are put: 1,380, 1,241, 1,083 and 203 rows."""
PAGE = PROJECT / "docs" / "faults.md"
BEGIN, END = "<!-- begin replay-faults -->", "<!-- end replay-faults -->"
_SEED = 18
_OWN = (
    "workspace=workspace/replay-faults",
    "data.path=workspace/replay-faults/data",
    "features.slices=[]",  # No limit is on slices, and they take a fifth of the time.
)
_CHECKS = (
    *("anomaly", "repeated_rows", "one_class", "drift_from_before", "drift_from_training"),
    *("metric", "gap", "labels", "previous_better"),
)
_STOPPED = "the run stopped"

Column = Callable[[pd.Series], pd.Series]


def _scaled(factor: float) -> Column:
    return lambda values: (values.astype(float) * factor).map("{:g}".format)


def _flipped(values: pd.Series) -> pd.Series:
    return values.map({"0": "1", "1": "0"})


def _changed(column: str, change: Column, every: int = 1) -> Callable[..., pd.DataFrame]:
    """Changes a column, in all rows or in one of so many, drawn at random."""

    def fault(rows: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
        chosen = rows[column].sample(len(rows) // every, random_state=_SEED)
        return rows.assign(**{column: change(chosen).reindex(rows.index).fillna(rows[column])})

    return fault


FAULTS: dict[str, Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]] = {
    "fare in cents": _changed("fare", _scaled(100)),
    "half the fares in cents": _changed("fare", _scaled(100), 2),
    "a tenth of the fares in cents": _changed("fare", _scaled(100), 10),
    "miles in kilometres": _changed("trip_miles", _scaled(1.609344)),
    "renamed category": _changed(
        "payment_type", lambda values: values.replace("Credit Card", "credit card")
    ),
    "sensor at zero": _changed("trip_miles", lambda values: values.map(lambda _: "0.0")),
    "sensor silent": _changed("trip_miles", lambda values: values.map(lambda _: "")),
    "labels of the next row": lambda rows, before: rows.assign(
        **{LABEL: [*rows[LABEL][1:], rows[LABEL][0]]}
    ),
    "one label in five flipped": _changed(LABEL, _flipped, 5),
    "one label in twenty flipped": _changed(LABEL, _flipped, 20),
    "shuffled labels": lambda rows, before: rows.assign(
        **{LABEL: rows[LABEL].sample(frac=1, random_state=_SEED).to_numpy()}
    ),
    "span twice": lambda rows, before: pd.concat([rows, rows]),
    "span before again": lambda rows, before: before,
}
"""Of a span's rows and those of the span before: the faulty rows."""


class Found(NamedTuple):
    """What an evaluation found in a span; it has no record if a component refused the span."""

    fault: str
    span: int
    record: Record | None

    @property
    def decision(self) -> str:
        """In a word."""
        return TITLES[self.record.decision.action].lower() if self.record else _STOPPED

    def reasons(self) -> set[tuple[str, ...]]:
        """What the checks said: kind, and column or metric and slice."""
        if self.record is None:
            return {(_STOPPED,)}
        return {
            (reason.kind, reason.column or reason.metric or "", reason.slice or "")
            for reason in self.record.decision.reasons
            if reason.kind in _CHECKS
        }


def table(found: Sequence[Found], faults: Sequence[str]) -> str:
    """A row for each fault, a column for each check: the spans in which it spoke; as Markdown.

    What is said of the span without the fault too is not counted.
    """
    clean = {each.span: each.reasons() for each in found if each.fault == CLEAN}
    said: dict[str, dict[int, set[str]]] = {fault: {} for fault in faults}
    decisions: dict[str, Counter[str]] = {fault: Counter() for fault in faults}
    for each in found:
        known = set() if each.fault == CLEAN else clean[each.span]
        said[each.fault][each.span] = {kind for kind, *_ in each.reasons() - known}
        decisions[each.fault][each.decision] += 1
    spoken = {kind for own in said.values() for kinds in own.values() for kind in kinds}
    checks = [check for check in (*_CHECKS, _STOPPED) if check in spoken]
    rows = []
    for fault, own in said.items():
        spoke = [[span for span, kinds in own.items() if check in kinds] for check in checks]
        silent = [span for span, kinds in own.items() if not kinds]
        cells = ["all" if len(spans) == len(own) else _listed(spans) for spans in (*spoke, silent)]
        counts = ", ".join(f"{decision} {count}" for decision, count in decisions[fault].items())
        rows.append([fault, _listed(own), *cells, counts])
    heading = ["fault", "spans", *(c.replace("_", " ") for c in checks), "nothing", "decision"]
    return str(pd.DataFrame(rows, columns=heading).to_markdown(index=False, tablefmt="github"))


def _listed(spans: Iterable[int]) -> str:
    return ", ".join(map(str, spans))


def write_page(text: str) -> None:
    """Replaces what is between the marks of the documentation's page, whole or not at all."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    with new_file(str(PAGE)) as temporary:
        Path(temporary).write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def main(given: argparse.Namespace) -> int:
    """Judges clean and faulty spans, and prints which check found what.

    Raises:
      PipelineStop: The settings or a fault's name are wrong, or the workspace is not a replay's.
    """
    names = list(given.fault or FAULTS)
    if unknown := sorted(set(names) - FAULTS.keys()):
        raise PipelineStop(f"--fault: there is no {unknown}. Faults: {', '.join(FAULTS)}.")
    if given.write and (given.fault or given.span or given.set):
        raise PipelineStop("--write is for the whole table: leave out --fault, --span and --set.")
    with begin([*_OWN, *given.set]) as stage:
        found = []
        for span in stage.fresh_spans(given.last):
            for each in _judge(stage, span, names if span in (given.span or SPANS) else []):
                found.append(each)
                why = reasons_in_short(each.record)
                line = f"  span {span:>2}, {each.fault}: {each.decision}{why and f' ({why})'}"
                stage.console.print(line, markup=False)
        rows = table(found, [CLEAN, *names])
        stage.console.print(f"\n{rows}", markup=False)
        if given.write:
            write_page(rows)
            stage.console.print(f"\nWritten into {shown(PAGE)}.")
    return 0


def _judge(stage: Stage, span: int, names: Sequence[str]) -> Iterator[Found]:
    """A span with each of the faults, then as it is: that may change the champion."""
    for name in names:
        copy = f"{Path(stage.model).name}-{span}-{re.sub('[^a-z]+', '-', name)}"
        shutil.copytree(stage.model, Path(stage.model).with_name(copy))
        data = stage.workspace.root / "faulty" / copy
        write_span(data, span, FAULTS[name](stage.quarters[span][1], stage.quarters[span - 1][1]))
        record = stage.evaluate(span, f"registry.model={copy}", f"data.path={data}")
        yield Found(name, span, record)
    yield Found(CLEAN, span, stage.live(span))


if __name__ == "__main__":
    parser = arguments("benchmarks.faults")
    parser.add_argument("--span", action="append", type=int, help="A span that gets faults.")
    parser.add_argument("--fault", action="append", help="One of the faults, by its name.")
    parser.add_argument("--write", action="store_true", help="Write docs/faults.md too.")
    chosen = parser.parse_args()
    raise SystemExit(ended(lambda: main(chosen)))
