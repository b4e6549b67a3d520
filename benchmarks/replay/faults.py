"""`make replay-faults`: known faults in fresh spans, and which check finds them.

The same life as in `make replay`. Before some spans are lived through, they are evaluated with each
of the faults, on a copy of the registry, so that no evaluation sees what another found.
"""

import argparse
import random
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.replay import stage as stages
from benchmarks.replay.stage import Row, Stage, write_span
from components.continued_evaluation.history import Record
from components.continued_evaluation.telling import TITLES
from components.errors import PipelineStop
from components.files import new_file
from pipeline.command_line import ended
from pipeline.loading import PROJECT
from pipeline.telling import shown

LABEL = "big_tipper"


class Span(NamedTuple):
    """A span's rows, and those of the span before it."""

    header: Row
    rows: list[Row]
    before: list[Row]


Fault = Callable[[Span, random.Random], list[Row]]
"""Makes a span's faulty rows; the span stays as it is."""


def fare_in_cents(span: Span, chance: random.Random) -> list[Row]:
    """`fare` in cents instead of dollars."""
    return _changed(span, "fare", _to_cents)


def half_the_fares_in_cents(span: Span, chance: random.Random) -> list[Row]:
    """`fare` in cents in half of the rows: one of two sources has changed."""
    return _changed(span, "fare", _to_cents, _some(span, chance, 2))


def a_tenth_of_the_fares_in_cents(span: Span, chance: random.Random) -> list[Row]:
    """`fare` in cents in one row of ten."""
    return _changed(span, "fare", _to_cents, _some(span, chance, 10))


def miles_in_kilometres(span: Span, chance: random.Random) -> list[Row]:
    """`trip_miles` in kilometres instead of miles."""
    return _changed(span, "trip_miles", lambda miles: f"{float(miles) * 1.609344:g}")


def _to_cents(dollars: str) -> str:
    return f"{float(dollars) * 100:g}"


def renamed_category(span: Span, chance: random.Random) -> list[Row]:
    """`Credit Card` is spelt `credit card` in `payment_type`."""
    return _changed(span, "payment_type", lambda v: "credit card" if v == "Credit Card" else v)


def sensor_at_zero(span: Span, chance: random.Random) -> list[Row]:
    """`trip_miles` is 0 in all rows."""
    return _changed(span, "trip_miles", lambda value: "0.0")


def sensor_silent(span: Span, chance: random.Random) -> list[Row]:
    """`trip_miles` is empty in all rows."""
    return _changed(span, "trip_miles", lambda value: "")


def labels_of_the_next_row(span: Span, chance: random.Random) -> list[Row]:
    """Each row has the label of the row after it: a join that is off by one."""
    labels = _values(span, LABEL)
    return _replaced(span, LABEL, [*labels[1:], *labels[:1]])


def flipped_labels(span: Span, chance: random.Random) -> list[Row]:
    """One label in five is the other one."""
    return _changed(span, LABEL, _flip, _some(span, chance, 5))


def few_flipped_labels(span: Span, chance: random.Random) -> list[Row]:
    """One label in twenty is the other one."""
    return _changed(span, LABEL, _flip, _some(span, chance, 20))


def _flip(label: str) -> str:
    return "0" if label == "1" else "1"


def shuffled_labels(span: Span, chance: random.Random) -> list[Row]:
    """The labels in a random order."""
    labels = _values(span, LABEL)
    chance.shuffle(labels)
    return _replaced(span, LABEL, labels)


def span_twice(span: Span, chance: random.Random) -> list[Row]:
    """Every row twice: the span's file was delivered two times."""
    return span.rows + span.rows


def span_before_again(span: Span, chance: random.Random) -> list[Row]:
    """The rows of the span before under the new number: an old file was delivered again."""
    return span.before


FAULTS: dict[str, Fault] = {
    "fare in cents": fare_in_cents,
    "half the fares in cents": half_the_fares_in_cents,
    "a tenth of the fares in cents": a_tenth_of_the_fares_in_cents,
    "miles in kilometres": miles_in_kilometres,
    "renamed category": renamed_category,
    "sensor at zero": sensor_at_zero,
    "sensor silent": sensor_silent,
    "labels of the next row": labels_of_the_next_row,
    "one label in five flipped": flipped_labels,
    "one label in twenty flipped": few_flipped_labels,
    "shuffled labels": shuffled_labels,
    "span twice": span_twice,
    "span before again": span_before_again,
}


def _some(span: Span, chance: random.Random, every: int) -> set[int]:
    """One row in so many, drawn at random: their places."""
    return set(chance.sample(range(len(span.rows)), len(span.rows) // every))


def _values(span: Span, column: str) -> list[str]:
    place = span.header.index(column)
    return [row[place] for row in span.rows]


def _changed(
    span: Span, column: str, change: Callable[[str], str], chosen: set[int] | None = None
) -> list[Row]:
    """The rows with changed values in a column; in the chosen rows only, or in all."""
    values = enumerate(_values(span, column))
    new = [change(value) if chosen is None or n in chosen else value for n, value in values]
    return _replaced(span, column, new)


def _replaced(span: Span, column: str, values: list[str]) -> list[Row]:
    place = span.header.index(column)
    return [
        [*row[:place], value, *row[place + 1 :]]
        for row, value in zip(span.rows, values, strict=True)
    ]


CLEAN = "no fault"
PAGE = PROJECT / "docs" / "faults.md"
BEGIN, END = "<!-- begin replay-faults -->", "<!-- end replay-faults -->"

_CHECKS = (
    "anomaly",
    "repeated_rows",
    "one_class",
    "drift_from_before",
    "drift_from_training",
    "metric",
    "gap",
    "labels",
    "previous_better",
)
_STOPPED = "the run stopped"


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


def line(found: Found) -> str:
    """One evaluation: 'span 6, fare in cents: investigate (drift_from_before fare, metric auc)'."""
    why = reasons_in_short(found.record) if found.record else ""
    return f"  span {found.span:>2}, {found.fault}: {found.decision}{why and f' ({why})'}"


def reasons_in_short(record: Record) -> str:
    """'drift_from_training company, age'."""
    words = ((reason.kind, reason.column or reason.metric) for reason in record.decision.reasons)
    return ", ".join(dict.fromkeys(" ".join(filter(None, each)) for each in words))


def table(found: Sequence[Found], faults: Iterable[str]) -> str:
    """A row for each fault, a column for each check: the spans in which it spoke; as Markdown.

    What is said of the span without the fault too is not counted.

    Args:
      found: All evaluations.
      faults: The rows, in their order.
    """
    clean = {each.span: each.reasons() for each in found if each.fault == CLEAN}
    said = {
        (each.fault, each.span): {
            kind
            for kind, *_ in each.reasons() - (set() if each.fault == CLEAN else clean[each.span])
        }
        for each in found
    }
    checks = [check for check in (*_CHECKS, _STOPPED) if any(check in s for s in said.values())]
    rows = [["fault", "spans", *(c.replace("_", " ") for c in checks), "nothing", "decision"]]
    for fault in faults:
        own = {each.span: said[each.fault, each.span] for each in found if each.fault == fault}
        spoke = [[span for span, kinds in own.items() if check in kinds] for check in checks]
        silent = [span for span, kinds in own.items() if not kinds]
        cells = ["all" if len(spans) == len(own) else _listed(spans) for spans in (*spoke, silent)]
        rows.append([fault, _listed(own), *cells, _decisions(found, fault)])
    return _markdown(rows)


def _listed(spans: Iterable[int]) -> str:
    return ", ".join(map(str, spans))


def _decisions(found: Sequence[Found], fault: str) -> str:
    """'investigate 3, keep 1'."""
    decisions = [each.decision for each in found if each.fault == fault]
    return ", ".join(f"{d} {decisions.count(d)}" for d in dict.fromkeys(decisions))


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is the heading; its columns are aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width for width in widths]
    lines = (
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in (rows[0], rule, *rows[1:])
    )
    return "\n".join(f"| {each} |" for each in lines)


def write_page(text: str, page: Path = PAGE) -> Path:
    """Replaces what is between the marks of the documentation's page, whole or not at all."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    with new_file(str(page)) as temporary:
        Path(temporary).write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    return page


SPANS = (6, 10, 12, 15)
"""Where the faults are put: 1,380, 1,241, 1,083 and 203 rows."""

_SEED = 18
_OWN = (
    "workspace=workspace/replay-faults",
    "data.path=workspace/replay-faults/data",
    "features.slices=[]",  # No limit is on slices, and they take a fifth of the time.
)


def main(
    overrides: Sequence[str],
    spans: Sequence[int] | None,
    faults: Sequence[str] | None,
    last: int,
    write: bool,
) -> int:
    """Judges clean and faulty spans, and prints which check found what.

    Args:
      overrides: Of the configuration `replay`.
      spans: Which get faults; None for `SPANS`.
      faults: Names in `FAULTS`; None for all.
      last: The span to stop after.
      write: Whether the table goes into the documentation too.

    Raises:
      PipelineStop: The settings or a fault's name are wrong, or the workspace is not a replay's.
    """
    names = list(faults or FAULTS)
    if unknown := sorted(set(names) - FAULTS.keys()):
        raise PipelineStop(f"--fault: there is no {unknown}. Faults: {', '.join(FAULTS)}.")
    if write and (faults or spans or overrides):
        raise PipelineStop("--write is for the whole table: leave out --fault, --span and --set.")
    with stages.begin([*_OWN, *overrides]) as stage:
        found = []
        for span in stage.fresh_spans(last):
            for each in _judge(stage, span, names if span in (spans or SPANS) else []):
                found.append(each)
                stage.console.print(line(each), markup=False)
        rows = table(found, [CLEAN, *names])
        stage.console.print(f"\n{rows}", markup=False)
        if write:
            stage.console.print(f"\nWritten into {shown(write_page(rows))}.")
    return 0


def _judge(stage: Stage, span: int, names: Sequence[str]) -> Iterator[Found]:
    """A span with each of the faults, then as it is: that may change the champion."""
    for name in names:
        yield Found(name, span, _faulty(stage, span, name))
    yield Found(CLEAN, span, stage.live(span))


def _faulty(stage: Stage, span: int, name: str) -> Record | None:
    """Evaluates a span with a fault, on a copy of the model and its history so far."""
    copy = f"{Path(stage.model).name}-{span}-{re.sub('[^a-z]+', '-', name)}"
    shutil.copytree(stage.model, Path(stage.model).with_name(copy))
    data = stage.workspace.root / "faulty" / copy
    rows = stage.quarters.spans
    given = Span(stage.quarters.header, rows[span], rows[span - 1])
    faulty = FAULTS[name](given, random.Random(_SEED))
    write_span(data, span, stage.quarters.header, faulty)
    return stage.evaluate(span, f"registry.model={copy}", f"data.path={data}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.replay.faults", description=__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="SETTING=VALUE")
    parser.add_argument("--span", action="append", type=int, help="A span that gets faults.")
    parser.add_argument("--fault", action="append", help="One of the faults, by its name.")
    parser.add_argument("--last", type=int, choices=range(5, 17), default=16)
    parser.add_argument("--write", action="store_true", help="Write docs/faults.md too.")
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    raise SystemExit(
        ended(lambda: main(given.set, given.span, given.fault, given.last, given.write))
    )
