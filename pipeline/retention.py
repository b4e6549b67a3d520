"""Versions, as `gc` sees them: which may go (`registry.retention`), and what the others need."""

import math
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any

from components.registry import store
from pipeline.config import Config

_DAY = 86_400


def removable(config: Config, registry: Path) -> dict[str, list[Path]]:
    """Versions without a label that are neither among the newest nor young.

    The version that `training.warm_start` names stays too.

    Args:
        config: The configuration; only its own model's versions are looked at.
        registry: The folder of all models.

    Returns:
        Their folders, under a title that says why; nothing if there are none.

    Raises:
        PipelineStop: The labels or a manifest cannot be read.
    """
    rule, folder = config.registry.retention, registry / config.registry.model
    if rule is None:
        return {}
    start = config.training.warm_start
    versions = store.list_versions(str(folder))
    labelled = store.read_labels(str(folder)).values()
    needed = {*labelled, *versions[-rule.versions :], start and start.version}
    before = time.time() - rule.days * _DAY
    old = [v for v in versions if v not in needed and _filed(str(folder), v) < before]
    days = f"{rule.days} day{'s' * (rule.days != 1)}"
    title = f"unlabelled versions older than {days}, but for the newest {rule.versions}"
    return {title: [folder / str(version) for version in old]} if old else {}


def _filed(folder: str, version: int) -> float:
    """When (epoch); a manifest that does not say so keeps its version."""
    try:
        return datetime.fromisoformat(store.read_manifest(folder, version)["time"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return math.inf


def named_by_versions(registry: Path) -> Iterator[tuple[str, set[PurePath]]]:
    """For each version of all models, the run that made it and the folders its manifest names.

    Folders are relative to the pipeline root, by their tails: the project may have been moved.

    Raises:
        PipelineStop: A manifest cannot be read; then nobody knows what it names.
    """
    for model in registry.iterdir() if registry.is_dir() else ():
        for version in store.list_versions(str(model)) if model.is_dir() else ():
            manifest = store.read_manifest(str(model), version)
            tails = (text.rpartition("/pipeline_root/") for text in _texts(manifest))
            folders = {PurePath(inside) for _, found, inside in tails if found and inside}
            yield str(manifest.get("run_id")), folders


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
