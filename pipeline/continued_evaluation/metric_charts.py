"""A metric over time: the champions, the version before, the heuristic, and the limits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import plotly.graph_objects as go

from components.continued_evaluation.decision import bounds
from components.continued_evaluation.evidence import OVERALL, Value
from components.continued_evaluation.history import Record
from components.evaluation.slices import columns_of
from pipeline.continued_evaluation.charts import (
    BLUE,
    GREY,
    MARKS,
    PURPLE,
    SKY,
    VERMILION,
    heading,
    layout,
    mark_size,
)
from pipeline.continued_evaluation.wording import interval, judged, limits_of

HEIGHT = 240


@dataclass(frozen=True)
class Line:
    """How a model is drawn."""

    name: str
    color: str
    dash: str


LINES = {
    "heuristic": Line("heuristic", GREY, "dot"),
    "previous": Line("version before", PURPLE, "dash"),
    "champion": Line("champion", BLUE, "solid"),
    "logged": Line("champion, as it was served", SKY, "solid"),
}
"""By the evidence's name; the last is drawn on top."""

_WORDS = {
    "at_least": "limit: at least",
    "at_most": "limit: at most",
    "below_promotion": "limit since promotion:",
}


@dataclass(frozen=True)
class Point:
    """A model's metric in an evaluation; `place` is the evaluation's on the time axis."""

    place: int
    version: int | None
    value: Value


def slices_of(records: Sequence[Record]) -> list[str]:
    """All slices, `overall` first."""
    found = {place for record in records for place in judged(record.evidence)}
    return sorted(found, key=lambda place: (place != OVERALL, place))


def models_of(records: Sequence[Record]) -> list[str]:
    """The models that are drawn, by the evidence's names."""
    return [name for name in LINES if any(name in r.evidence.metrics for r in records)]


def metric_chart(records: Sequence[Record], metric: str, place: str) -> go.Figure:
    """One metric of one slice.

    Args:
      records: The evaluations.
      metric: The metric's name.
      place: The slice; `overall` for all rows.
    """
    drawn = {model: list(_runs(records, model, metric, place)) for model in models_of(records)}
    limits = _limits(records, metric, place)
    traces = []
    if any(drawn.values()):
        for model, runs in drawn.items():
            traces += [_band(runs, LINES[model]), _line(records, runs, LINES[model])]
        traces += [*map(_steps, limits.values()), _hover(records, drawn, limits)]
    figure = go.Figure(traces, layout(records, HEIGHT, hovermode="x"))
    figure.update_yaxes(fixedrange=True, zeroline=False, nticks=6, visible=bool(traces))
    if not traces:
        middle = {"xref": "paper", "x": 0.5, "yref": "paper", "y": 0.5}
        figure.add_annotation(text="not known of any span", showarrow=False, **middle)
    return figure


def _runs(records: Sequence[Record], model: str, metric: str, place: str) -> Iterator[list[Point]]:
    """Evaluations in a row that have the metric, of one version each."""
    points = [_point(n, record, model, metric, place) for n, record in enumerate(records)]
    for (_, there), run in groupby(points, key=lambda p: (p.version, p.value.value is not None)):
        if there:
            yield list(run)


def _point(number: int, record: Record, model: str, metric: str, place: str) -> Point:
    evidence = record.evidence
    versions = {"previous": evidence.previous, "heuristic": None}
    by_slice = evidence.metrics.get(model, {})
    value = by_slice.get(place, {}).get(metric, Value(value=None))
    return Point(number, versions.get(model, evidence.champion), value)


def _band(runs: list[list[Point]], line: Line) -> go.Scatter:
    """The confidence intervals: a closed shape for each run."""
    x: list[float | None] = []
    y: list[float | None] = []
    for run in runs:
        known = [p for p in run if p.value.low is not None and p.value.high is not None]
        if not known:
            continue
        edges = [(float(point.place), point.value) for point in known]
        if len(edges) == 1:  # it would have no width
            edges = [(place + side, value) for place, value in edges for side in (-0.2, 0.2)]
        places = [place for place, _ in edges]
        x += [*places, *reversed(places), None]
        y += [*(v.low for _, v in edges), *(v.high for _, v in reversed(edges)), None]
    red, green, blue = (int(line.color[n : n + 2], 16) for n in (1, 3, 5))
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.16)",
        hoverinfo="skip",
    )


def _line(records: Sequence[Record], runs: list[list[Point]], line: Line) -> go.Scatter:
    """The line, broken between the runs; the champion's points are marked with the decisions."""
    points = [point for run in runs for point in [*run, None]]
    judged_line = line in (LINES["champion"], LINES["logged"])
    actions = [point and records[point.place].decision.action for point in points]
    marks = [MARKS[action] if action and action != "keep" else None for action in actions]
    return go.Scatter(
        x=[point and point.place for point in points],
        y=[point and point.value.value for point in points],
        mode="lines+markers",
        name=line.name,
        line={"color": line.color, "dash": line.dash, "width": 2},
        marker={
            "symbol": [mark[0] if mark and judged_line else "circle" for mark in marks],
            "color": [mark[1] if mark and judged_line else line.color for mark in marks],
            "size": [mark_size(records) if mark and judged_line else 5 for mark in marks],
            "opacity": 1,
            "line": {"width": 0},
        },
        hoverinfo="skip",
    )


def _limits(records: Sequence[Record], metric: str, place: str) -> dict[str, list[float | None]]:
    """Each limit's bound in each evaluation; None where there was none."""
    found: dict[str, list[float | None]] = {}
    for number, record in enumerate(records):
        for limit in limits_of(record):
            if limit.metric == metric and columns_of(place) == sorted(limit.slices or []):
                for bound, what in bounds(limit, place, record.evidence):
                    values = found.setdefault(_WORDS[what], [None] * len(records))
                    values[number] = bound
    return found


def _steps(bounds: list[float | None]) -> go.Scatter:
    """A limit: a step for each evaluation."""
    return go.Scatter(
        x=[edge for place in range(len(bounds)) for edge in (place - 0.5, place + 0.5)],
        y=[bound for bound in bounds for _ in range(2)],
        mode="lines",
        line={"color": VERMILION, "dash": "dash", "width": 1.5},
        hoverinfo="skip",
    )


def _hover(
    records: Sequence[Record],
    drawn: dict[str, list[list[Point]]],
    limits: dict[str, list[float | None]],
) -> go.Scatter:
    """One box for each evaluation, at an invisible mark: all models, and the limits."""
    found: dict[int, list[tuple[Line, Point]]] = {}
    for model in reversed(drawn):
        for point in (point for run in drawn[model] for point in run):
            found.setdefault(point.place, []).append((LINES[model], point))
    texts = []
    for place, points in found.items():
        lines = [f"{line.name} {interval(point.value)}" for line, point in points]
        bounds = [(words, bounds[place]) for words, bounds in limits.items()]
        lines += [f"{words} {bound:.4g}" for words, bound in bounds if bound is not None]
        texts.append("<br>".join([heading(records[place]), *lines]))
    return go.Scatter(
        x=list(found),
        y=[points[0][1].value.value for points in found.values()],
        mode="markers",
        marker={"opacity": 0},
        hovertext=texts,
        hoverinfo="text",
    )
