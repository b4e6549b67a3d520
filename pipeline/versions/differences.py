"""What differs between two manifests, as plain data.

A change is {"from": value, "to": value}; a side that does not have the thing has no entry.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from components.errors import PipelineStop
from components.registry import signature
from pipeline.versions.slices import OVERALL

Change = dict[str, Any]
Changes = dict[str, Change]

_HASHES = ("config_hash", "code", "git_commit", "schema_hash", "transform_hash", "fingerprint")
_OF_DATA = ("input_fingerprint", "span", "spans", "version", "is_external", "file_format")
_OF_TRAINING = ("steps", "rows", "replicas", "warm_start", "code")
"""What says how it was trained; seconds and savings of checkpoints depend on the machine."""


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """All that differs between two versions' manifests, part by part; an empty part is equal."""
    configs = [{**manifest["config"], "features": None} for manifest in (before, after)]
    settings = changes(*configs)
    used = changes(*(manifest.get("hyperparameters") or {} for manifest in (before, after)))
    return {
        "settings": settings,
        "searched": {path: change for path, change in used.items() if path not in settings},
        "features": _features(*(manifest["config"]["features"] for manifest in (before, after))),
        "signature": changes(*map(_signature, (before, after))),
        "data": changes(*map(_data, (before, after))),
        "hashes": changes(*(_only(manifest, _HASHES) for manifest in (before, after))),
        "libraries": changes(*map(_libraries, (before, after))),
        "training": changes(
            *(_only(manifest["training"], _OF_TRAINING) for manifest in (before, after))
        ),
        "metrics": _metrics(before, after),
    }


def breaks(callers: Mapping[str, Any], new: Mapping[str, Any]) -> list[str] | None:
    """What promoting `new` over `callers` would break; None if it cannot be known."""
    try:
        return signature.breaks(signature.of(callers), signature.of(new))
    except PipelineStop:
        return None


def same_test_rows(found: Mapping[str, Any]) -> bool:
    """Whether both were measured on the same rows, as far as their manifests say."""
    return not found["data"] and not any(path.startswith("data.") for path in found["settings"])


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Changes:
    """What differs between two nested mappings, by dotted path; null is the same as not there."""
    old, new = dict(_flat(before)), dict(_flat(after))
    return {
        path: {
            side: values[path] for side, values in (("from", old), ("to", new)) if path in values
        }
        for path in {**old, **new}
        if old.get(path) != new.get(path)
    }


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
    old, new = ({**table["columns"], **table["crosses"]} for table in (before, after))
    both = [name for name in old if name in new]
    rest = [
        {name: value for name, value in table.items() if name not in ("columns", "crosses")}
        for table in (before, after)
    ]
    of_both = changes({name: old[name] for name in both}, {name: new[name] for name in both})
    found = {
        "added": {name: new[name] for name in new if name not in old},
        "removed": {name: old[name] for name in old if name not in new},
        "changed": {**of_both, **changes(*rest)},
    }
    return {kind: entries for kind, entries in found.items() if entries}


def _signature(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The signature, each column with its type and whether it is required as one thing."""
    if (found := manifest.get("signature")) is None:
        return {}
    columns = {
        f"inputs.{name}": [column["type"], "required" if column["required"] else "optional"]
        for name, column in found["inputs"].items()
    }
    return {**columns, **{name: part for name, part in found.items() if name != "inputs"}}


def _data(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the rows are and how many; where their copy lies is no difference."""
    parts = [
        {name: value for name, value in part.items() if name in _OF_DATA or "rows_" in name}
        for part in manifest["data"]
    ]
    return parts[0] if len(parts) == 1 else {"parts": parts}


def _libraries(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = manifest.get("library_versions") or {}
    return found


def _only(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _metrics(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Changes of every metric, over all rows and by slice; a slice may be on one side only."""
    old, new = (manifest["metrics"]["candidate"] for manifest in (before, after))
    found = {name: changes(old.get(name, {}), new.get(name, {})) for name in sorted({**old, **new})}
    by_slice = {name: moved for name, moved in found.items() if moved and name != OVERALL}
    parts = {"overall": found.get(OVERALL, {}), "slices": by_slice}
    return {part: moved for part, moved in parts.items() if moved}
