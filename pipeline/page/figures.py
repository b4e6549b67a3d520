"""The charts of a run: how good its predictions are, where, and how the model came about."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from components.evaluation.slices import OVERALL
from components.evaluation.thresholds import BINS, CANDIDATE
from pipeline.page.charts import Chart, Line, chart, places
from pipeline.telling import is_number

_MOST_SLICES, _POINTS = 40, 120
_DIAGONAL = Line("rule", "", [0, 1], [0, 1])


def probabilities(curves: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Chart]:
    """ROC, precision over recall, and calibration; nothing if there is one class only."""
    roc, precision, calibration = [], [], []
    for model, pairs in curves.items():
        counts = np.zeros((BINS, 2))
        for place, kind, rows in pairs:
            counts[place, kind] += rows
        if not counts.any(axis=0).all():
            return {}
        calibration.append(_calibration(model, names[model], counts))
        bins = np.flatnonzero(counts.any(axis=1))[::-1]
        false, true = np.cumsum(counts[bins], axis=0).T
        alarms, found, right = false / false[-1], true / true[-1], true / (true + false)
        far = np.searchsorted(alarms + found, np.linspace(0, 2, _POINTS))
        kept = np.unique(np.minimum(far, len(bins) - 1))  # in equal steps along the curve
        said = [
            f"{names[model]}, from {bins[n] / BINS:.3f} on: {found[n]:.1%} found (recall), "
            f"{alarms[n]:.1%} false alarms, {right[n]:.1%} of those found right (precision)"
            for n in kept
        ]
        x, y = (np.concatenate([[0], one[kept]]) for one in (alarms, found))
        roc.append(Line(model, names[model], x, y, said=["", *said]))
        precision.append(Line(model, names[model], found[kept], right[kept], said=said))
    return {
        "roc": chart([_DIAGONAL, *roc], "false positive rate", "true positive rate"),
        "precision": chart(precision, "recall", "precision"),
        "calibration": chart([_DIAGONAL, *calibration], "predicted", "observed share"),
    }


def _calibration(model: str, name: str, counts: np.ndarray) -> Line:
    """Observed shares with 95 % intervals, of about a tenth of the rows each."""
    rows = counts.sum(axis=1)
    tenth = np.minimum((np.cumsum(rows) - rows / 2) / rows.sum() * 10, 9).astype(int)
    weights = (rows, rows * (np.arange(BINS) + 0.5) / BINS, counts[:, 1])
    sums = [np.bincount(tenth, weight) for weight in weights]
    count, predicted, seen = (found[sums[0] > 0] for found in sums)
    predicted, seen = predicted / count, seen / count
    doubt = 1.96 * np.sqrt(seen * (1 - seen) / count)
    low, high = np.clip([seen - doubt, seen + doubt], 0, 1)
    said = [
        f"{name}: predicted {p:.3f}, observed {s:.3f} of {n:,.0f}"
        for p, s, n in zip(predicted, seen, count, strict=True)
    ]
    return Line(model, name, predicted, seen, low, high, said, "line dots")


def numbers(curves: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Chart]:
    """Predicted against actual, and the residuals."""
    rows = {model: np.array(pairs, float).reshape(-1, 3).T for model, pairs in curves.items()}
    actual, predicted, _ = rows[CANDIDATE]
    if not len(actual):
        return {}
    ends = [min(actual.min(), predicted.min()), max(actual.max(), predicted.max())]
    points = Line(CANDIDATE, names[CANDIDATE], actual, predicted, drawn="dots many")
    cuts = np.histogram_bin_edges(predicted - actual, 41)
    middles = (cuts[1:] + cuts[:-1]) / 2
    shares = []
    for model, (a, p, weights) in rows.items():
        share = np.histogram(p - a, cuts, weights=weights)[0] / weights.sum()
        said = [
            f"{names[model]}: {s:.1%} about {m:.5g}" for s, m in zip(share, middles, strict=True)
        ]
        shares.append(Line(model, names[model], middles, share, said=said))
    return {
        "actual": chart([Line("rule", "", ends, ends), points], "actual", "predicted"),
        "residuals": chart(shares, "predicted less actual", "share of rows"),
    }


def slices(
    found: Mapping[str, Any],
    metric: str,
    sign: int,
    limits: Mapping[str, float],
    names: Mapping[str, str],
) -> Chart | None:
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
    ends = [-0.5, len(order) - 0.5]
    lines = [Line("limit", words, [bound] * 2, ends) for words, bound in limits.items()]
    for model, name in reversed([*names.items()]):
        by_slice = found["intervals"][model]
        values = [by_slice.get(place, {}).get(metric) or [None] * 3 for place in order]
        value, low, high = np.array(values, float).T
        said = [f"{place}, {name}: {v:.4f}" for place, v in zip(order, value, strict=True)]
        low, high = (low, high) if model == CANDIDATE else ((), ())
        lines.append(Line(model, name, value, range(len(order)), low, high, said, "dots"))
    titles = {OVERALL: "all rows"}
    texts = [f"{titles.get(place, place)} ({found['rows'][place]:,})" for place in order]
    return chart(lines, metric, places("", texts, downwards=True))


def training(record: Mapping[str, Any], stopping: Any) -> dict[str, Chart]:
    """Curves of the loss, and of the metric that chooses the best step or else another one.

    There are marks at the best step and where an interrupted training went on.
    """
    evaluations = record["evaluations"]
    marks = [(step, "went on") for step in record["checkpoints"]["resumed_at"]]
    names = [n for n in evaluations[0] if n not in ("step", "train_loss", "examples_per_second")]
    watched = stopping.metric if stopping else ""
    names.sort(key=lambda name: (name != "loss", name != watched))
    if stopping:
        sign = -1 if stopping.metric in ("auc", "accuracy") else 1
        best = min(evaluations, key=lambda one: sign * one[stopping.metric])["step"]
        marks.append((best, "best"))
    return {name: _curve(evaluations, name, marks) for name in names[:2]}


def _curve(evaluations: Sequence[Any], metric: str, marks: Sequence[tuple[float, str]]) -> Chart:
    shown = {"baseline": ("train split", "train_loss")} if metric == "loss" else {}
    steps, lines = [one["step"] for one in evaluations], []
    for style, (name, key) in ({CANDIDATE: ("eval split", metric)} | shown).items():
        values = [one[key] for one in evaluations]
        said = [f"{name}, step {s:,}: {v:.5g}" for s, v in zip(steps, values, strict=True)]
        lines.append(Line(style, name, steps, values, said=said))
    return chart(lines, "step", metric, marks)
