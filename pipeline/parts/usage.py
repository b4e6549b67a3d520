"""Which configurations use a part, by the settings that are its own."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from components.errors import PipelineStop
from pipeline.parts.catalogue import Catalogue
from pipeline.parts.plan import Plan

CONFIGS = "configs"


def used_by(project: Path, settings: Collection[str]) -> list[str]:
    """The configurations that set any of these to something."""
    found = []
    for path in sorted((project / CONFIGS).glob("*.yaml")):
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
        if any(_sets(read, each) and not _sets(read, f"{each}=None") for each in settings):
            found.append(path.stem)
    return found


def refuse_settings_in_use(plan: Plan, project: Path, known: Catalogue) -> None:
    """Looks for configurations without marks, such as one's own, that set what would be gone.

    Raises:
      PipelineStop: lists them.
    """
    mistakes = [
        f"  {file}: {setting}, of the part {name}"
        for file, settings in _configurations(plan, project)
        for name in plan.names
        for setting in (known.parts[name].settings if name in known.parts else ())
        if _sets(settings, setting)
    ]
    if mistakes:
        raise PipelineStop(
            "Configurations set what would be gone. Take it out of them, or remove fewer parts:\n"
            + "\n".join(mistakes)
        )


def _configurations(plan: Plan, project: Path) -> Iterator[tuple[str, Any]]:
    for path in sorted((project / CONFIGS).glob("*.yaml")):
        file = path.relative_to(project).as_posix()
        if file not in plan.paths:
            yield file, yaml.safe_load(plan.edited.get(file) or path.read_text(encoding="utf-8"))


def _sets(settings: Any, wanted: str) -> bool:
    """Whether settings have `a.b`, or `a.b=value` with this value."""
    path, equals, value = wanted.partition("=")
    for key in path.split("."):
        if not isinstance(settings, dict) or key not in settings:
            return False
        settings = settings[key]
    return not equals or str(settings) == value
