"""The data's columns: how their values are spread by split, and what is made of them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.distance import jensenshannon
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.features.table import FeatureTable

SPLITS = ("train", "eval", "test")
_BINS, _VALUES, _SHOWN = 24, 12, 4
_OF_ITSELF = {"column", "kind", "embed", "columns", "pretrained", "trained_by", "folder", "digest"}
"""Settings of features that say nothing of what a value becomes, or are told otherwise."""
Column = tuple[Any, int]
"""TFDV's statistics of a column, and the number of rows."""


def spread(
    statistics: str, before: Path, table: FeatureTable, inputs: Any
) -> Iterator[dict[str, Any]]:
    """Yields the label's column and each of the features', in the order of the table.

    Args:
      statistics: TFDV's, a folder for each split.
      before: the folder of those that the champion was trained on; it need not be there.
      table: the features.
      inputs: of the model, as the Trainer records them; None if there is none yet.
    """
    found = [_statistics(Path(statistics, f"Split-{split}")) for split in SPLITS]
    found.append(_statistics(before))
    for name, features in _features(table, inputs).items():
        every = [columns.get(name) for columns in found]
        draw = _numbers if every[0] and every[0][0].HasField("num_stats") else _texts
        labels, shares, ends = draw(every)
        *own, others = shares
        yield {
            "name": name,
            "features": features,
            "ends": ends,
            "bars": list(zip(labels, zip(*own, strict=True), strict=True)),
            "top": max((share for split in own for share in split), default=0) or 1,
            "missing": [1 - _known(one) / one[1] if one else 1 for one in every[:-1]],
            "drift": jensenshannon(own[0], others, 2) ** 2 if labels and every[-1] else None,
        }


def _features(table: FeatureTable, inputs: Any) -> dict[str, list[tuple[str, str]]]:
    """The features that read each column, and how they are made."""
    takes = {one["name"]: one for one in inputs["features"]} if inputs else {}
    made: dict[str, list[tuple[str, str]]] = {table.label.column: [("label", table.problem)]}
    for name, feature in table.columns.items():
        settings = feature.model_dump(exclude_defaults=True, exclude=_OF_ITSELF)
        listed = ", ".join(f"{setting} {value}" for setting, value in settings.items())
        text = f"{feature.kind} ({listed}){_becomes(feature.kind, takes.get(name))}"
        for column in table.columns_of(name):
            made.setdefault(column, []).append((name, text))
    return made


def _becomes(kind: str, taken: Any) -> str:
    """What the model takes of a feature, in words."""
    if not taken or kind == "image":
        return ""
    size, embed = taken.get("size"), taken.get("embed")
    some = "words" if kind == "text" else "one"
    text = f" → {some} of {size}" if size else " → a number"
    return f"{text}, embedded in {embed} numbers" if embed else text


def _statistics(folder: Path) -> dict[str, Column]:
    path = folder / "FeatureStats.pb"
    if not path.is_file():
        return {}
    (found,) = statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes()).datasets
    return {one.path.step[0]: (one, found.num_examples) for one in found.features}


def _known(column: Column) -> int:
    """How many rows have a value."""
    return int(getattr(column[0], column[0].WhichOneof("stats")).common_stats.num_non_missing)


def _texts(every: Sequence[Column | None]) -> Any:
    """The training rows' most frequent values, their shares by split, and some of them.

    Texts and pictures, of which most rows have one of their own, are counted only.
    """
    if every[0] and (own := every[0][0].string_stats).unique > _known(every[0]) / 2:
        return (
            [],
            [[]] * len(every),
            f"{own.unique:,} different ones, {own.avg_length:,.0f} bytes on average",
        )
    counts = [
        {b.label: b.sample_count for b in one[0].string_stats.rank_histogram.buckets} if one else {}
        for one in every
    ]
    labels = [*counts[0]][:_VALUES]
    shares = []
    for own in counts:
        row, total = [own.get(label, 0) for label in labels], sum(own.values())
        shares.append([n / (total or 1) for n in [*row, total - sum(row)]])
    more = ", …" if len(labels) > _SHOWN else ""
    return [*labels, "all others"], shares, ", ".join(labels[:_SHOWN]) + more


def _numbers(every: Sequence[Column | None]) -> Any:
    """Intervals over 99 % of the training values, the outermost with the rest; shares by split."""
    curves = [_cumulated(one) if one and _known(one) else None for one in every]
    values, below = curves[0] or (np.zeros(2), np.array([0, 1]))
    low = values[max(np.searchsorted(below, 0.005, "right") - 1, 0)]
    high = values[np.searchsorted(below, 0.995)]
    cuts, shares = np.linspace(low, high, _BINS + 1), []
    for curve in curves:
        inner = np.interp(cuts[1:-1], *curve) if curve else np.zeros(_BINS - 1)
        shares.append(np.diff([0, *inner, float(curve is not None)]).tolist())
    labels = [f"{a:.4g} to {b:.4g}" for a, b in pairwise(cuts)]
    return labels, shares, f"{low:.5g} to {high:.5g}"


def _cumulated(column: Column) -> tuple[np.ndarray, np.ndarray]:
    """Ascending values, and which share of all lies below each: of equal widths and quantiles."""
    shares: dict[float, float] = {}
    for histogram in column[0].num_stats.histograms:
        counts = np.cumsum([0, *(bucket.sample_count for bucket in histogram.buckets)])
        ends = [histogram.buckets[0].low_value, *(b.high_value for b in histogram.buckets)]
        shares |= zip(ends, counts / counts[-1], strict=True)
    values = np.array(sorted(shares))
    return values, np.maximum.accumulate([shares[value] for value in values])
