"""`versions show`: all that an auditor asks about a version, from the registry's files alone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.errors import PipelineStop
from components.registry import labels, store
from pipeline.console import shown
from pipeline.versions import slices
from pipeline.versions.layout import (
    NOT_RECORDED,
    Fact,
    narrow_table,
    new_console,
    print_section,
    print_table,
    value,
    values,
)
from pipeline.versions.model import (
    Model,
    Version,
    day_and_minute,
    describe_moves,
    read_version,
)

_FILES, _SLICES = 12, 8
"""So many are printed; --json has all."""


def main(model: Model, wanted: str, as_json: bool) -> int:
    """Prints what the manifest and the history say of a version, or all of it as JSON."""
    version = read_version(model, wanted)
    if as_json:
        known = {"version": version.number, "labels": version.labels}
        known |= {"moves": labels.moves_of(model.folder, version.number)}
        print(json.dumps(known | {"manifest": version.manifest}, indent=1))
        return 0
    console = new_console()
    manifest = version.manifest
    console.print(f"{manifest.get('model')}, {version.title}")
    print_section(console, "Filed", _filed(model, version))
    print_section(console, "Moves of its labels (UTC)", _moves(model, version))
    for number, data in enumerate(manifest["data"], start=1):
        title = "Data" if len(manifest["data"]) == 1 else f"Data, part {number}"
        print_section(console, title, _data(data))
    print_section(console, "Code and libraries", _code(manifest))
    print_section(console, "Settings", _settings(manifest))
    print_section(console, "Training", _training(manifest))
    print_section(console, "Signature", _signature(manifest))
    _print_metrics(version)
    print_section(console, "Files (SHA-256)", _files(manifest["files"]))
    console.print(f"\nEverything: {model.command(f'show {version.number}')} --json")
    return 0


def _filed(model: Model, version: Version) -> Iterator[Fact]:
    manifest = version.manifest
    yield "in", shown(Path(store.version_folder(model.folder, version.number)))
    yield "at", f"{day_and_minute(manifest.get('time', NOT_RECORDED))} UTC"
    run, name = manifest.get("run_id"), manifest["config"].get("name")
    yield "by", f"run {run} of {name}"
    report = model.workspace.reports / f"{name}-{run}.md"
    if report.is_file():
        yield "report", shown(report)
    yield "parent", _numbered(manifest.get("parent"), "none: there was no champion")
    rule = (manifest.get("heuristic") or {}).get("rule", NOT_RECORDED)
    yield "judged against", _numbered(manifest["baseline"]["version"], "the heuristic")
    yield "heuristic", rule


def _numbered(version: int | None, none: str) -> str:
    return none if version is None else f"version {version}"


def _moves(model: Model, version: Version) -> Iterator[Fact]:
    """Each move of a label to this version or away from it."""
    try:
        moves = labels.moves_of(model.folder, version.number)
    except PipelineStop as stop:
        yield "not known", str(stop)
        return
    for entry in moves:
        moved = describe_moves(entry["moves"])
        yield day_and_minute(entry["time"]), f"{moved}, by {entry['who']}: {entry['why']}"
    if not moves:
        yield "none", "no label has ever pointed to it"


def _data(data: dict[str, Any]) -> Iterator[Fact]:
    yield "files", str(data.get("uri", NOT_RECORDED))
    yield "fingerprint", str(data.get("input_fingerprint", NOT_RECORDED))
    yield "spans", str(data.get("spans", data.get("span", NOT_RECORDED)))
    rows = {name.removeprefix("rows_"): n for name, n in data.items() if name.startswith("rows_")}
    rows = dict(sorted(rows.items(), key=lambda split: -split[1]))
    yield "rows", ", ".join(f"{count:,} {split}" for split, count in rows.items())


def _code(manifest: dict[str, Any]) -> Iterator[Fact]:
    commit = str(manifest.get("git_commit") or NOT_RECORDED)
    changed = " (with changes that were not committed)" if commit.endswith("+") else ""
    yield "git commit", commit.removesuffix("+") + changed
    yield "code", f"{manifest.get('code', NOT_RECORDED)} (fingerprint of the project's modules)"
    for name in ("config_hash", "schema_hash", "transform_hash", "fingerprint"):
        said = "model" if name == "fingerprint" else name.removesuffix("_hash")
        yield said, str(manifest.get(name, NOT_RECORDED))
    libraries = manifest.get("library_versions") or manifest["training"].get("library_versions")
    yield "libraries", values(libraries) if libraries else NOT_RECORDED


def _settings(manifest: dict[str, Any]) -> Iterator[Fact]:
    """What most asks about; the whole configuration is in the JSON."""
    config = manifest["config"]
    yield "data", values(config["data"])
    table = config["features"]
    yield "features", ", ".join([*table["columns"], *table["crosses"]])
    yield "excluded", values(table["exclude"])
    # What was trained with, which a search may have set.
    for name in ("model", "training"):
        yield name, values((manifest.get("hyperparameters") or config)[name])
    yield "thresholds", "; ".join(map(values, config["evaluation"]["thresholds"]))


def _training(manifest: dict[str, Any]) -> Iterator[Fact]:
    training = manifest["training"]
    yield "steps", f"{training.get('steps', 0):,} on {training.get('rows', 0):,} rows"
    yield "seconds", str(training.get("seconds", NOT_RECORDED))
    yield "replicas", str(training.get("replicas", NOT_RECORDED))
    started = training.get("warm_start")
    yield "started from", "fresh weights" if started is None else f"version {started}"
    saved = training.get("checkpoints") or {}
    resumed = ", ".join(f"{step:,}" for step in saved.get("resumed_at", ()))
    went_on = f"; went on at step {resumed}" if resumed else ""
    yield "checkpoints", f"{saved.get('saved', NOT_RECORDED)} saved{went_on}"


def _signature(manifest: dict[str, Any]) -> Iterator[Fact]:
    found = manifest.get("signature")
    if found is None:
        yield "none", "filed by an older state of the project; a new version has one"
        return
    classes = f", classes {value(found['classes'])}" if found["classes"] else ""
    yield "predicts", found["problem"] + classes
    for title, required in (("required", True), ("optional", False)):
        columns = {name: c for name, c in found["inputs"].items() if c["required"] is required}
        yield title, ", ".join(f"{name} {column['type']}" for name, column in columns.items())
    yield "ignored", ", ".join(found["ignored"])


def _print_metrics(version: Version) -> None:
    """All metrics over all rows, then the first metric in the slices where it is worst."""
    models, rows = version.manifest["metrics"], version.manifest.get("rows_by_slice", {})
    titles = [_title(name, version) for name in models]
    made = narrow_table("", *titles)
    for metric in models["candidate"][slices.OVERALL]:
        made.add_row(metric, *slices.numbers(models.values(), slices.OVERALL, metric))
    print_table(f"\nMetrics on {rows.get(slices.OVERALL, 0):,} test rows", made)
    metric = next(iter(models["candidate"][slices.OVERALL]))
    worst = slices.worst(models["candidate"], metric)
    if not worst:
        return
    made = narrow_table("", "rows", *titles)
    for name in worst[:_SLICES]:
        numbers = slices.numbers(models.values(), name, metric)
        made.add_row(name, f"{rows.get(name, 0):,}", *numbers)
    print_table(f"\nSlices, worst {metric} first{slices.shown_of(_SLICES, worst)}", made)


def _title(name: str, version: Version) -> str:
    numbers = {"candidate": version.number, "baseline": version.manifest["baseline"]["version"]}
    return f"version {numbers[name]}" if name in numbers else name


def _files(hashes: dict[str, str]) -> Iterator[Fact]:
    for name in sorted(hashes)[:_FILES]:
        yield name, hashes[name]
    if len(hashes) > _FILES:
        yield f"and {len(hashes) - _FILES} more", "all with --json"
