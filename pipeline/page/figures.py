"""Figures as Plotly takes them. A trace's `meta` names its style in `page.js`.

Texts that Plotly shows have to be escaped: it reads them as HTML.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from components.evaluation.curves import BINS
from components.evaluation.slices import OVERALL
from components.evaluation.thresholds import CANDIDATE
from pipeline.telling import is_number

Figure = dict[str, Any]
_MOST_SLICES = 40


def figure(traces: Sequence[Figure], x: str, y: str, height: int = 320, **layout: Any) -> Figure:
    """A figure whose axes have the titles `x` and `y`; `layout` is more of Plotly's."""
    axes = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
    for name in axes.keys() & layout.keys():
        axes[name] |= layout.pop(name)
    shown = sum(trace.get("showlegend", True) for trace in traces) > 1
    given = {"height": height, "showlegend": shown, **axes, **layout}
    return {"data": [*traces], "layout": given}


def line(style: str, name: str, x: Any, y: Any, **more: Any) -> Figure:
    """A line in a style of `page.js`; `more` is more of Plotly's trace."""
    return {"meta": style, "name": name, "x": plain(x), "y": plain(y), "mode": "lines", **more}


def plain(values: Any) -> list[float | None]:
    """Numbers as JSON has them, with five digits; what is not known is null."""
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in np.asarray(values, float)]


def _rule(x: Any, y: Any) -> Figure:
    """A line to compare with."""
    return line("rule", "", x, y, showlegend=False, hoverinfo="skip")


def probabilities(curves: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Figure]:
    """ROC, precision over recall, and calibration; nothing if there is one class only."""
    roc, precision, calibration = [], [], []
    for model, pairs in curves.items():
        counts = np.zeros((BINS, 2))
        for place, kind, rows in pairs:
            counts[place, kind] += rows
        above = np.cumsum(counts[::-1][counts[::-1].any(axis=1)], axis=0)
        if not len(above) or not above[-1].all():
            return {}
        false, true = np.concatenate([[[0, 0]], above]).T
        roc.append(line(model, names[model], false / false[-1], true / true[-1]))
        precise = true[1:] / (true + false)[1:]
        precision.append(line(model, names[model], true[1:] / true[-1], precise))
        calibration.append(_calibration(model, names[model], counts))
    unit = {"range": [-0.02, 1.02]}
    square: Figure = {"xaxis": unit, "yaxis": unit}
    diagonal, shares = _rule([0, 1], [0, 1]), ("predicted probability", "observed share")
    return {
        "roc": figure([*roc, diagonal], "false positive rate", "true positive rate", **square),
        "precision": figure(precision, "recall", "precision", **square),
        "calibration": figure([*calibration, diagonal], *shares, **square),
    }


def _calibration(model: str, name: str, counts: np.ndarray) -> Figure:
    """Observed shares with 95 % intervals, of about a tenth of the rows each."""
    rows = counts.sum(axis=1)
    tenth = np.minimum((np.cumsum(rows) - rows / 2) / rows.sum() * 10, 9).astype(int)
    sums = [
        np.bincount(tenth, w) for w in (rows, rows * (np.arange(BINS) + 0.5) / BINS, counts[:, 1])
    ]
    count, predicted, seen = (found[sums[0] > 0] for found in sums)
    seen = seen / count
    bars = {"array": plain(1.96 * np.sqrt(seen * (1 - seen) / count)), "thickness": 1, "width": 0}
    return line(model, name, predicted / count, seen, mode="lines+markers", error_y=bars)


def numbers(curves: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Figure]:
    """Predicted against actual, and the residuals."""
    rows = {model: np.array(pairs, float).reshape(-1, 3).T for model, pairs in curves.items()}
    actual, predicted, _ = rows[CANDIDATE]
    if not len(actual):
        return {}
    ends = [min(actual.min(), predicted.min()), max(actual.max(), predicted.max())]
    small = {"mode": "markers", "marker": {"size": 5, "opacity": 0.5}}
    points = line(CANDIDATE, names[CANDIDATE], actual, predicted, **small)
    cuts = np.histogram_bin_edges(predicted - actual, 41)
    shares = []
    for model, (a, p, weights) in rows.items():
        share = np.histogram(p - a, cuts, weights=weights)[0] / weights.sum()
        shares.append(line(model, names[model], (cuts[1:] + cuts[:-1]) / 2, share))
    return {
        "actual": figure([points, _rule(ends, ends)], "actual", "predicted"),
        "residuals": figure(shares, "predicted less actual", "share of rows"),
    }


def slices(
    found: Mapping[str, Any],
    metric: str,
    sign: int,
    limits: Mapping[str, float],
    names: Mapping[str, str],
) -> Figure | None:
    """A row for each slice with its size, the worst at the top; None for fewer than two.

    Args:
      found: by the Evaluator.
      metric: which of its metrics; `sign` is -1 if less of it is better.
      sign: see above.
      limits: for slices, by their words.
      names: the models'.
    """
    known = {
        p: by[metric] for p, by in found["metrics"][CANDIDATE].items() if is_number(by, metric)
    }
    order = sorted(known, key=lambda place: (sign * known[place], place))[:_MOST_SLICES]
    if len(order) < 2:
        return None
    titles = {place: html.escape(place) for place in order} | {OVERALL: "all rows"}
    texts = [f"{titles[place]} ({found['rows'][place]:,})" for place in order]
    rows, traces = [*range(len(order))], []
    for model, name in reversed([*names.items()]):
        by_slice = found["intervals"][model]
        values = [by_slice.get(place, {}).get(metric) or [None] * 3 for place in order]
        value, low, high = np.array(values, float).T
        bars = {"array": plain(high - value), "arrayminus": plain(value - low), "width": 0}
        hover = f"%{{text}}<br>{name} %{{x:.4f}}<extra></extra>"
        dots = line(model, name, value, rows, mode="markers", text=texts, hovertemplate=hover)
        traces.append(dots | ({"error_x": bars} if model == CANDIDATE else {}))
    ends = [-0.5, len(order) - 0.5]
    traces += [line("limit", words, [bound] * 2, ends) for words, bound in limits.items()]
    axis = {"tickvals": rows, "ticktext": texts, "range": ends[::-1], "showgrid": False}
    return figure(traces, metric, "", 110 + 28 * len(order), yaxis=axis)


def training(record: Mapping[str, Any], metric: str, best: int | None) -> Figure:
    """A training's curve, with marks at its best step and where an interrupted one went on."""
    evaluations = record["evaluations"]
    steps = [one["step"] for one in evaluations]
    traces = [line(CANDIDATE, "eval split", steps, [one[metric] for one in evaluations])]
    if metric == "loss":
        losses = [one["train_loss"] for one in evaluations]
        traces.append(line("baseline", "train split", steps, losses))
    at = [(step, "went on") for step in record["checkpoints"]["resumed_at"]]
    at += [] if best is None else [(best, "best")]
    return figure(traces, "step", metric, 280, **marks(at))


def marks(at: Sequence[tuple[float, str]]) -> Figure:
    """Of a layout: vertical lines with a word each."""
    whole = {"yref": "paper", "y0": 0, "y1": 1}
    return {
        "shapes": [{"type": "line", "x0": x, "x1": x, **whole} for x, _ in at],
        "annotations": [{"x": x, "text": text, "yref": "paper", "y": 1} for x, text in at],
    }
