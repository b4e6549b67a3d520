"""What the Evaluator found, as one JSON file that the summary, the registry and people read."""

import json
import math
import os
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import metrics_for_slice_pb2, validation_result_pb2

from components.evaluation import slices
from components.evaluation.thresholds import BASELINE, CANDIDATE, HEURISTIC, METRICS, ROWS

BASELINE_FILE = "baseline.json"
METRICS_FILE = "metrics.json"
GAIN = "gain"
"""Beside the models: the candidate's values less the baseline's."""


def read_baseline(uri: str) -> dict[str, Any]:
    """What the baseline look-up found: `kind`, `version` (of a champion) and `heuristic`."""
    with open(os.path.join(uri, BASELINE_FILE)) as file:
        return json.load(file)


def write_results(uri: str, baseline: dict[str, Any]) -> dict[str, Any]:
    """Writes and returns `metrics.json` beside TFMA's own results in the evaluation artifact.

    It holds `baseline` (its kind and version), `metrics` {model: {slice: {metric: value}}},
    `rows` {slice: count} and `failures` (see `failures`). A value that can't be computed, such as
    the AUC of a slice with one class, is null. Where the judgement asks for intervals,
    `intervals` has [value, low, high] in place of a value, and beside the models `gain`: the
    candidate's value less the baseline's.
    """
    loaded = list(tfma.load_metrics(uri))
    metrics, rows = metrics_by_slice(loaded)
    intervals = intervals_by_slice(loaded)
    if baseline["kind"] == "heuristic":
        metrics[HEURISTIC] = metrics.pop(BASELINE)
        if intervals:
            intervals[HEURISTIC] = intervals.pop(BASELINE)
    found = {
        "baseline": baseline,
        "metrics": metrics,
        "rows": rows,
        **({"intervals": intervals} if intervals else {}),
        "failures": list(failures(tfma.load_validation_result(uri), baseline["kind"])),
    }
    with open(os.path.join(uri, METRICS_FILE), "w") as file:
        json.dump(found, file, indent=1, allow_nan=False)
    return found


def slice_name(key: metrics_for_slice_pb2.SliceKey) -> str:
    """As `slices.slice_name`."""
    return slices.slice_name((part.column, _value(part)) for part in key.single_slice_keys)


def _value(part: metrics_for_slice_pb2.SingleSliceKey) -> str | int | float:
    value = getattr(part, part.WhichOneof("kind"))
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def metrics_by_slice(
    loaded: Iterable[metrics_for_slice_pb2.MetricsForSlice],
) -> tuple[dict[str, dict[str, dict[str, float | None]]], dict[str, int]]:
    """Metrics by model, slice and name, and the number of rows by slice."""
    metrics: dict[str, dict[str, dict[str, float | None]]] = {}
    rows: dict[str, int] = {}
    for entry in sorted(loaded, key=lambda entry: slice_name(entry.slice_key)):
        name = slice_name(entry.slice_key)
        for pair in entry.metric_keys_and_values:
            value = pair.value.double_value.value
            if pair.key.name == ROWS:
                rows[name] = int(value) if not pair.key.is_diff else rows.get(name, 0)
            elif not pair.key.is_diff:
                by_slice = metrics.setdefault(pair.key.model_name, {})
                by_slice.setdefault(name, {})[pair.key.name] = _finite(value)
    return metrics, rows


def intervals_by_slice(
    loaded: Iterable[metrics_for_slice_pb2.MetricsForSlice],
) -> dict[str, dict[str, dict[str, list[float | None]]]]:
    """[value, low, high] by model (or GAIN), slice and metric; empty without intervals."""
    found: dict[str, dict[str, dict[str, list[float | None]]]] = {}
    for entry in sorted(loaded, key=lambda entry: slice_name(entry.slice_key)):
        for pair in entry.metric_keys_and_values:
            is_gain = pair.key.is_diff and pair.key.model_name == CANDIDATE
            shown = pair.key.name != ROWS and (is_gain or not pair.key.is_diff)
            if pair.HasField("confidence_interval") and shown:
                model = GAIN if is_gain else pair.key.model_name
                by_slice = found.setdefault(model, {}).setdefault(slice_name(entry.slice_key), {})
                between = pair.confidence_interval
                numbers = (pair.value, between.lower_bound, between.upper_bound)
                by_slice[pair.key.name] = [_finite(n.double_value.value) for n in numbers]
    return found


def failures(result: validation_result_pb2.ValidationResult, kind: str) -> Iterator[dict[str, Any]]:
    """Yields each limit that does not hold: metric, slice, kind, limit, value and by how much.

    `kind` is the setting: at_least, at_most, over_champion or over_heuristic. For the last two the
    value is the gain over the baseline, in the metric's better direction.
    """
    for per_slice in result.metric_validations_per_slice:
        where = slice_name(per_slice.slice_key)
        for failure in per_slice.failures:
            setting, limit, value = _compared(failure, kind)
            yield {
                "metric": failure.metric_key.name,
                "slice": where,
                "kind": setting,
                "limit": limit,
                "value": _finite(value),
                "by": _finite(abs(value - limit)),
            }
    for missing in result.missing_slices:
        yield {"metric": None, "slice": ", ".join(missing.feature_keys), "kind": "missing_slice"}


def _compared(
    failure: validation_result_pb2.ValidationFailure, kind: str
) -> tuple[str, float, float]:
    threshold, value = failure.metric_threshold, failure.metric_value.double_value.value
    if not failure.HasField("metric_value"):
        value = math.nan
    if threshold.HasField("change_threshold"):
        sign = 1 if METRICS[failure.metric_key.name].higher_is_better else -1
        return f"over_{kind}", sign * threshold.change_threshold.absolute.value, sign * value
    bounds = threshold.value_threshold
    if bounds.HasField("upper_bound") and not value <= bounds.upper_bound.value:
        return "at_most", bounds.upper_bound.value, value
    return "at_least", bounds.lower_bound.value, value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def describe(failure: dict[str, Any]) -> str:
    """One sentence about an entry of `failures`."""
    if failure["kind"] == "missing_slice":
        return f"no slice of {failure['slice']} has enough rows to be judged"
    name = f"{failure['metric']} of {failure['slice']}"
    if failure["value"] is None:
        return f"{name} cannot be computed (one class only?), so not {failure['kind']} it"
    value, by, limit = failure["value"], failure["by"], failure["limit"]
    if failure["kind"].startswith("over_"):
        rival = failure["kind"].removeprefix("over_")
        ahead = "better" if value >= 0 else "worse"
        return (
            f"{name} is {abs(value):.4f} {ahead} than the {rival}'s, "
            f"{by:.4f} short of {failure['kind']} {limit:g}"
        )
    return f"{name} is {value:.4f}, {by:.4f} short of {failure['kind']} {limit:g}"
