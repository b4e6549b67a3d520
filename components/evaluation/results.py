"""What the Evaluator found, as one JSON file that the summary, the registry and people read."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import metrics_for_slice_pb2

from components.evaluation import slices
from components.evaluation.thresholds import (
    BASELINE,
    CANDIDATE,
    CURVES,
    GAIN,
    HEURISTIC,
    HIGH,
    LOW,
    METRICS,
    ROWS,
    Judgement,
    Threshold,
)

BASELINE_FILE = "baseline.json"
METRICS_FILE = "metrics.json"
ByPlace = dict[str, dict[str, float | None]]
"""Values by slice and metric."""


def read_baseline(uri: str) -> dict[str, Any]:
    """What the baseline look-up found: `kind`, `version` (of a champion) and `heuristic`."""
    with open(os.path.join(uri, BASELINE_FILE)) as file:
        return json.load(file)


def write_results(
    uri: str, baseline: dict[str, Any], judgement: Judgement, probed: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Writes and returns `metrics.json` beside TFMA's own results in the evaluation artifact.

    It holds `baseline` (its kind and version), `metrics` {model: {slice: {metric: value}}},
    `rows` {slice: count} and `failures` (see `failures`). A value that can't be computed, such as
    the AUC of a slice with one class, is null. With intervals, `intervals` has [value, low, high]
    in place of a value, and beside the models `gain`: the candidate's value less the baseline's.
    What was `probed` (`components.evaluation.probes`) stands beside.
    `curves` has by model what charts are drawn from.
    """
    loaded = list(tfma.load_metrics(uri))
    values, drawn = metrics_by_slice(loaded), _curves(loaded)
    if baseline["kind"] == "heuristic":
        values[HEURISTIC], drawn[HEURISTIC] = values.pop(BASELINE), drawn.pop(BASELINE)
    rows = {place: int(found[ROWS] or 0) for place, found in values[CANDIDATE].items()}
    metrics: dict[str, ByPlace] = {
        model: {place: dict(_measured(found)) for place, found in by_slice.items()}
        for model, by_slice in values.items()
        if model != GAIN
    }
    results: dict[str, Any] = {"baseline": baseline, "metrics": metrics, "rows": rows}
    if judgement.intervals:
        results["intervals"] = {
            model: {
                place: {
                    name: [value, found[f"{name}/{LOW}"], found[f"{name}/{HIGH}"]]
                    for name, value in _measured(found)
                }
                for place, found in by_slice.items()
            }
            for model, by_slice in values.items()
        }
    results |= probed or {}
    results["failures"] = list(failures(metrics, judgement.thresholds, baseline["kind"]))
    results[CURVES] = drawn
    with open(os.path.join(uri, METRICS_FILE), "w") as file:
        json.dump(results, file, indent=1, allow_nan=False)
    return results


def _curves(loaded: Iterable[metrics_for_slice_pb2.MetricsForSlice]) -> dict[str, Any]:
    """What charts are drawn from (see `components.evaluation.curves`), by model, of all rows."""
    return {
        pair.key.model_name: json.loads(pair.value.bytes_value)
        for entry in loaded
        if not entry.slice_key.single_slice_keys
        for pair in entry.metric_keys_and_values
        if pair.key.name == CURVES
    }


def metrics_by_slice(
    loaded: Iterable[metrics_for_slice_pb2.MetricsForSlice],
) -> dict[str, ByPlace]:
    """TFMA's values by model (or GAIN), slice and name ('auc', 'auc/low', 'auc/high')."""
    metrics: dict[str, ByPlace] = {}
    for place, entry in sorted(((_place(e.slice_key), e) for e in loaded), key=lambda one: one[0]):
        for pair in entry.metric_keys_and_values:
            value = pair.value.double_value.value
            if pair.value.HasField("double_value") and not pair.key.is_diff:
                found = metrics.setdefault(pair.key.model_name, {}).setdefault(place, {})
                found[pair.key.name] = value if math.isfinite(value) else None
    return metrics


def _place(key: metrics_for_slice_pb2.SliceKey) -> str:
    """As `slices.slice_name`."""
    parts = (
        (part.column, getattr(part, part.WhichOneof("kind"))) for part in key.single_slice_keys
    )
    return slices.slice_name(
        (column, value.decode(errors="backslashreplace") if isinstance(value, bytes) else value)
        for column, value in parts
    )


def _measured(values: Mapping[str, float | None]) -> Iterator[tuple[str, float | None]]:
    """Yields the metrics, without the ends of their intervals and the number of rows."""
    yield from ((n, value) for n, value in values.items() if "/" not in n and n != ROWS)


def failures(
    metrics: dict[str, ByPlace], thresholds: Iterable[Threshold], kind: str
) -> Iterator[dict[str, Any]]:
    """Yields each limit that does not hold: metric, slice, kind, limit, value and by how much.

    `kind` is the setting: at_least, at_most, over_champion, over_heuristic or gap. For over_* the
    value is the gain over the baseline, in the metric's better direction; for gap the distance of
    two slices, which `slice` names. A value that cannot be
    computed holds no limit. A limit on slices of which none is large enough does not hold.

    Args:
        metrics: By model, slice and metric.
        thresholds: The limits.
        kind: Of the baseline: 'champion' or 'heuristic'.
    """
    rival = metrics[BASELINE if kind == "champion" else HEURISTIC]
    for limit in thresholds:
        columns = sorted(limit.slices or [])
        places = [place for place in metrics[CANDIDATE] if slices.columns_of(place) == columns]
        names = ("at_least", "at_most", f"over_{kind}")
        bounds = {name: bound for name in names if (bound := getattr(limit, name)) is not None}
        if bounds and not places:
            yield {"metric": None, "slice": ", ".join(columns), "kind": "missing_slice"}
        for place in places:
            own = metrics[CANDIDATE][place].get(limit.metric)
            gain = _gain(limit.metric, own, rival.get(place, {}).get(limit.metric))
            for setting, bound in bounds.items():
                value = gain if setting.startswith("over_") else own
                if value is None or (value > bound if setting == "at_most" else value < bound):
                    by = None if value is None else abs(value - bound)
                    found = {"metric": limit.metric, "slice": place, "kind": setting}
                    yield {**found, "limit": bound, "value": value, "by": by}
        if limit.gap is not None:
            yield from _gap(limit, {place: metrics[CANDIDATE][place] for place in places})


def _gap(limit: Threshold, values: ByPlace) -> Iterator[dict[str, Any]]:
    """Yields the gap between the lowest and the highest slice, if it is too wide."""
    known = {place: v for place, own in values.items() if (v := own[limit.metric]) is not None}
    found = {"metric": limit.metric, "kind": "gap", "limit": limit.gap}
    if len(known) < 2:
        places = ", ".join(limit.slices or [])
        yield {"metric": None, "slice": places, "kind": "missing_slice"}
        return
    low, high = (choose(known, key=known.__getitem__) for choose in (min, max))
    if (value := known[high] - known[low]) > (limit.gap or 0):
        by = value - (limit.gap or 0)
        yield {**found, "slice": f"{low} and {high}", "value": value, "by": by}


def _gain(metric: str, own: float | None, other: float | None) -> float | None:
    """By how much a value is better than another; None where one of them is not known."""
    if own is None or other is None:
        return None
    return own - other if METRICS[metric].higher_is_better else other - own


def describe(failure: dict[str, Any]) -> str:
    """One sentence about an entry of `failures`."""
    if failure["kind"] == "missing_slice":
        return f"no slice of {failure['slice']} has enough rows to be judged"
    name = f"{failure['metric']} of {failure['slice']}"
    if failure["value"] is None:
        return f"{name} cannot be computed (one class only?), so not {failure['kind']} it"
    value, by, limit = failure["value"], failure["by"], failure["limit"]
    if failure["kind"] == "gap":
        return f"{name} are {value:.4f} apart, {by:.4f} more than gap {limit:g} allows"
    if failure["kind"].startswith("over_"):
        rival = failure["kind"].removeprefix("over_")
        ahead = "better" if value >= 0 else "worse"
        return (
            f"{name} is {abs(value):.4f} {ahead} than the {rival}'s, "
            f"{by:.4f} short of {failure['kind']} {limit:g}"
        )
    return f"{name} is {value:.4f}, {by:.4f} short of {failure['kind']} {limit:g}"
