"""`python -m pipeline versions`: what the registry holds."""

from typing import Any

from rich.console import Console

from components.registry import store
from pipeline import loading
from pipeline.console import make, shown, table
from pipeline.workspace import Workspace

_METRICS = 3
"""So many fit a terminal of 80 columns; the manifests have them all."""


def main(config_name: str, overrides: list[str]) -> int:
    """Prints a row for each version, newest first."""
    config = loading.load(config_name, overrides)
    folder = Workspace(loading.PROJECT / config.workspace).registry / config.registry.model
    console = Console(highlight=False, soft_wrap=True)
    versions = store.list_versions(str(folder))
    if not versions:
        console.print(
            f"No versions in {shown(folder)} yet. Make one with: {make('run-local', config_name)}"
        )
        return 0
    labels = store.read_labels(str(folder))
    manifests = {version: store.read_manifest(str(folder), version) for version in versions}
    metrics = list(_overall(manifests[versions[-1]]))[:_METRICS]
    lines = table("version", "labels", "filed", "against", *metrics)
    for version in reversed(versions):
        manifest = manifests[version]
        held = ", ".join(label for label, number in labels.items() if number == version)
        values = (f"{_overall(manifest).get(m) or float('nan'):.4f}" for m in metrics)
        filed = manifest["time"][:16].replace("T", " ")
        lines.add_row(str(version), held, filed, _judged_against(manifest), *values)
    console.print(lines)
    return 0


def _overall(manifest: dict[str, Any]) -> dict[str, float | None]:
    found: dict[str, float | None] = manifest["metrics"]["candidate"]["overall"]
    return found


def _judged_against(manifest: dict[str, Any]) -> str:
    version = manifest["baseline"]["version"]
    return f"version {version}" if version else "heuristic"
