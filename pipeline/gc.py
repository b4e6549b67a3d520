"""What lies in the workspace: trainings that can go on (`checkpoints`), and what can go (`gc`).

`gc` marks an artifact as deleted before its folder goes, and renames a folder before its files go.
Killed at any moment, it leaves nothing half there that a run could take for whole; what is left
then is found the next time.
"""

import contextlib
import json
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
_REPORT = re.compile(r".+-(\d{8}-\d{6}-\d{6})\.(?:html|md|tmp)")
_INSIDE = re.compile(r'/pipeline_root/([^"]+)"')

Groups = dict[str, list[Path]]
"""What can go, by its title."""


@dataclass
class Kept:
    """What the kept runs and the versions need."""

    runs: set[str] = field(default_factory=set)
    """Ids of the runs, and of those that made the versions: their logs and reports stay."""
    artifacts: set[int] = field(default_factory=set)
    pipelines: set[str] = field(default_factory=set)
    """Those that the metadata know; other folders are left alone."""
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
        written, of = _time(one["touched"])[:16].replace("T", " "), Text(_words(one["identity"]))
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
    for folder in root.glob("[0-9a-f]" * 16):
        with contextlib.suppress(FileNotFoundError):  # one that ends takes its folder along
            if folder.is_dir():
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
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if isinstance(content := json.loads(path.read_bytes()), dict):
            return content
    return {}


def _words(identity: Mapping[str, Any] | None) -> str:
    """What tells one training from another at a glance; `identity.json` holds everything."""
    try:
        known = identity["identity"]["hyperparameters"]["training"]  # type: ignore[index]
        started = identity["started"][:16].replace("T", " ")  # type: ignore[index]
        facts = [f"{name} {known[name]}" for name in ("epochs", "steps", "seed") if known[name]]
        return ", ".join([identity["pipeline"], f"{started} UTC", *facts])  # type: ignore[index]
    except (KeyError, TypeError):
        return "unreadable"


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
      PipelineStop: something cannot be read that says what is needed, or cannot be written.
    """
    config = loading.load(config_name, overrides)
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
        store = _open(workspace.metadata)
        kept, old = _kept(workspace, store, keep_runs), _old_versions(config, workspace.registry)
        kept.versions -= sum(map(len, old.values()))
        groups = _groups(workspace, store, kept, older_than) | old
        groups = {title: sorted(paths) for title, paths in groups.items() if paths}
        stays = _what_stays(kept, keep_runs, workspace, bool(old))
        if not groups:
            console.print(f"Nothing to remove. {stays}")
            return 0
        _show(groups, console)
        console.print(f"\n{stays}")
        if not _agreed(yes, console):
            return 0
        if store is not None:
            _mark_deleted({path for paths in groups.values() for path in paths}, workspace, store)
        return _remove_all(groups, workspace, config_name, console)


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
    """What is needed.

    Raises:
      PipelineStop: a manifest cannot be read; then nobody knows what it names.
    """
    kept = Kept()
    for model in workspace.registry.glob("*/"):
        for version in registry.list_versions(str(model)):
            manifest = registry.read_manifest(str(model), version)
            kept.versions += 1
            kept.runs.add(str(manifest.get("run_id")))
            # By their tails: the project may have been moved.
            kept.named |= {PurePath(tail) for tail in _INSIDE.findall(json.dumps(manifest))}
    if store is None:
        return kept
    for pipeline in store.get_contexts_by_type("pipeline"):
        kept.pipelines.add(pipeline.name)
        for run in _last_runs(store, pipeline, keep_runs):
            kept.runs.add(run.name)
            # Inputs and outputs, also of cached executions, whichever run made them.
            kept.artifacts |= {artifact.id for artifact in store.get_artifacts_by_context(run.id)}
    return kept


def _last_runs(store: MetadataStore, pipeline: Any, count: int) -> list[Any]:
    """The last ones, and the last that came to its end: bad days do not drive out a good one."""
    children = store.get_children_contexts_by_context(pipeline.id)
    runs = sorted((c for c in children if c.type == "pipeline_run"), key=lambda c: -c.id)
    whole = (
        run
        for run in runs
        for execution in store.get_executions_by_context(run.id)
        if execution.type.endswith(_LAST_NODES) and execution.last_known_state in _ENDED
    )
    last = next(whole, None)
    return runs[:count] + ([last] if last in runs[count:] else [])


def _old_versions(config: Config, folder: Path) -> Groups:
    """Folders of versions without a label that are neither among the newest nor young.

    Only the configuration's own model is looked at; the version that `training.warm_start` names
    stays too, and one whose manifest does not say when it was filed.

    Raises:
      PipelineStop: the labels or a manifest cannot be read.
    """
    rule, model = config.registry.retention, folder / config.registry.model
    if rule is None:
        return {}
    start, versions = config.training.warm_start, registry.list_versions(str(model))
    labelled = registry.read_labels(str(model)).values()
    needed = {*labelled, *versions[-rule.versions :], start and start.version}
    before, old = time.time() - rule.days * _DAY, []
    for version in set(versions) - needed:
        manifest = registry.read_manifest(str(model), version)
        with contextlib.suppress(KeyError, TypeError, ValueError):
            if datetime.fromisoformat(manifest["time"]).timestamp() < before:
                old.append(model / str(version))
    title = f"unlabelled versions older than {_days(rule.days)}, but for the newest {rule.versions}"
    return {title: old} if old else {}


def _days(count: int) -> str:
    return f"{count} day{'s' * (count != 1)}"


def _groups(
    workspace: Workspace, store: MetadataStore | None, kept: Kept, older_than: int
) -> Groups:
    before, root = time.time() - older_than * _DAY, workspace.pipeline_root
    saved = trainings(workspace.checkpoints)
    artifacts, leftovers = _outputs(root, store, kept) if store else ([], [])
    for pipeline in kept.pipelines:  # TFX's notes; no run is live under the lock
        leftovers += (root / pipeline).glob("*/.system")
    leftovers += [*workspace.checkpoints.glob(f"{_GOING}*"), *root.glob(f"*/*/{_GOING}*")]
    leftovers += root.glob(f"*/*/*/{_GOING}*")
    return {
        f"checkpoints untouched for {_days(older_than)}": [
            Path(one["folder"]) for one in saved if one["touched"] < before
        ],
        "artifacts that no kept run or version needs": artifacts,
        "left behind by runs": leftovers,
        f"logs and reports older than {_days(older_than)}": [*_records(workspace, kept, before)],
    }


def _outputs(root: Path, store: MetadataStore, kept: Kept) -> tuple[list[Path], list[Path]]:
    """Output folders that nobody needs: of artifacts, and of executions that did not end."""
    live: dict[Path | None, set[int]] = {}
    for artifact in store.get_artifacts():
        if artifact.state == mlmd.Artifact.LIVE:
            live.setdefault(_output_folder(root, artifact), set()).add(artifact.id)
    artifacts: list[Path] = []
    others: list[Path] = []
    for folder in (path for name in kept.pipelines for path in (root / name).glob("*/*/*")):
        inside, ids = folder.relative_to(root), live.get(folder, set())
        named = any(n.is_relative_to(inside) or inside.is_relative_to(n) for n in kept.named)
        if folder.name.isdecimal() and folder.is_dir() and not ids & kept.artifacts and not named:
            (artifacts if ids else others).append(folder)
    return artifacts, others


def _output_folder(root: Path, artifact: Any) -> Path | None:
    """`<root>/<pipeline>/<node>/<output>/<execution>` of an artifact, which may lie deeper."""
    uri = Path(artifact.uri)
    parts = uri.relative_to(root).parts if uri.is_relative_to(root) else ()
    return root.joinpath(*parts[:4]) if len(parts) >= 4 else None


def _records(workspace: Workspace, kept: Kept, before: float) -> Iterator[Path]:
    for path in (*workspace.logs.glob("*"), *workspace.reports.glob("*")):
        report = _REPORT.fullmatch(path.name)
        if (report or _LOG.fullmatch(path.name)) and path.stat().st_mtime < before:
            # The name of a log holds no run id; what TFX writes into it does.
            text = report[1] if report else path.read_text(errors="ignore")
            if not any(run in text for run in kept.runs):
                yield path


def _what_stays(kept: Kept, keep_runs: int, workspace: Workspace, versions_go: bool) -> str:
    """Sentences about what is kept."""
    runs = "the last run" if keep_runs == 1 else f"the last {keep_runs} runs"
    pipelines = f"{runs} of {', '.join(sorted(kept.pipelines))}, and " if kept.pipelines else ""
    versions = "1 version" if kept.versions == 1 else f"{kept.versions} versions"
    words = f"Kept: {pipelines}{versions} with the data named in their manifests."
    if versions_go:
        words += " What only the removed versions needed can go the next time."
    if workspace.pipeline_root.is_dir() and not workspace.metadata.is_file():
        words += f" No {shown(workspace.metadata)}, so the artifacts are not looked at."
    return words


def _show(groups: Groups, console: Console) -> None:
    lines = table("can go", "count", "size")
    for title, paths in groups.items():
        lines.add_row(title, str(len(paths)), decimal(sum(measure(path)[0] for path in paths)))
    console.print(lines)
    for title, paths in groups.items():
        if len(paths) <= _FEW:
            console.print(f"\n{title}:", *(f"  {shown(path)}" for path in paths), sep="\n")


def _agreed(yes: bool, console: Console) -> bool:
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        console.print("Nothing was removed. To remove it, add --yes (with make: YES=1).")
        return False
    with contextlib.suppress(typer.Abort):  # Ctrl-C
        if typer.confirm("Remove it?"):
            return True
    console.print("Nothing was removed.")
    return False


def _mark_deleted(paths: set[Path], workspace: Workspace, store: MetadataStore) -> None:
    root = workspace.pipeline_root
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


def _remove_all(groups: Groups, workspace: Workspace, config_name: str, console: Console) -> int:
    """Removes all, and says what could not be removed; the exit code comes back."""
    freed, failures = 0, {}
    for path in (path for paths in groups.values() for path in paths):
        size, _ = measure(path)
        try:
            if path.is_relative_to(workspace.registry):
                registry.remove_version(str(path.parent), int(path.name))
            else:
                _remove(path)
            freed += size
        except (OSError, PipelineStop) as error:  # a version may have been given a label meanwhile
            failures[path] = getattr(error, "strerror", None) or str(error)
    console.print(f"[bold]Freed {decimal(freed)}.[/]")
    for path, why in failures.items():
        console.print(f"  not removed: {shown(path)} ({why})", style="red", markup=False)
    commands = {
        make("run-local", config_name): "computes again what it misses",
        make("versions", config_name): "the versions that are left",
    }
    console.print()
    tell_next(console, commands)
    return 1 if failures else 0


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    if not path.name.startswith(_GOING):
        path = path.rename(path.with_name(f"{_GOING}{path.name}"))
    shutil.rmtree(path)
