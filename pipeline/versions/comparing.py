"""`versions diff`: what differs between two versions."""

import json
from collections.abc import Iterator
from typing import Any

from pipeline.versions import differences, slices
from pipeline.versions.differences import Changes
from pipeline.versions.layout import (
    Fact,
    narrow_table,
    new_console,
    number,
    print_section,
    print_table,
    value,
    values,
)
from pipeline.versions.model import Model, Version, read_version

_SLICES, _DIGITS = 5, 12
"""So many are printed; --json has all."""

_TITLES = {
    "settings": "Settings",
    "searched": "Settings that a search had found",
    "features": "Features",
    "signature": "Signature",
    "data": "Data",
    "hashes": "Code, schema, transform",
    "libraries": "Libraries",
    "training": "Training",
}


def main(model: Model, wanted: str, other: str, as_json: bool) -> int:
    """Prints what differs, part by part, or all of it as JSON."""
    before, after = read_version(model, wanted), read_version(model, other)
    found = differences.compare(before.manifest, after.manifest)
    if as_json:
        both = {"from": before.number, "to": after.number, **found}
        print(json.dumps({**both, "breaks": _breaks(before, after)}, indent=1))
        return 0
    console = new_console()
    console.print(f"{before.title} -> {after.title}")
    if not any(found.values()):
        console.print("They are the same version.")
        return 0
    for part, title in _TITLES.items():
        in_words = _IN_WORDS.get(part, _facts)
        print_section(console, title, in_words(found[part]))
    if not any(changed for part, changed in found.items() if part not in ("hashes", "metrics")):
        console.print("\nNothing else differs in what they were made of.")
    print_section(console, "Callers", _callers(before, after))
    _print_metrics(before, after, found)
    return 0


def _breaks(before: Version, after: Version) -> dict[str, list[str] | None]:
    """By direction what a promotion would break; null if a version has no signature."""
    return {
        "promoting_to_over_from": differences.breaks(before.manifest, after.manifest),
        "promoting_from_over_to": differences.breaks(after.manifest, before.manifest),
    }


def _facts(changes: Changes) -> Iterator[Fact]:
    for path, change in changes.items():
        old, new = (value(change[side]) if side in change else "none" for side in ("from", "to"))
        yield path, f"{old} -> {new}"


def _hashes(changes: Changes) -> Iterator[Fact]:
    """Their first digits tell them apart; a '+' is a commit with changes that are not in it."""
    for name, change in changes.items():
        full = [str(change.get(side) or "none") for side in ("from", "to")]
        old, new = (text[:_DIGITS] + "+" * text.endswith("+") for text in full)
        yield name.replace("fingerprint", "model").replace("_", " "), f"{old} -> {new}"


def _signature(changes: Changes) -> Iterator[Fact]:
    """Column by column, if both have one."""
    if "problem" not in changes or len(changes["problem"]) == 2:
        yield from _facts(changes)
    else:
        yield "one of them", "has none: it was filed by an older state of the project"


def _features(found: dict[str, Any]) -> Iterator[Fact]:
    for kind in ("added", "removed"):
        for name, feature in found.get(kind, {}).items():
            yield f"{name} {kind}", values(feature)
    yield from _facts(found.get("changed", {}))


def _callers(before: Version, after: Version) -> Iterator[Fact]:
    for problems, over, new in zip(
        _breaks(before, after).values(), (before, after), (after, before), strict=True
    ):
        said = "would break nobody"
        if problems is None:
            said = "nobody knows what it would break: one of them has no signature"
        elif problems:
            said = f"would break callers: {'; '.join(problems)}"
        yield f"promoting {new.number} over {over.number}", said


def _print_metrics(before: Version, after: Version, found: dict[str, Any]) -> None:
    """Every metric over all rows, then the first metric in the slices where it moved most."""
    titles = f"version {before.number}", f"version {after.number}", "change"
    old, new = (version.manifest["metrics"]["candidate"] for version in (before, after))
    made = narrow_table("", *titles)
    for metric in {**old[slices.OVERALL], **new[slices.OVERALL]}:
        made.add_row(metric, *_values(old, new, slices.OVERALL, metric))
    same = differences.same_test_rows(found)
    where = "the test split" if same else "each one's own test split: the data differ"
    print_table(f"\nMetrics on {where}", made)
    metric = next(iter(new[slices.OVERALL]))
    moved = slices.most_moved(old, new, metric)
    if not moved:
        return
    made = narrow_table("", *titles)
    for name in moved[:_SLICES]:
        made.add_row(name, *_values(old, new, name, metric))
    print_table(f"\nSlices whose {metric} moved most{slices.shown_of(_SLICES, moved)}", made)


def _values(old: slices.BySlice, new: slices.BySlice, name: str, metric: str) -> list[str]:
    """A metric of a slice in both, and how it changed."""
    values = [by_slice.get(name, {}).get(metric) for by_slice in (old, new)]
    if values[0] is None or values[1] is None:
        return [*map(number, values), ""]
    gain = values[1] - values[0]
    better = slices.direction(metric) * gain
    word = "better" if better > 0 else "worse" if better < 0 else ""
    return [*map(number, values), f"{gain:+.4f} {word:<6}"]


_IN_WORDS = {"signature": _signature, "features": _features, "hashes": _hashes}
