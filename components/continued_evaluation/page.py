"""The page of a model's evaluations: one HTML file that needs no network and no server.

Every chart has the same axis: a place for each evaluation, in their order. Colours are Okabe and
Ito's, which colour-blind people can tell apart.
"""

import html
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.continued_evaluation import telling
from components.continued_evaluation.decision import bounds
from components.continued_evaluation.evidence import OVERALL, Moved, Value
from components.continued_evaluation.history import Followed, Record
from components.continued_evaluation.settings import Limit
from components.evaluation.slices import columns_of
from components.files import new_file

_MODELS = {
    "heuristic": ("heuristic", "#7f7f7f", "dot"),
    "previous": ("version before", "#cc79a7", "dash"),
    "champion": ("champion", "#0072b2", "solid"),
    "logged": ("champion, as it was served", "#56b4e9", "solid"),
}
"""Name, colour and dash; the last is drawn on top."""
_MARKS = {
    "keep": ("circle", "#009e73"),
    "retrain": ("triangle-up", "#e69f00"),
    "roll_back": ("triangle-left", "#cc79a7"),
    "investigate": ("diamond", "#d55e00"),
}
_AGAINST = {
    "training": "against the champion's training",
    "before": "against the span before",
    "served": "served against trained on (skew)",
}
_LIMIT = "#d55e00"
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
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    drawn = [
        (name, figure.to_html(full_html=False, include_plotlyjs=not number))
        for number, (name, figure) in enumerate(_figures(records))
    ]
    text = environment.get_template("page.html.j2").render(
        title=title,
        records=list(reversed(records)),
        followed=followed,
        metrics=telling.metrics_to_show(records),
        charts=drawn,
        telling=telling,
        facts=_facts,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(str(path)) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
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


def _figures(records: Sequence[Record]) -> Iterator[tuple[str, go.Figure]]:
    """Yields each chart with its heading."""
    yield "Decisions", decisions(records)
    for metric in telling.metrics_to_show(records):
        yield metric, metric_chart(records, metric)
    for against, words in _AGAINST.items():
        if (figure := drift(records, against)) is not None:
            yield f"Drift {words}: distances as multiples of their limits", figure


def _figure(records: Sequence[Record], height: int) -> go.Figure:
    """An empty chart; where the champion changes there is a vertical line."""
    figure = go.Figure(layout={"height": height, "margin": {"t": 40, "b": 40}, "showlegend": True})
    names = [html.escape(telling.span_name(record)) for record in records]
    figure.update_xaxes(tickvals=[*range(len(records))], ticktext=names, title="span")
    for place, (before, after) in enumerate(pairwise(records), 1):
        if before.evidence.champion != after.evidence.champion:
            version = f"v{after.evidence.champion}"
            figure.add_vline(place - 0.5, line={"dash": "dot", "width": 1}, annotation_text=version)
    return figure


def _heading(record: Record) -> str:
    action = telling.TITLES[record.decision.action].lower()
    span = html.escape(telling.span_name(record))
    return f"<b>span {span}, version {record.evidence.champion}: {action}</b>"


def decisions(records: Sequence[Record]) -> go.Figure:
    """A lane for each kind of decision; the reasons come by hovering."""
    figure = _figure(records, 260)
    figure.update_yaxes(categoryorder="array", categoryarray=[*reversed(telling.TITLES.values())])
    for action, title in telling.TITLES.items():
        places = [n for n, record in enumerate(records) if record.decision.action == action]
        symbol, color = _MARKS[action]
        figure.add_scatter(
            x=places,
            y=[title] * len(places),
            name=title,
            mode="markers",
            marker={"symbol": symbol, "color": color, "size": 12},
            hovertext=[_reasons(records[place]) for place in places],
            hoverinfo="text",
        )
    return figure


def _reasons(record: Record) -> str:
    lines = [line for r in record.decision.reasons for line in textwrap.wrap(r.text, _WIDTH)]
    return "<br>".join([_heading(record), *map(html.escape, lines)])


def metric_chart(records: Sequence[Record], metric: str) -> go.Figure:
    """A metric of all models with its intervals and limits, over time; a menu has the slices."""
    places = {place for record in records for place in telling.judged(record.evidence)}
    slices = sorted(places, key=lambda place: (place != OVERALL, place))
    figure, owners = _figure(records, 340), list[str]()
    for place in slices:
        traces = [*_lines(records, metric, place), *_limits(records, metric, place)]
        for trace in traces:
            figure.add_trace(trace.update(visible=place == OVERALL))
        owners += [place] * len(traces)
    buttons = [
        {
            "label": html.escape("all rows" if place == OVERALL else place),
            "method": "restyle",
            "args": [{"visible": [owner == place for owner in owners]}],
        }
        for place in slices
    ]
    if len(slices) > 1:
        figure.update_layout(updatemenus=[{"buttons": buttons, "x": 1, "y": 1.2}])
    return figure


def _lines(records: Sequence[Record], metric: str, place: str) -> Iterator[go.Scatter]:
    for model, (name, color, dash) in _MODELS.items():
        values = [r.evidence.metrics.get(model, {}).get(place, {}).get(metric) for r in records]
        known = [value or Value(value=None) for value in values]
        if all(value.value is None for value in known):
            continue
        yield go.Scatter(
            x=[*range(len(records))],
            y=[value.value for value in known],
            error_y={
                "array": [_distance(value.high, value.value) for value in known],
                "arrayminus": [_distance(value.value, value.low) for value in known],
                "thickness": 1,
            },
            name=name,
            line={"color": color, "dash": dash},
            hovertext=[
                f"{_heading(record)}<br>{name} {telling.interval(value)}"
                for record, value in zip(records, known, strict=True)
            ],
            hoverinfo="text",
        )


def _distance(one: float | None, other: float | None) -> float:
    return 0.0 if one is None or other is None else one - other


def _limits(records: Sequence[Record], metric: str, place: str) -> Iterator[go.Scatter]:
    """Each limit as a line with steps."""
    found: dict[str, list[float | None]] = {}
    for number, record in enumerate(records):
        for limit in map(Limit.model_validate, record.settings["limits"]):
            if limit.metric == metric and columns_of(place) == sorted(limit.slices or []):
                for bound, setting in bounds(limit, place, record.evidence):
                    found.setdefault(setting, [None] * len(records))[number] = bound
    for setting, values in found.items():
        name = f"limit: {setting.replace('_', ' ')}"
        line = {"color": _LIMIT, "dash": "dash", "width": 1, "shape": "hvh"}
        yield go.Scatter(x=[*range(len(records))], y=values, name=name, mode="lines", line=line)


def drift(records: Sequence[Record], against: str) -> go.Figure | None:
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
    figure = _figure(records, 120 + 24 * len(shown))
    figure.add_heatmap(
        z=[[moved and moved.value / moved.limit for moved in row] for row in cells],
        y=[html.escape(column) for column in shown],
        hovertext=[list(map(_drift_text, records, row)) for row in cells],
        hoverinfo="text",
        zmin=0,
        zmax=2,
        colorscale=[[0, "#f7fbff"], [0.4999, "#0072b2"], [0.5, "#d55e00"], [1, "#962800"]],
    )
    return figure


def _drift_text(record: Record, moved: Moved | None) -> str:
    if moved is None:
        return ""
    what = f"{html.escape(moved.column)}: {moved.measure.replace('_', ' ')}"
    return f"{_heading(record)}<br>{what}<br>{moved.value:.3f}, limit {moved.limit:g}"
