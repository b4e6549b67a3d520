"""Metrics by slice, as manifests have them: {slice: {metric: value or None}}."""

from collections.abc import Iterable, Mapping, Sequence

from components.evaluation.thresholds import METRICS
from pipeline.versions.layout import number

OVERALL = "overall"

BySlice = Mapping[str, Mapping[str, float | None]]


def numbers(models: Iterable[BySlice], name: str, metric: str) -> list[str]:
    """A metric of a slice, for each model."""
    return [number(by_slice.get(name, {}).get(metric)) for by_slice in models]


def shown_of(limit: int, names: Sequence[str]) -> str:
    """', 8 of 26; --json has all', if that is so."""
    return f", {limit} of {len(names)}; --json has all" if len(names) > limit else ""


def worst(by_slice: BySlice, metric: str) -> list[str]:
    """The slices in which a metric can be computed, the worst first."""
    values = {
        name: found
        for name, metrics in by_slice.items()
        if name != OVERALL and (found := metrics.get(metric)) is not None
    }
    return sorted(values, key=lambda name: (direction(metric) * values[name], name))


def direction(metric: str) -> int:
    """1 if more of a metric is better, -1 if less is, 0 if neither."""
    known = METRICS.get(metric)
    if known is None or known.higher_is_better is None:
        return 0
    return 1 if known.higher_is_better else -1


def most_moved(old: BySlice, new: BySlice, metric: str) -> list[str]:
    """The slices in which a metric can be computed on both sides and differs, most first."""
    gains = {}
    for name in old.keys() & new.keys() - {OVERALL}:
        before, after = old[name].get(metric), new[name].get(metric)
        if before is not None and after is not None and before != after:
            gains[name] = abs(after - before)
    return sorted(gains, key=lambda name: (-gains[name], name))
