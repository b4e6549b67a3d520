"""Which check found which fault: a line for each evaluation, and a table of all."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from components.continued_evaluation.history import Record
from components.files import TEMPORARY
from pipeline.continued_evaluation.wording import TITLES
from pipeline.loading import PROJECT

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


def write(text: str, page: Path = PAGE) -> Path:
    """Replaces what is between the marks of the documentation's page, whole or not at all."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    temporary = page.with_name(f"{TEMPORARY}{page.name}")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n{text}\n{END}{after}")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, page)
    return page
