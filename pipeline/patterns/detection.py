"""Which patterns a configuration uses, and which of its settings say so.

A function for each pattern that settings can turn on or shape, from a `Config` to its reasons. A
part that was removed took its settings along, so they are looked up by name.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from components.features.table import Hashed, Numeric
from pipeline.config import Config

Detector = Callable[[Config], Iterator[str]]
"""Yields reasons, `setting: value` each; none means that the pattern is not used."""


def reasons(number: int, config: Config) -> list[str]:
    """Why a configuration uses the pattern of that number; empty if no setting says so."""
    return list(_DETECTORS[number](config)) if number in _DETECTORS else []


def _hashed(config: Config) -> Iterator[str]:
    columns = config.features.columns.items()
    found = [f"{n} ({f.buckets} buckets)" for n, f in columns if isinstance(f, Hashed)]
    yield from _listed("kind: hashed", found)


def _embedded(config: Config) -> Iterator[str]:
    table = config.features
    widths = {n: f.embed for n, f in table.columns.items() if not isinstance(f, Numeric)}
    widths |= {name: cross.embed for name, cross in table.crosses.items()}
    yield from _listed("embed", [f"{name} ({w})" for name, w in widths.items() if w])


def _crossed(config: Config) -> Iterator[str]:
    crosses = config.features.crosses.items()
    yield from _listed("crosses", [f"{n} ({' and '.join(c.of)})" for n, c in crosses])


def _checkpoints(config: Config) -> Iterator[str]:
    settings = config.training.checkpoints
    intervals = [f"every {settings.every_seconds:g} s"] if settings.every_seconds else []
    intervals += [f"every {settings.every_steps} steps"] if settings.every_steps else []
    when = intervals or ["only when interrupted"]
    yield f"training.checkpoints: {', '.join(when)}; the last {settings.keep} are kept"


def _transferred(config: Config) -> Iterator[str]:
    start = config.training.warm_start
    if start is not None:
        frozen = ", frozen" if start.freeze else ""
        layers = ", ".join(start.layers)
        yield f"training.warm_start: layers {layers} of version {start.version}{frozen}"
    if _setting(config, "continued_evaluation.retraining.warm_start"):
        yield "continued_evaluation.retraining.warm_start: true"


def _distributed(config: Config) -> Iterator[str]:
    training = config.training
    if training.strategy == "auto":
        yield "training.strategy: auto (all GPUs, where there are several)"
    elif training.strategy != "one_device":
        count = _setting(config, "training.workers")
        workers = f" ({count} workers)" if count else ""
        yield f"training.strategy: {training.strategy}{workers}"


def _tuned(config: Config) -> Iterator[str]:
    tuning = _setting(config, "tuning")
    if tuning is not None:
        yield f"tuning: {tuning.trials} trials over {', '.join(tuning.search)}"


def _continued(config: Config) -> Iterator[str]:
    limits = _setting(config, "continued_evaluation.limits") or []
    yield from _listed("continued_evaluation.limits", _each(limits))
    for unit in ("spans", "days"):
        if age := _setting(config, f"continued_evaluation.age.{unit}"):
            yield f"continued_evaluation.age: {age} {unit}"
    if labels := _setting(config, "continued_evaluation.labels"):
        yield f"continued_evaluation.labels: {labels.path}/{labels.pattern}"


def _keyed(config: Config) -> Iterator[str]:
    if config.features.key:
        yield f"features.key: {config.features.key}"


def _transform(config: Config) -> Iterator[str]:
    table = config.features
    features, crosses = len(table.columns), len(table.crosses)
    yield f"features: {_count(features, 'feature')}, {_count(crosses, 'cross', 'crosses')}"


def _split(config: Config) -> Iterator[str]:
    split = config.data.split
    column = ", ".join([*split.key, *([split.time] if split.time else [])])
    by = f"{split.by} ({column})" if column else split.by
    yield f"data.split: by {by}, {split.train:g} train, {split.eval:g} eval, {split.test:g} test"


def _versioned(config: Config) -> Iterator[str]:
    yield f"registry: {config.registry.model}, promotion is {config.registry.promote}"


def _heuristic(config: Config) -> Iterator[str]:
    yield f"evaluation.heuristic: {config.evaluation.heuristic}"


def _fair(config: Config) -> Iterator[str]:
    slices = [" and ".join(columns) for columns in config.features.slices]
    yield from _listed("features.slices", slices)
    limits = _setting(config, "continued_evaluation.limits") or []
    for name, all_limits in (
        ("evaluation.thresholds", config.evaluation.thresholds),
        ("continued_evaluation.limits", limits),
    ):
        yield from _listed(name, _each(limit for limit in all_limits if limit.slices))


def _each(limits: Iterable[Any]) -> list[str]:
    """A metric for each limit, with its slices, each once."""
    named = (_limit(limit) for limit in limits)
    return list(dict.fromkeys(named))


def _limit(limit: Any) -> str:
    between = getattr(limit, "gap", None)
    where = " and ".join(limit.slices or [])
    return f"{limit.metric} {'between' if between else 'for'} {where}" if where else limit.metric


def _listed(setting: str, found: list[str]) -> Iterator[str]:
    if found:
        yield f"{setting}: {', '.join(found)}"


def _count(number: int, singular: str, plural: str = "") -> str:
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def _setting(config: Config, dotted: str) -> Any:
    """The setting's value; None if there is no such setting (any more)."""
    value: Any = config
    for name in dotted.split("."):
        value = getattr(value, name, None)
    return value


_DETECTORS: dict[int, Detector] = {
    1: _hashed,
    2: _embedded,
    3: _crossed,
    12: _checkpoints,
    13: _transferred,
    14: _distributed,
    15: _tuned,
    18: _continued,
    20: _keyed,
    21: _transform,
    22: _split,
    27: _versioned,
    28: _heuristic,
    30: _fair,
}
