"""The page of a model's evaluations, in the style of the runs' pages.

Every chart has the same axis: a place for each evaluation, in their order.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from components.continued_evaluation import telling
from components.continued_evaluation.decision import bounds
from components.continued_evaluation.evidence import OVERALL, Moved, Value
from components.continued_evaluation.history import Followed, Record
from components.continued_evaluation.settings import Limit
from components.evaluation.slices import columns_of
from pipeline.page import writing
from pipeline.page.charts import Axis, Chart, Line, chart, places

_MODELS = {
    "heuristic": "heuristic",
    "previous": "version before",
    "champion": "champion",
    "logged": "champion, as it was served",
}
"""The last is drawn on top."""
_AGAINST = {
    "training": "against the champion's training",
    "before": "against the span before",
    "served": "served against trained on (skew)",
}
_MOST_COLUMNS = 30


def write_page(
    records: Sequence[Record], followed: Mapping[str, Followed], title: str, path: Path
) -> Path:
    """Writes the page, whole or not at all, and returns its path.

    Args:
      records: All evaluations, oldest first; at least one.
      followed: What came of their decisions, by the evaluations' ids.
      title: The model's name.
      path: The HTML file; its folder is made if it isn't there.
    """
    text = writing.render(
        Path(__file__).with_name("page.html.j2"),
        title=title,
        records=[*reversed(records)],
        followed=followed,
        metrics=telling.metrics_to_show(records),
        decisions=decisions(records),
        charts=[
            (metric, place, metric_chart(records, metric, place))
            for metric in telling.metrics_to_show(records)
            for place in _places(records)
        ],
        spans=[*map(telling.span_name, records)],
        drifts={words: drift(records, against) for against, words in _AGAINST.items()},
        telling=telling,
        facts=_facts,
    )
    return writing.write(path, text)


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


def _places(records: Sequence[Record]) -> list[str]:
    """All rows, and the slices that were judged."""
    found = {place for record in records for place in telling.judged(record.evidence)}
    return sorted(found, key=lambda place: (place != OVERALL, place))


def _chart(lines: Sequence[Line], records: Sequence[Record], y: str | Axis) -> Chart:
    """A chart; where the champion changes there is a vertical line."""
    changes = [
        (place - 0.5, f"v{after.evidence.champion}")
        for place, (before, after) in enumerate(pairwise(records), 1)
        if before.evidence.champion != after.evidence.champion
    ]
    return chart(lines, places("span", [*map(telling.span_name, records)]), y, changes)


def _heading(record: Record) -> str:
    action = telling.TITLES[record.decision.action].lower()
    return f"span {telling.span_name(record)}, version {record.evidence.champion}: {action}"


def decisions(records: Sequence[Record]) -> Chart:
    """A lane for each kind of decision; pointing at one tells the reasons."""
    lines = []
    for lane, action in enumerate(telling.TITLES):
        found = [n for n, record in enumerate(records) if record.decision.action == action]
        said = [
            "\n".join([_heading(records[n]), *(r.text for r in records[n].decision.reasons)])
            for n in found
        ]
        lines.append(Line(action, "", found, [lane] * len(found), said=said, drawn="dots"))
    return _chart(lines, records, places("", [*telling.TITLES.values()], downwards=True))


def metric_chart(records: Sequence[Record], metric: str, place: str) -> Chart:
    """A metric of all models in a slice, with its intervals and limits, over time."""
    lines = [*_limits(records, metric, place), *_lines(records, metric, place)]
    return _chart(lines, records, metric)


def _lines(records: Sequence[Record], metric: str, place: str) -> Iterator[Line]:
    for model, name in _MODELS.items():
        values = [r.evidence.metrics.get(model, {}).get(place, {}).get(metric) for r in records]
        known = [value or Value(value=None) for value in values]
        if any(value.value is not None for value in known):
            said = [
                f"{_heading(record)}\n{name} {telling.interval(value)}"
                for record, value in zip(records, known, strict=True)
            ]
            yield Line(
                model if model in ("heuristic", "previous", "logged") else "candidate",
                name,
                range(len(records)),
                [value.value for value in known],
                [value.low for value in known],
                [value.high for value in known],
                said,
                "line dots",
            )


def _limits(records: Sequence[Record], metric: str, place: str) -> Iterator[Line]:
    """Each limit as a line with steps."""
    found: dict[str, list[float | None]] = {}
    for number, record in enumerate(records):
        for limit in map(Limit.model_validate, record.settings["limits"]):
            if limit.metric == metric and columns_of(place) == sorted(limit.slices or []):
                for bound, setting in bounds(limit, place, record.evidence):
                    found.setdefault(setting, [None] * len(records))[number] = bound
    ends = [number + half for number in range(len(records)) for half in (-0.5, 0.5)]
    for setting, values in found.items():
        twice = [value for value in values for _ in range(2)]
        yield Line("limit", f"limit: {setting.replace('_', ' ')}", ends, twice)


def drift(records: Sequence[Record], against: str) -> dict[str, list[Moved | None]]:
    """How far columns have moved by record, the farthest first; empty if nothing is known.

    Args:
      records: The evaluations.
      against: What was compared with: training, before or served.
    """
    by_record = [{m.column: m for m in r.evidence.moved if m.against == against} for r in records]
    farthest: dict[str, float] = {}
    for columns in by_record:
        for column, moved in columns.items():
            farthest[column] = max(farthest.get(column, 0.0), moved.value / moved.limit)
    shown = sorted(farthest, key=lambda c: (-farthest[c], c))[:_MOST_COLUMNS]
    return {column: [columns.get(column) for columns in by_record] for column in shown}
