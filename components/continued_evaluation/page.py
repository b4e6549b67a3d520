"""The page of a model's evaluations, in the style of the runs' pages.

Every chart has the same axis: a place for each evaluation, in their order.
"""

import html
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from components.continued_evaluation import telling
from components.continued_evaluation.decision import bounds
from components.continued_evaluation.evidence import OVERALL, Moved, Value
from components.continued_evaluation.history import Followed, Record
from components.continued_evaluation.settings import Limit
from components.evaluation.slices import columns_of
from pipeline.page import figures, writing
from pipeline.page.figures import Figure, line

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
_MOST_COLUMNS, _WIDTH = 30, 60


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
        charts=[*_figures(records)],
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


def _figures(records: Sequence[Record]) -> Iterator[tuple[str, str, Figure]]:
    """Yields each chart with its heading and what it shows."""
    yield (
        "Decisions",
        "Point at one to see its reasons; the table below has them all.",
        decisions(records),
    )
    for metric in telling.metrics_to_show(records):
        yield (
            metric,
            "With 95 % intervals and limits; the menu has the slices.",
            metric_chart(records, metric),
        )
    for against, words in _AGAINST.items():
        if (figure := drift(records, against)) is not None:
            yield f"Drift {words}", "Distances as multiples of their limits.", figure


def _figure(
    traces: Sequence[Figure], records: Sequence[Record], height: int, **layout: object
) -> Figure:
    """A chart; where the champion changes there is a vertical line."""
    changes = [
        (place - 0.5, f"v{after.evidence.champion}")
        for place, (before, after) in enumerate(pairwise(records), 1)
        if before.evidence.champion != after.evidence.champion
    ]
    names = [html.escape(telling.span_name(record)) for record in records]
    return figures.figure(
        traces,
        "span",
        "",
        height,
        xaxis={"tickvals": [*range(len(records))], "ticktext": names},
        **figures.marks(changes),
        **layout,
    )


def _heading(record: Record) -> str:
    action = telling.TITLES[record.decision.action].lower()
    span = html.escape(telling.span_name(record))
    return f"<b>span {span}, version {record.evidence.champion}: {action}</b>"


def decisions(records: Sequence[Record]) -> Figure:
    """A lane for each kind of decision; the reasons come by hovering."""
    traces = []
    for lane, (action, title) in enumerate(telling.TITLES.items()):
        places = [n for n, record in enumerate(records) if record.decision.action == action]
        reasons = [_reasons(records[place]) for place in places]
        hover = {"hovertext": reasons, "hoverinfo": "text", "marker": {"size": 12}}
        traces.append(line(action, title, places, [lane] * len(places), mode="markers", **hover))
    lanes = {
        "tickvals": [*range(len(traces))],
        "ticktext": [*telling.TITLES.values()],
        "range": [3.5, -0.5],
    }
    return _figure(traces, records, 260, yaxis=lanes, showlegend=False)


def _reasons(record: Record) -> str:
    lines = [line for r in record.decision.reasons for line in textwrap.wrap(r.text, _WIDTH)]
    return "<br>".join([_heading(record), *map(html.escape, lines)])


def metric_chart(records: Sequence[Record], metric: str) -> Figure:
    """A metric of all models with its intervals and limits, over time; a menu has the slices."""
    places = {place for record in records for place in telling.judged(record.evidence)}
    slices = sorted(places, key=lambda place: (place != OVERALL, place))
    traces, owners = list[Figure](), list[str]()
    for place in slices:
        drawn = [*_lines(records, metric, place), *_limits(records, metric, place)]
        traces += [trace | {"visible": place == OVERALL} for trace in drawn]
        owners += [place] * len(drawn)
    buttons = [
        {
            "label": html.escape("all rows" if place == OVERALL else place),
            "method": "restyle",
            "args": [{"visible": [owner == place for owner in owners]}],
        }
        for place in slices
    ]
    menus = [{"buttons": buttons, "x": 1, "y": 1.35, "bgcolor": "rgba(127,127,127,0.15)"}]
    more = (
        {"updatemenus": menus, "margin": {"l": 8, "r": 8, "t": 90, "b": 8}}
        if len(slices) > 1
        else {}
    )
    return _figure(traces, records, 380, **more)


def _lines(records: Sequence[Record], metric: str, place: str) -> Iterator[Figure]:
    for model, name in _MODELS.items():
        values = [r.evidence.metrics.get(model, {}).get(place, {}).get(metric) for r in records]
        known = [value or Value(value=None) for value in values]
        if all(value.value is None for value in known):
            continue
        yield line(
            model if model in ("heuristic", "previous", "logged") else "candidate",
            name,
            [*range(len(records))],
            [value.value for value in known],
            mode="lines+markers",
            error_y={
                "array": [_distance(value.high, value.value) for value in known],
                "arrayminus": [_distance(value.value, value.low) for value in known],
                "thickness": 1,
                "width": 0,
            },
            hovertext=[
                f"{_heading(record)}<br>{name} {telling.interval(value)}"
                for record, value in zip(records, known, strict=True)
            ],
            hoverinfo="text",
        )


def _distance(one: float | None, other: float | None) -> float:
    return 0.0 if one is None or other is None else one - other


def _limits(records: Sequence[Record], metric: str, place: str) -> Iterator[Figure]:
    """Each limit as a line with steps."""
    found: dict[str, list[float | None]] = {}
    for number, record in enumerate(records):
        for limit in map(Limit.model_validate, record.settings["limits"]):
            if limit.metric == metric and columns_of(place) == sorted(limit.slices or []):
                for bound, setting in bounds(limit, place, record.evidence):
                    found.setdefault(setting, [None] * len(records))[number] = bound
    for setting, values in found.items():
        name = f"limit: {setting.replace('_', ' ')}"
        yield line("limit", name, [*range(len(records))], values, line={"width": 1, "shape": "hvh"})


def drift(records: Sequence[Record], against: str) -> Figure | None:
    """A row for each column, its distance as a multiple of its limit; None if nothing is known.

    Args:
      records: The evaluations.
      against: What was compared with: training, before or served.
    """
    by_record = [{m.column: m for m in r.evidence.moved if m.against == against} for r in records]
    farthest: dict[str, float] = {}
    for columns in by_record:
        for column, moved in columns.items():
            farthest[column] = max(farthest.get(column, 0.0), moved.value / moved.limit)
    if not farthest:
        return None
    shown = sorted(farthest, key=lambda c: (-farthest[c], c))[:_MOST_COLUMNS][::-1]
    cells = [[columns.get(column) for columns in by_record] for column in shown]
    heat = {
        "type": "heatmap",
        "z": [[moved and moved.value / moved.limit for moved in row] for row in cells],
        "y": [html.escape(column) for column in shown],
        "hovertext": [list(map(_drift_text, records, row)) for row in cells],
        "hoverinfo": "text",
        "zmin": 0,
        "zmax": 2,
        "colorscale": [[0, "#f7fbff"], [0.4999, "#0072b2"], [0.5, "#d55e00"], [1, "#962800"]],
    }
    return _figure([heat], records, 120 + 24 * len(shown))


def _drift_text(record: Record, moved: Moved | None) -> str:
    if moved is None:
        return ""
    what = f"{html.escape(moved.column)}: {moved.measure.replace('_', ' ')}"
    return f"{_heading(record)}<br>{what}<br>{moved.value:.3f}, limit {moved.limit:g}"
