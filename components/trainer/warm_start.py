"""The version whose weights a training starts from (book pattern: Transfer Learning)."""

import os
from typing import Any

from components.errors import PipelineStop
from components.registry import store


def version_to_start_from(folder: str, wanted: int | str) -> int | None:
    """The number of a version, or None: the first training of all, with `champion`, starts fresh.

    Args:
      folder: the model's in the registry.
      wanted: a number or a label.

    Raises:
      PipelineStop: there is no such version or label.
    """
    versions, labels = store.list_versions(folder), store.read_labels(folder)
    number = labels.get(wanted) if isinstance(wanted, str) else wanted
    if number is None and wanted == store.CHAMPION:
        return None
    if number not in versions:
        raise PipelineStop(
            f"training.warm_start.version is {wanted}, but {folder} has no such version or "
            f"label. Versions: {', '.join(map(str, versions)) or 'none'}. Labels: "
            f"{', '.join(labels) or 'none'}."
        )
    return number


def weights(source: dict[str, Any] | None) -> dict[str, Any] | None:
    """Where the weights of the version to start from are.

    Args:
      source: `folder` and `version` (a number, a label, or None), or None.

    Raises:
      PipelineStop: there is no such version, or its weights' names were not recorded.
    """
    if source is None or source["version"] is None:
        return None
    version = version_to_start_from(source["folder"], source["version"])
    if version is None:
        return None
    manifest = store.read_manifest(source["folder"], version)
    if "weights" not in manifest["training"]:
        raise PipelineStop(
            f"training.warm_start: version {version} was filed before the names of weights were "
            "recorded. Choose a later version."
        )
    folder = store.version_folder(source["folder"], version)
    return {
        "version": version,
        "variables": os.path.join(folder, "variables", "variables"),
        "names": manifest["training"]["weights"],
        "fingerprint": manifest["fingerprint"],
    }
