"""What lies in the workspace: trainings that can go on (`checkpoints`), and what can go (`gc`).

`gc` marks an artifact as deleted before its folder goes, and renames a folder before its files go.
Killed at any moment, it leaves nothing half there that a run could take for whole; what is left
then is found the next time.
"""

import contextlib
import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

import typer
from ml_metadata.errors import StatusError
from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd
from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from components.errors import PipelineStop
from components.registry import store as registry
from pipeline import loading
from pipeline.config import Config
from pipeline.telling import make, new_console, print_whole, shown, table, tell_next
from pipeline.workspace import Workspace

_GOING = ".gc-"
"""The prefix of what is being removed."""
_FEW = 5
"""So many paths of a kind are shown."""

_ENDED = (mlmd.Execution.COMPLETE, mlmd.Execution.CACHED)
_LAST_NODES = ("RegistryPush", "Decide")
"""Of a training, and of an evaluation of a champion."""
_DAY = 86_400
_LOG = re.compile(r".+-\d{8}-\d{6}-(?:.+-)?\d+\.log")
_KEY = re.compile(r"[0-9a-f]{16}")
_REPORT = re.compile(r".+-(\d{8}-\d{6}-\d{6})\.(?:md|tmp)")


@dataclass
class Kept:
    """What the kept runs and the versions need."""

    runs: set[str] = field(default_factory=set)
    """Ids of the runs, and of those that made the versions: their logs and reports stay."""
    executions: set[int] = field(default_factory=set)
    """Those that ended well, of the kept runs."""
    artifacts: set[int] = field(default_factory=set)
    since: dict[str, float] = field(default_factory=dict)
    """By pipeline, when its oldest kept run began (epoch)."""
    named: set[PurePath] = field(default_factory=set)
    """Folders, relative to the pipeline root, that a version's manifest names."""
    versions: int = 0


def list_checkpoints(config_name: str, overrides: list[str], as_json: bool) -> None:
    """Prints a row for each training that was interrupted, or everything known of it as JSON."""
    config = loading.load(config_name, overrides)
    root = Workspace(loading.PROJECT / config.workspace).checkpoints
    found, console = trainings(root), new_console()
    if as_json:
        print(json.dumps([one | {"touched": _time(one["touched"])} for one in found], indent=1))
        return
    if not found:
        console.print(
            f"No checkpoints in {shown(root)}: a training leaves them there when it is interrupted,"
            " and the same command goes on from them."
        )
        return
    lines = table("key", "of", "step", "size", "written (UTC)", left=2)
    for one in found:
        step = "none yet" if one["step"] is None else f"{one['step']:,} of {one['steps'] or 0:,}"
        damaged = f" ({one['damaged']} unreadable)" if one["damaged"] else ""
        written = _time(one["touched"])[:16].replace("T", " ")
        of = Text(_training_in_words(one["identity"]))
        lines.add_row(one["key"], of, step + damaged, decimal(one["size"]), written)
    print_whole(console, lines)
    console.print()
    commands = {
        make("run-local", config_name): "goes on where settings, code and data are the same",
        make("gc", config_name): "removes those that nobody came back to",
    }
    tell_next(console, commands)


def trainings(root: Path) -> list[dict[str, Any]]:
    """Trainings with a folder of checkpoints, the one written last first.

    Each has `key`, `folder`, `step` and `steps` (of the newest checkpoint that can be read),
    `damaged` (how many cannot), `size` (bytes), `touched` (epoch), `identity`; what could not be
    read is None.
    """
    found = []
    for folder in root.glob("*"):
        # A training that ends meanwhile takes its folder along.
        with contextlib.suppress(FileNotFoundError):
            if _KEY.fullmatch(folder.name) and folder.is_dir():
                found.append(_training(folder))
    return sorted(found, key=lambda one: one["touched"], reverse=True)


def _training(folder: Path) -> dict[str, Any]:
    saved = [_json(path / "progress.json") for path in sorted(folder.glob("step-*"), reverse=True)]
    whole = [one for one in saved if isinstance(one.get("step"), int)]
    newest = whole[0] if whole else {}
    size, touched = measure(folder)
    return {
        "key": folder.name,
        "folder": str(folder),
        "step": newest.get("step"),
        "steps": newest.get("steps"),
        "damaged": len(saved) - len(whole),
        "size": size,
        "touched": touched,
        "identity": _json(folder / "identity.json") or None,
    }


def _json(path: Path) -> dict[str, Any]:
    """What a file holds; {} where it cannot be read."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _training_in_words(identity: Mapping[str, Any] | None) -> str:
    """What tells one training from another at a glance; `identity.json` holds everything."""
    if identity is None:
        return "unreadable"
    training: Any = identity
    for name in ("identity", "hyperparameters", "training"):
        training = training.get(name) if isinstance(training, Mapping) else None
    known = training if isinstance(training, Mapping) else {}
    facts = [f"{name} {known[name]}" for name in ("epochs", "steps", "seed") if known.get(name)]
    started = str(identity.get("started", "?"))[:16].replace("T", " ")
    return ", ".join([str(identity.get("pipeline", "?")), f"{started} UTC", *facts])


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def measure(path: Path) -> tuple[int, float]:
    """The bytes that a file or folder takes on the disk, and when its newest file was written.

    Raises:
      FileNotFoundError: it is not there.
    """
    own = path.lstat()
    size, newest = own.st_blocks * 512, 0.0
    for parent, folders, names in os.walk(path):
        for name in (*folders, *names):
            with contextlib.suppress(FileNotFoundError):
                stat = os.lstat(os.path.join(parent, name))
                size += stat.st_blocks * 512
                newest = max(newest, stat.st_mtime if name in names else 0.0)
    return size, newest or own.st_mtime


def main(config_name: str, overrides: list[str], keep_runs: int, older_than: int, yes: bool) -> int:
    """Shows what can go, asks on a terminal, and removes it.

    Raises:
      PipelineStop: an argument is wrong, or something cannot be read that says what is needed.
    """
    config = loading.load(config_name, overrides)
    _check(keep_runs, older_than)
    workspace = Workspace(loading.PROJECT / config.workspace)
    console = Console(highlight=False, soft_wrap=True)
    if not workspace.root.is_dir():
        console.print(f"Nothing to remove: there is no {shown(workspace.root)} yet.")
        return 0
    workspace.make()

    def wait(holder: str) -> None:
        console.print(f"waiting for {holder}, which uses {shown(workspace.root)}")

    # To the end, so that no run takes from the cache what is about to go.
    with workspace.locked(wait):
        return _collect(config_name, config, workspace, keep_runs, older_than, yes, console)


def _check(keep_runs: int, older_than: int) -> None:
    if keep_runs < 1:
        raise PipelineStop(
            f"--keep-runs is {keep_runs}; it must be at least 1, the last run of each pipeline. "
            "To compute everything again, delete pipeline_root/ in the workspace."
        )
    if older_than < 0:
        raise PipelineStop(f"--older-than is {older_than}; it is a number of days, 0 or more.")


def _collect(
    config_name: str,
    config: Config,
    workspace: Workspace,
    keep_runs: int,
    older_than: int,
    yes: bool,
    console: Console,
) -> int:
    store = _open(workspace.metadata)
    kept = _kept(workspace, store, keep_runs)
    old_versions = _old_versions(config, workspace.registry)
    kept.versions -= sum(map(len, old_versions.values()))
    groups = _groups(workspace, store, kept, older_than, old_versions)
    what_stays = _what_stays(kept, keep_runs)
    if old_versions:
        what_stays += " What only the removed versions needed can go the next time."
    if store is None and workspace.pipeline_root.is_dir():
        what_stays += f" No {shown(workspace.metadata)}, so the artifacts are not looked at."
    if not groups:
        console.print(f"Nothing to remove. {what_stays}")
        return 0
    _show(groups, console)
    console.print(f"\n{what_stays}")
    if not _agreed(yes, console):
        return 0
    paths = [path for group in groups.values() for path in group]
    freed = sum(measure(path)[0] for path in paths)
    failures = _remove_all(paths, workspace, store)
    _tell(freed - sum(_size_left(path) for path in failures), failures, config_name, console)
    return 1 if failures else 0


def _open(metadata: Path) -> MetadataStore | None:
    """TFX's metadata; where there are none, none are made."""
    if not metadata.is_file():
        return None
    connection = mlmd.ConnectionConfig()
    connection.sqlite.filename_uri = str(metadata)
    try:
        return MetadataStore(connection)
    except (StatusError, RuntimeError) as error:
        raise PipelineStop(
            f"{metadata} cannot be read ({error}), and it says which artifacts are needed. "
            "Restore it from a copy, or delete it and pipeline_root/ beside it; the versions, in "
            "registry/, do not need them."
        ) from error


def _kept(workspace: Workspace, store: MetadataStore | None, keep_runs: int) -> Kept:
    kept = Kept()
    for run, folders in _named_by_versions(workspace.registry):
        kept.versions += 1
        kept.runs.add(run)
        kept.named |= folders
    if store is None:
        return kept
    for pipeline in store.get_contexts_by_type("pipeline"):
        runs = _last_runs(store, pipeline, keep_runs)
        starts = [run.create_time_since_epoch / 1000 for run in runs]
        kept.since[pipeline.name] = min(starts, default=0)
        for run in runs:
            _keep_run(store, run, kept)
    return kept


def _keep_run(store: MetadataStore, run: Any, kept: Kept) -> None:
    kept.runs.add(run.name)
    executions = store.get_executions_by_context(run.id)
    kept.executions |= {e.id for e in executions if e.last_known_state in _ENDED}
    # Inputs and outputs, also of cached executions, whichever run made them.
    kept.artifacts |= {artifact.id for artifact in store.get_artifacts_by_context(run.id)}


def _named_by_versions(folder: Path) -> Iterator[tuple[str, set[PurePath]]]:
    """For each version of all models, the run that made it and the folders its manifest names.

    Folders are relative to the pipeline root, by their tails: the project may have been moved.

    Raises:
      PipelineStop: A manifest cannot be read; then nobody knows what it names.
    """
    for model in folder.iterdir() if folder.is_dir() else ():
        for version in registry.list_versions(str(model)) if model.is_dir() else ():
            manifest = registry.read_manifest(str(model), version)
            tails = (text.rpartition("/pipeline_root/") for text in _texts(manifest))
            folders = {PurePath(inside) for _, found, inside in tails if found and inside}
            yield str(manifest.get("run_id")), folders


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _old_versions(config: Config, folder: Path) -> dict[str, list[Path]]:
    """Folders of versions without a label that are neither among the newest nor young, by why.

    Only the configuration's own model is looked at; the version that `training.warm_start` names
    stays too.

    Raises:
      PipelineStop: The labels or a manifest cannot be read.
    """
    rule, model = config.registry.retention, folder / config.registry.model
    if rule is None:
        return {}
    start, versions = config.training.warm_start, registry.list_versions(str(model))
    labelled = registry.read_labels(str(model)).values()
    needed = {*labelled, *versions[-rule.versions :], start and start.version}
    before = time.time() - rule.days * _DAY
    old = [v for v in versions if v not in needed and _filed(str(model), v) < before]
    title = f"unlabelled versions older than {_days(rule.days)}, but for the newest {rule.versions}"
    return {title: [model / str(version) for version in old]} if old else {}


def _filed(model: str, version: int) -> float:
    """When (epoch); a manifest that does not say so keeps its version."""
    try:
        return datetime.fromisoformat(registry.read_manifest(model, version)["time"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return math.inf


def _days(count: int) -> str:
    return f"{count} day{'s' * (count != 1)}"


def _last_runs(store: MetadataStore, pipeline: Any, count: int) -> list[Any]:
    """The last ones, and the last that came to its end: bad days do not drive out a good one."""
    children = store.get_children_contexts_by_context(pipeline.id)
    runs = sorted((c for c in children if c.type == "pipeline_run"), key=lambda c: -c.id)
    whole = next((run for run in runs if _came_to_its_end(store, run)), None)
    return runs[:count] + ([whole] if whole in runs[count:] else [])


def _came_to_its_end(store: MetadataStore, run: Any) -> bool:
    return any(
        execution.type.endswith(_LAST_NODES) and execution.last_known_state in _ENDED
        for execution in store.get_executions_by_context(run.id)
    )


def _groups(
    workspace: Workspace,
    store: MetadataStore | None,
    kept: Kept,
    older_than: int,
    old_versions: dict[str, list[Path]],
) -> dict[str, list[Path]]:
    """What can go, by its title."""
    before = time.time() - older_than * _DAY
    days = _days(older_than)
    saved = trainings(workspace.checkpoints)
    old = [Path(one["folder"]) for one in saved if one["touched"] < before]
    artifacts, leftovers = _outputs(workspace.pipeline_root, store, kept) if store else ([], [])
    leftovers += _system_folders(workspace.pipeline_root, kept)
    leftovers += [
        *workspace.checkpoints.glob(f"{_GOING}*"),
        *workspace.pipeline_root.glob(f"*/*/*/{_GOING}*"),
        *workspace.pipeline_root.glob(f"*/*/.system/*/{_GOING}*"),
    ]
    found = {
        f"checkpoints untouched for {days}": old,
        "artifacts that no kept run or version needs": artifacts,
        "left behind by runs": leftovers,
        f"logs and reports older than {days}": list(_records(workspace, kept, before)),
        **old_versions,
    }
    return {title: sorted(paths) for title, paths in found.items() if paths}


def _outputs(root: Path, store: MetadataStore, kept: Kept) -> tuple[list[Path], list[Path]]:
    """Folders of artifacts that can go, and output folders that belong to no artifact."""
    live: dict[Path, set[int]] = {}
    known = set()
    for artifact in store.get_artifacts():
        folder = _output_folder(root, artifact)
        known.add(folder)
        if folder and artifact.state == mlmd.Artifact.LIVE:
            live.setdefault(folder, set()).add(artifact.id)
    artifacts, others = [], []
    for folder in _numbered_folders(root, kept):
        if live.get(folder, set()) & kept.artifacts or _is_named(folder.relative_to(root), kept):
            continue
        if folder in live:
            artifacts.append(folder)
        elif folder in known or int(folder.name) not in kept.executions:
            others.append(folder)
    return artifacts, others


def _output_folder(root: Path, artifact: Any) -> Path | None:
    """`<root>/<pipeline>/<node>/<output>/<execution>` of an artifact, which may lie deeper."""
    uri = Path(artifact.uri)
    parts = uri.relative_to(root).parts if uri.is_relative_to(root) else ()
    return root.joinpath(*parts[:4]) if len(parts) >= 4 else None


def _numbered_folders(root: Path, kept: Kept) -> Iterator[Path]:
    """TFX's output folders; a pipeline that the metadata do not know is left alone."""
    for pipeline in kept.since:
        for path in (root / pipeline).glob("*/*/*"):
            if path.name.isdecimal() and path.is_dir():
                yield path


def _is_named(inside: PurePath, kept: Kept) -> bool:
    return any(n.is_relative_to(inside) or inside.is_relative_to(n) for n in kept.named)


def _system_folders(root: Path, kept: Kept) -> list[Path]:
    """TFX's own notes and scratch folders: of runs not kept, or of executions that did not end."""
    found = []
    for pipeline, since in kept.since.items():
        for path in (root / pipeline).glob("*/.system/*/*"):
            kind, number = path.parent.name, int(path.name) if path.name.isdecimal() else -1
            if (
                # A later run never goes on in one, and no run is live under the lock.
                kind == "stateful_working_dir"
                or (kind == "executor_execution" and number not in kept.executions)
                # Named by the microsecond.
                or (kind == "driver_execution" and number / 1e6 < since)
            ):
                found.append(path)
    return [path for path in found if not path.name.startswith(_GOING)]


def _records(workspace: Workspace, kept: Kept, before: float) -> Iterator[Path]:
    for path in workspace.logs.glob("*.log"):
        if _LOG.fullmatch(path.name) and path.stat().st_mtime < before:
            text = path.read_bytes()  # its name holds no run id; what TFX writes into it does
            if not any(run.encode() in text for run in kept.runs):
                yield path
    for path in workspace.reports.glob("*"):
        named = _REPORT.fullmatch(path.name)
        if named and named[1] not in kept.runs and path.stat().st_mtime < before:
            yield path


def _what_stays(kept: Kept, keep_runs: int) -> str:
    """A sentence about what is kept."""
    runs = "the last run" if keep_runs == 1 else f"the last {keep_runs} runs"
    pipelines = f"{runs} of {', '.join(sorted(kept.since))}, and " if kept.since else ""
    versions = "1 version" if kept.versions == 1 else f"{kept.versions} versions"
    return f"Kept: {pipelines}{versions} with the data named in their manifests."


def _show(groups: Mapping[str, list[Path]], console: Console) -> None:
    lines = table("can go", "count", "size")
    for title, paths in groups.items():
        size = sum(measure(path)[0] for path in paths)
        lines.add_row(title, str(len(paths)), decimal(size))
    console.print(lines)
    for title, paths in groups.items():
        if len(paths) <= _FEW:
            console.print(f"\n{title}:")
            for path in paths:
                console.print(f"  {shown(path)}", markup=False)


def _agreed(yes: bool, console: Console) -> bool:
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        console.print("Nothing was removed. To remove it, add --yes (with make: YES=1).")
        return False
    try:
        agreed = typer.confirm("Remove it?")
    except typer.Abort:  # Ctrl-C
        agreed = False
    if not agreed:
        console.print("Nothing was removed.")
    return agreed


def _remove_all(
    paths: list[Path], workspace: Workspace, store: MetadataStore | None
) -> dict[Path, str]:
    """Removes them; what could not be removed comes back, with the reason."""
    if store is not None:
        _mark_deleted(set(paths), workspace.pipeline_root, store)
    failures = {}
    for path in paths:
        try:
            if path.is_relative_to(workspace.registry):
                registry.remove_version(str(path.parent), int(path.name))
            else:
                _remove(path)
        except PipelineStop as stop:  # it has been given a label meanwhile
            failures[path] = str(stop)
        except OSError as error:
            failures[path] = error.strerror or str(error)
    return failures


def _mark_deleted(paths: set[Path], root: Path, store: MetadataStore) -> None:
    going = [a for a in store.get_artifacts() if _output_folder(root, a) in paths]
    for artifact in going:
        artifact.state = mlmd.Artifact.DELETED
    try:
        store.put_artifacts(going)
    except (StatusError, RuntimeError) as error:
        raise PipelineStop(
            f"Nothing was removed: the metadata of {root.parent} cannot be written ({error}). "
            "Make room by hand (logs/ there), or do it as a user who may write."
        ) from error


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    if not path.name.startswith(_GOING):
        path = path.rename(path.with_name(f"{_GOING}{path.name}"))
    shutil.rmtree(path)


def _size_left(path: Path) -> int:
    """Of what could not be removed, under either name."""
    names = path, path.with_name(f"{_GOING}{path.name}")
    return sum(measure(p)[0] for p in names if os.path.lexists(p))


def _tell(freed: int, failures: dict[Path, str], config_name: str, console: Console) -> None:
    console.print(f"[bold]Freed {decimal(freed)}.[/]")
    for path, why in failures.items():
        console.print(f"  not removed: {shown(path)} ({why})", style="red", markup=False)
    commands = {
        make("run-local", config_name): "computes again what it misses",
        make("versions", config_name): "the versions that are left",
    }
    console.print()
    tell_next(console, commands)
