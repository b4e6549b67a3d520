"""The page of a model's evaluations, in the style of the runs' pages.

Every chart has the same axis: a place for each evaluation, in their order.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from components.continued_evaluation.decision import bounds
from components.continued_evaluation.evidence import OVERALL, Moved, Value
from components.continued_evaluation.history import Record
from components.continued_evaluation.run import TITLES, metrics_to_show
from components.continued_evaluation.settings import Limit
from components.evaluation.slices import columns_of
from pipeline.page import writing
from pipeline.page.charts import Axis, Chart, Line, chart, places
from pipeline.workspace import Workspace

_MODELS = {
    "heuristic": ("heuristic", "heuristic"),
    "previous": ("previous", "version before"),
    "champion": ("candidate", "champion"),
    "logged": ("logged", "champion, as it was served"),
}
"""Styles and names; the last is drawn on top."""
_AGAINST = {
    "training": "against the champion's training",
    "before": "against the span before",
    "served": "served against trained on (skew)",
}
_MOST_COLUMNS = 30


def write_page(records: Sequence[Record], title: str, workspace: Workspace) -> Path:
    """Writes the page, whole or not at all, and the index; returns its path.

    Args:
      records: All evaluations, oldest first; at least one.
      title: The model's name.
      workspace: Has the folder of pages.
    """
    places_judged = {place for record in records for place in record.evidence.judged}
    text = writing.render(
        Path(__file__).with_name("page.html.j2"),
        title=title,
        records=[*reversed(records)],
        titles=TITLES,
        metrics=metrics_to_show(records),
        decisions=decisions(records),
        charts=[
            (metric, place, _chart([*_lines(records, metric, place)], records, metric))
            for metric in metrics_to_show(records)
            for place in sorted(places_judged, key=lambda place: (place != OVERALL, place))
        ],
        spans=[record.span_name for record in records],
        drifts={words: drift(records, against) for against, words in _AGAINST.items()},
        facts=_facts,
    )
    path = writing.write(workspace.reports / f"{title}-evaluations.html", text)
    writing.write_index(workspace)
    return path


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    """What else is known, for whoever wants to know more."""
    evidence = record.evidence
    yield "champion's age in days", f"{evidence.age.days:.0f}"
    yield "repeated rows", f"{evidence.rows.repeated:.1%}"
    yield "rows of earlier spans", f"{evidence.rows.seen_before:.1%}"
    if (answers := evidence.answers) is not None:
        yield "logged predictions answered otherwise now", f"{answers.different:.2%}"
    if (joined := evidence.joined) is not None:
        for name, count in joined.model_dump(exclude_defaults=True).items():
            yield f"{name.replace('_', ' ')} (late labels)", f"{count:,}"


def _chart(lines: Sequence[Line], records: Sequence[Record], y: str | Axis) -> Chart:
    """A chart; where the champion changes there is a vertical line."""
    changes = [
        (place - 0.5, f"v{after.evidence.champion}")
        for place, (before, after) in enumerate(pairwise(records), 1)
        if before.evidence.champion != after.evidence.champion
    ]
    return chart(lines, places("span", [record.span_name for record in records]), y, changes)


def _heading(record: Record) -> str:
    action = TITLES[record.decision.action].lower()
    return f"span {record.span_name}, version {record.evidence.champion}: {action}"


def decisions(records: Sequence[Record]) -> Chart:
    """A lane for each kind of decision; pointing at one tells the reasons."""
    lines = []
    for lane, action in enumerate(TITLES):
        found = [n for n, record in enumerate(records) if record.decision.action == action]
        said = [
            "\n".join([_heading(records[n]), *(r.text for r in records[n].decision.reasons)])
            for n in found
        ]
        lines.append(Line(action, "", found, [lane] * len(found), said=said, drawn="dots"))
    return _chart(lines, records, places("", [*TITLES.values()], downwards=True))


def _lines(records: Sequence[Record], metric: str, place: str) -> Iterator[Line]:
    """A metric of all models in a slice, with its intervals, over its limits, lines with steps."""
    limits: dict[str, list[float | None]] = {}
    for number, record in enumerate(records):
        for limit in map(Limit.model_validate, record.settings["limits"]):
            if limit.metric == metric and columns_of(place) == sorted(limit.slices or []):
                for bound, setting in bounds(limit, place, record.evidence):
                    limits.setdefault(setting, [None] * len(records))[number] = bound
    ends = [number + half for number in range(len(records)) for half in (-0.5, 0.5)]
    for setting, bound_by in limits.items():
        twice = [bound for bound in bound_by for _ in range(2)]
        yield Line("limit", f"limit: {setting.replace('_', ' ')}", ends, twice)
    none = Value(value=None)
    for model, (style, name) in _MODELS.items():
        found = [
            r.evidence.metrics.get(model, {}).get(place, {}).get(metric, none) for r in records
        ]
        values, low, high = ([getattr(v, end) for v in found] for end in Value.model_fields)
        if any(value is not None for value in values):
            told = zip(map(_heading, records), found, strict=True)
            said = [f"{heading}\n{name} {value}" for heading, value in told]
            yield Line(style, name, range(len(records)), values, low, high, said, "line dots")


def drift(records: Sequence[Record], against: str) -> dict[str, list[Moved | None]]:
    """How far columns have moved by record, the farthest first; empty if nothing is known.

    Args:
      records: The evaluations.
      against: What was compared with: training, before or served.
    """
    by_record = [{m.column: m for m in r.evidence.moved if m.against == against} for r in records]
    shares = [(-one.share, column) for columns in by_record for column, one in columns.items()]
    farthest = [*dict.fromkeys(column for _, column in sorted(shares))][:_MOST_COLUMNS]
    return {column: [columns.get(column) for columns in by_record] for column in farthest}
