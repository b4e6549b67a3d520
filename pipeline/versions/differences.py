"""What differs between two manifests, as plain data.

A change is {"from": value, "to": value}; a side that does not have the thing has no entry.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from components.errors import PipelineStop
from components.evaluation.thresholds import METRICS
from components.registry import signature
from pipeline.versions.model import mapping, part

Change = dict[str, Any]
Changes = dict[str, Change]
Manifest = Mapping[str, Any]
BySlice = Mapping[str, Mapping[str, float | None]]

OVERALL = "overall"

_HASHES = ("config_hash", "code", "git_commit", "schema_hash", "transform_hash", "fingerprint")
_OF_DATA = ("input_fingerprint", "span", "spans", "version", "is_external", "file_format")
_OF_TRAINING = ("steps", "rows", "replicas", "warm_start", "code")
"""What says how it was trained; seconds and savings of checkpoints depend on the machine."""


def compare(before: Manifest, after: Manifest) -> dict[str, Any]:
    """All that differs between two versions' manifests, part by part; an empty part is equal."""
    parts: dict[str, Any] = {
        name: changes(read(before), read(after)) for name, read in _PARTS.items()
    }
    settings = parts["settings"]
    parts["searched"] = {p: c for p, c in parts["searched"].items() if p not in settings}
    tables = [mapping(manifest, "config", "features") for manifest in (before, after)]
    return {**parts, "features": _features(*tables), "metrics": _metrics(before, after)}


def breaks(callers: Manifest, new: Manifest) -> list[str] | None:
    """What promoting `new` over `callers` would break; None if it cannot be known."""
    try:
        return signature.breaks(signature.of(callers), signature.of(new))
    except PipelineStop:
        return None


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Changes:
    """What differs between two nested mappings, by dotted path; null is the same as not there."""
    old, new = dict(_flat(before)), dict(_flat(after))
    return {
        path: {side: at[path] for side, at in (("from", old), ("to", new)) if path in at}
        for path in {**old, **new}
        if old.get(path) != new.get(path)
    }


def metrics_of(manifest: Manifest, model: str = "candidate") -> BySlice:
    """A model's metrics by slice, as far as they are what they should be."""
    by_slice = mapping(manifest, "metrics", model)
    return {
        name: {
            m: v if isinstance(v, int | float) else None for m, v in mapping(by_slice, name).items()
        }
        for name in {OVERALL: None, **by_slice}
    }


def worst_slices(by_slice: BySlice, metric: str) -> list[str]:
    """The slices in which a metric can be computed, the worst first."""
    values = {name: m[metric] for name, m in by_slice.items() if m.get(metric) is not None}
    values.pop(OVERALL, None)
    return sorted(values, key=lambda name: (direction(metric) * (values[name] or 0), name))


def most_moved(old: BySlice, new: BySlice, metric: str) -> list[str]:
    """The slices in which a metric can be computed on both sides and differs, most first."""
    both = [name for name in worst_slices(old, metric) if name in worst_slices(new, metric)]
    gains = {name: abs((new[name][metric] or 0) - (old[name][metric] or 0)) for name in both}
    return sorted(filter(gains.get, gains), key=lambda name: (-gains[name], name))


def direction(metric: str) -> int:
    """1 if more of a metric is better, -1 if less is, 0 if neither."""
    known = METRICS.get(metric)
    if known is None or known.higher_is_better is None:
        return 0
    return 1 if known.higher_is_better else -1


def _flat(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with its path: `a.b`, and `a[0].b` in a list of mappings."""
    if isinstance(value, Mapping) and (value or not at):
        for name, inner in value.items():
            yield from _flat(inner, f"{at}.{name}" if at else str(name))
    elif isinstance(value, list) and value and all(isinstance(i, Mapping) for i in value):
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{at}[{index}]")
    else:
        yield at, value


def _features(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Features added and removed, by name, and what changed in those that stayed."""
    old, new = ({**mapping(t, "columns"), **mapping(t, "crosses")} for t in (before, after))
    rest = [
        {name: value for name, value in table.items() if name not in ("columns", "crosses")}
        for table in (before, after)
    ]
    both = [{name: t[name] for name in old if name in new} for t in (old, new)]
    found = {
        "added": {name: new[name] for name in new if name not in old},
        "removed": {name: old[name] for name in old if name not in new},
        "changed": {**changes(*both), **changes(*rest)},
    }
    return {kind: entries for kind, entries in found.items() if entries}


def _metrics(before: Manifest, after: Manifest) -> dict[str, Any]:
    """Changes of every metric, over all rows and by slice; a slice may be on one side only."""
    old, new = metrics_of(before), metrics_of(after)
    moved = {name: changes(old.get(name, {}), new.get(name, {})) for name in sorted({**old, **new})}
    slices = {name: changed for name, changed in moved.items() if changed and name != OVERALL}
    parts = {"overall": moved[OVERALL], "slices": slices}
    return {name: changed for name, changed in parts.items() if changed}


def _only(*names: str, inside: str = "") -> Callable[[Manifest], Mapping[str, Any]]:
    def read(manifest: Manifest) -> Mapping[str, Any]:
        values = mapping(manifest, inside) if inside else manifest
        return {name: values[name] for name in names if name in values}

    return read


def _signature(manifest: Manifest) -> Mapping[str, Any]:
    """The signature, each column with its type and whether it is required as one thing."""
    found = mapping(manifest, "signature")
    columns = {
        f"inputs.{name}": [part(c, "type"), "required" if part(c, "required") else "optional"]
        for name, c in mapping(found, "inputs").items()
    }
    return {**columns, **{name: value for name, value in found.items() if name != "inputs"}}


def _data(manifest: Manifest) -> Mapping[str, Any]:
    """What the rows are and how many; where their copy lies is no difference."""
    listed = manifest.get("data")
    parts = [
        {name: v for name, v in one.items() if name in _OF_DATA or "rows_" in name}
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, Mapping)
    ]
    return parts[0] if len(parts) == 1 else {"parts": parts}


_PARTS: dict[str, Callable[[Manifest], Mapping[str, Any]]] = {
    "settings": lambda manifest: {**mapping(manifest, "config"), "features": None},
    "searched": lambda manifest: mapping(manifest, "hyperparameters"),
    "signature": _signature,
    "data": _data,
    "hashes": _only(*_HASHES),
    "libraries": lambda manifest: mapping(manifest, "library_versions"),
    "training": _only(*_OF_TRAINING, inside="training"),
}
