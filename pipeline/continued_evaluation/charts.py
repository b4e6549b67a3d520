"""What all charts of the page have in common, and the charts of decisions and of drift.

Every chart has the same time axis: a place for each evaluation, in their order. Colours are
Okabe and Ito's, which colour-blind people can tell apart; those of lines and text that have to
suit a dark page too are set in `page.css`.
"""

import html
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go

from components.continued_evaluation.decision import Action
from components.continued_evaluation.evidence import Moved
from components.continued_evaluation.history import Record
from pipeline.continued_evaluation.wording import TITLES, span_name

BLUE, SKY, PURPLE, ORANGE = "#0072b2", "#56b4e9", "#cc79a7", "#e69f00"
GREEN, VERMILION, GREY = "#009e73", "#d55e00", "#7f7f7f"

MARKS: dict[Action, tuple[str, str]] = {
    "investigate": ("diamond", VERMILION),
    "roll_back": ("triangle-left", PURPLE),
    "retrain": ("triangle-up", ORANGE),
    "keep": ("circle", GREEN),
}
"""Shape and colour of each decision."""

MOST_COLUMNS = 30
"""So many columns at most in a chart of drift: those that moved farthest."""

_MANY = 40
_HOVER_WIDTH, _HOVER_REASONS = 44, 4
_LANE, _ROW = 26, 24
_CLEAR = "rgba(0,0,0,0)"
# Blue below the limit (1 of 2), vermilion beyond it; clear enough for a light and a dark page.
_DRIFT_SCALE = [
    [0.0, "rgba(0,114,178,0.04)"],
    [0.4999, "rgba(0,114,178,0.55)"],
    [0.5, "rgba(213,94,0,0.85)"],
    [1.0, "rgba(150,40,0,1)"],
]


def plain(text: str) -> str:
    """Text in which Plotly finds no markup: it understands some HTML."""
    return html.escape(text, quote=False)


def heading(record: Record) -> str:
    """'span 7, version 2: retrain', for hovering."""
    action = TITLES[record.decision.action].lower()
    return f"<b>span {span_name(record)}, version {record.evidence.champion}: {action}</b>"


def layout(records: Sequence[Record], height: int, **more: Any) -> go.Layout:
    """The layout of a chart with the time axis; champion changes are vertical lines in it."""
    return go.Layout(
        template=go.layout.Template(),
        height=height,
        margin={"l": 176, "r": 24, "t": 8, "b": 28},
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
        font={"family": "system-ui, sans-serif", "size": 12},
        showlegend=False,
        dragmode=False,
        hoverlabel={"align": "left", "font": {"size": 12}},
        xaxis=_time_axis(records),
        shapes=[_vertical(place - 0.5) for place in champion_changes(records)],
        **more,
    )


def _time_axis(records: Sequence[Record]) -> dict[str, Any]:
    return {
        "range": [-0.6, len(records) - 0.4],
        "dtick": 1,
        "labelalias": {str(n): span_name(record) for n, record in enumerate(records)},
        "fixedrange": True,
        "showgrid": False,
        "zeroline": False,
        "ticks": "",
    }


def mark_size(records: Sequence[Record]) -> int:
    """A decision's mark is smaller where there are many."""
    return 12 if len(records) < _MANY else 7


def champion_changes(records: Sequence[Record]) -> list[int]:
    """The evaluations whose champion is another than the one's before."""
    pairs = enumerate(pairwise(records), 1)
    return [n for n, (a, b) in pairs if a.evidence.champion != b.evidence.champion]


def _vertical(x: float) -> dict[str, Any]:
    line = {"color": GREY, "width": 1, "dash": "dot"}
    return {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": line}


def decisions(records: Sequence[Record]) -> go.Figure:
    """A lane for each kind of decision, and the champions' versions above them."""
    lanes = list(reversed(TITLES))
    figure = go.Figure(layout=layout(records, 54 + _LANE * len(lanes), hovermode="closest"))
    figure.update_layout(margin_t=26)
    for lane, action in enumerate(lanes):
        places = [n for n, r in enumerate(records) if r.decision.action == action]
        symbol, color = MARKS[action]
        figure.add_scatter(
            x=places,
            y=[lane] * len(places),
            mode="markers",
            marker={"symbol": symbol, "color": color, "size": mark_size(records)},
            hovertext=[_decision_hover(records[place]) for place in places],
            hoverinfo="text",
            customdata=[records[place].id for place in places],
        )
    names = [TITLES[action] for action in lanes]
    figure.update_yaxes(range=[-0.6, len(lanes) - 0.4], tickvals=list(range(len(lanes))))
    figure.update_yaxes(ticktext=names, fixedrange=True, zeroline=False)
    for place in [0, *champion_changes(records)]:
        text = f"v{records[place].evidence.champion}"
        figure.add_annotation(
            x=place - 0.45, y=1, yref="paper", text=text, showarrow=False, xanchor="left", yshift=9
        )
    return figure


def _decision_hover(record: Record) -> str:
    reasons = record.decision.reasons
    lines = [heading(record)]
    for reason in reasons[:_HOVER_REASONS]:
        lines += map(plain, textwrap.wrap(reason.text, _HOVER_WIDTH))
    if len(reasons) > _HOVER_REASONS:
        lines.append(f"and {len(reasons) - _HOVER_REASONS} more, in the table")
    return "<br>".join(lines)


def drift(records: Sequence[Record], against: str) -> go.Figure | None:
    """A row for each column, its distance as a multiple of its limit; None if nothing is known.

    Args:
      records: The evaluations.
      against: What was compared with: a key of `wording.AGAINST`.
    """
    found = [
        {m.column: m for m in record.evidence.moved if m.against == against} for record in records
    ]
    farthest: dict[str, float] = {}
    for by_column in found:
        for column, moved in by_column.items():
            farthest[column] = max(farthest.get(column, 0.0), moved.value / moved.limit)
    if not farthest:
        return None
    columns = sorted(farthest, key=lambda c: (-farthest[c], c))[:MOST_COLUMNS]
    figure = go.Figure(layout=layout(records, 36 + _ROW * len(columns)))
    figure.update_yaxes(
        tickvals=list(range(len(columns))),
        ticktext=[plain(column) for column in columns],
        autorange="reversed",
        fixedrange=True,
        showgrid=False,
        ticks="",
        zeroline=False,
    )
    figure.add_heatmap(**_cells(records, found, columns))
    return figure


def _cells(
    records: Sequence[Record], found: list[dict[str, Moved]], columns: list[str]
) -> dict[str, Any]:
    """The heat map's colours, the numbers of what is beyond its limit, and what hovering says."""
    rows = [[by_column.get(column) for by_column in found] for column in columns]
    ratios = [[moved and moved.value / moved.limit for moved in row] for row in rows]
    return {
        "z": ratios,
        "text": [[f"{r:.1f}" if r and r > 1 else "" for r in row] for row in ratios],
        "texttemplate": "%{text}",
        "textfont": {"color": "#fff", "size": 11},
        "hovertext": [list(map(_drift_hover, records, row)) for row in rows],
        "hoverinfo": "text",
        "hoverongaps": False,
        "zmin": 0,
        "zmax": 2,
        "colorscale": _DRIFT_SCALE,
        "showscale": False,
        "xgap": 2 if len(records) < _MANY else 0.5,
        "ygap": 2,
    }


def _drift_hover(record: Record, moved: Moved | None) -> str | None:
    if moved is None:
        return None
    measure = moved.measure.replace("_", " ")
    what = f"{plain(moved.column)}: {measure}<br>{moved.value:.3f}, limit {moved.limit:g}"
    return f"{heading(record)}<br>{what}"
