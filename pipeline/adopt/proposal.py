"""All decisions together: what `adopt` proposes for a table."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from components.errors import PipelineStop
from pipeline.adopt import columns, judging, problem, profiling, scores
from pipeline.adopt.columns import Decision
from pipeline.adopt.problem import Target
from pipeline.adopt.profiling import Column
from pipeline.adopt.request import Request
from pipeline.adopt.sizes import Sizes, sizes


@dataclass(frozen=True)
class Proposal:
    """What the configuration is written from."""

    label: Column
    target: Target
    decisions: list[Decision]
    """Of every column but the label, in the table's order."""
    rows: int
    """That were read: all, or the first million."""
    is_all: bool
    """Whether those are all rows there are."""
    unlabelled: float
    """The fraction of rows without a label; the rest of them was profiled."""
    key: str | None
    """A column that is different in each row."""
    split: dict[str, object]
    """As in `data.split`."""
    slices: list[list[str]]
    thresholds: list[dict[str, object]]
    sizes: Sizes
    row: dict[str, object]
    """The features' columns of one row, those with a value."""

    @property
    def test_rows(self) -> float:
        """About so many rows will be in the test split."""
        return self.rows * float(str(self.split["test"]))

    def features(self) -> list[tuple[str, str, dict[str, object]]]:
        """(name, column, settings) of each feature; every name once."""
        taken = {d.column.name for d in self.decisions} | {self.label.name}
        found = []
        for decision in self.decisions:
            column = decision.column.name
            for number, settings in enumerate(decision.features):
                name = column if number == 0 else _unused(f"{column}_range", taken)
                found.append((name, column, settings))
        return found


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def propose(
    table: pa.Table, request: Request, is_all: bool = True, unlabelled: float = 0.0
) -> Proposal:
    """Decides everything about a table in the schema's types, of which every row has a label.

    Args:
      table: the rows.
      request: what a person asks for.
      is_all: whether there are no more rows.
      unlabelled: the fraction of all rows that is not in `table` for want of a label.

    Raises:
      PipelineStop: the label fits no problem, or no column is left to learn from.
    """
    rows = profiling.sample(table)
    profiles = {column.name: column for column in profiling.profile(rows)}
    [label] = profiling.profile(table.select([request.label]))
    target = problem.decide(label, request.problem)
    decisions = _decisions(rows, profiles, request, target)
    key = _key(table, decisions, request)
    split = _split(request, key, table.num_rows)
    test_rows = table.num_rows * float(str(split["test"]))
    if all(d.excluded for d in decisions):
        raise PipelineStop(_nothing_left(decisions))
    fractions = judging.fractions(table.num_rows)
    return Proposal(
        label=label,
        target=target,
        decisions=decisions,
        rows=table.num_rows,
        is_all=is_all,
        unlabelled=unlabelled,
        key=key,
        split=split,
        slices=judging.slices(decisions, rows.num_rows, test_rows),
        thresholds=judging.thresholds(target.problem, test_rows, _deviation(rows, label, target)),
        sizes=sizes(round(table.num_rows * fractions["train"])),
        row=_row(rows, decisions),
    )


def _decisions(
    rows: pa.Table, profiles: dict[str, Column], request: Request, target: Target
) -> list[Decision]:
    names = [name for name in rows.column_names if name != request.label]
    few = profiling.sample(rows, scores.ROWS)
    label = few[request.label].combine_chunks()
    wanted = scores.targets(label, target.problem)
    same = _same(few, names)

    def decide(name: str) -> Decision:
        column = profiles[name]
        if name in request.exclude:
            return Decision(column, "left out with --exclude", "choice")
        if name == request.time:
            return Decision(column, "the rows are divided by it (--time)", "time")
        forced = name in request.keep
        if (out := columns.left_out(column, name == request.key)) and not forced:
            return out
        score = scores.score(few[name].combine_chunks(), wanted, target.problem)
        if columns.is_leak(score, few.num_rows) and not forced:
            return columns.leak(column, score)
        if name in same and not forced:
            return Decision(column, f"the same values as '{same[name]}'", "duplicate")
        return columns.kept(column, score, forced)

    return [decide(name) for name in names]


def _same(rows: pa.Table, names: Sequence[str]) -> dict[str, str]:
    """A column -> the first one before it with the same values."""
    first: dict[tuple[object, ...], list[str]] = {}
    same = {}
    for name in names:
        column = rows[name]
        key = (column.type, column.null_count, *column.slice(0, 100).to_pylist())
        alike = [other for other in first.get(key, []) if rows[other].equals(column)]
        if alike:
            same[name] = alike[0]
        first.setdefault(key, []).append(name)
    return same


def _key(table: pa.Table, decisions: list[Decision], request: Request) -> str | None:
    """The column asked for, or the first one left out as an id; if it differs in each row."""
    ids = [d.column.name for d in decisions if d.excluded == "id"]
    wanted = [request.key] if request.key else ids
    return next((name for name in wanted if _identifies(table[name])), None)


def _identifies(column: pa.ChunkedArray) -> bool:
    return not column.null_count and pc.count_distinct(column).as_py() == len(column)


def _split(request: Request, key: str | None, rows: int) -> dict[str, object]:
    fractions: dict[str, object] = {**judging.fractions(rows)}
    if request.time:
        return {"by": "time", "time": request.time, **fractions}
    if by := request.key or key:
        return {"by": "key", "key": [by], **fractions}
    return {"by": "row", **fractions}


def _row(rows: pa.Table, decisions: list[Decision]) -> dict[str, object]:
    used = [d.column.name for d in decisions if d.features]
    [row] = rows.select(used).slice(0, 1).to_pylist()
    return {name: value for name, value in row.items() if value is not None}


def _deviation(rows: pa.Table, label: Column, target: Target) -> float:
    if target.problem != "regression":
        return 1.0
    return float(rows[label.name].to_numpy().std())


def _nothing_left(decisions: list[Decision]) -> str:
    lines = [f"  {d.column.name}: {d.excluded}, {d.why}" for d in decisions[:20]]
    return (
        "No column is left to learn from:\n" + "\n".join(lines) + "\nTake some in with --keep "
        "COLUMN, or bring more columns."
    )
