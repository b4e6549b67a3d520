"""`python -m pipeline replay-faults`: known faults in fresh spans, and which check finds them.

The same life as in `replay`. Before some spans are lived through, they are evaluated with each of
the faults, on a copy of the registry, so that no evaluation sees what another found.
"""

import random
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.continued_evaluation.history import Record
from components.errors import PipelineStop
from pipeline.console import shown
from pipeline.continued_evaluation import fault_table, first_year
from pipeline.continued_evaluation.fault_table import CLEAN, Found
from pipeline.continued_evaluation.faults import FAULTS, Span
from pipeline.continued_evaluation.first_year import Stage
from pipeline.continued_evaluation.quarters import write_span

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
    with first_year.begin([*_OWN, *overrides]) as stage:
        found = []
        for span in stage.fresh_spans(last):
            for each in _judge(stage, span, names if span in (spans or SPANS) else []):
                found.append(each)
                stage.console.print(fault_table.line(each), markup=False)
        table = fault_table.table(found, [CLEAN, *names])
        stage.console.print(f"\n{table}", markup=False)
        if write:
            stage.console.print(f"\nWritten into {shown(fault_table.write(table))}.")
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
