"""A configuration's model in the registry, and its versions by number or label."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import PipelineStop
from components.inference.model import choose
from components.registry import store
from pipeline import loading
from pipeline.console import make, shown
from pipeline.loading import DEFAULT
from pipeline.workspace import Workspace

_ALWAYS = {"config", "metrics", "data", "baseline", "training", "files"}


@dataclass(frozen=True)
class Model:
    """Where a model's versions are, and the configuration that a person named it by."""

    config_name: str
    workspace: Workspace
    folder: str
    """`registry/<model>`, absolute."""

    @property
    def shown_folder(self) -> str:
        """The folder as a person types it."""
        return shown(Path(self.folder))

    def find(self, wanted: str) -> int:
        """The version with this number or label.

        Raises:
            PipelineStop: There is none.
        """
        return choose(self.folder, wanted).version

    def command(self, arguments: str) -> str:
        """A command of the group, as a person types it."""
        chosen = "" if self.config_name == DEFAULT else f" -c {self.config_name}"
        return f"python3 -m pipeline versions {arguments}{chosen}"

    def none_yet(self) -> str:
        """What to say while there are no versions, and what to type."""
        command = make("run-local", self.config_name)
        return f"No versions in {self.shown_folder} yet. Make one with: {command}"


@dataclass(frozen=True)
class Version:
    """What the registry's files say about a version."""

    number: int
    labels: list[str]
    manifest: dict[str, Any]

    @property
    def title(self) -> str:
        """'version 3 (champion)'."""
        return f"version {self.number}" + (f" ({', '.join(self.labels)})" if self.labels else "")


def open_model(config_name: str, overrides: list[str]) -> Model:
    """The model of a configuration; its folder need not be there.

    Raises:
        PipelineStop: The configuration has mistakes.
    """
    config = loading.load(config_name, overrides)
    workspace = Workspace(loading.PROJECT / config.workspace)
    return Model(config_name, workspace, str(workspace.registry / config.registry.model))


def read_version(model: Model, wanted: str) -> Version:
    """A version by number or label.

    Raises:
        PipelineStop: There is none, or its manifest is damaged.
    """
    number = model.find(wanted)
    manifest = store.read_manifest(model.folder, number)
    if not manifest.keys() >= _ALWAYS:
        raise PipelineStop(
            f"Version {number} in {model.shown_folder} is damaged: its manifest lacks what every "
            f"version is filed with. To see what is wrong: {model.command('verify')}"
        )
    return Version(number, held_by(store.read_labels(model.folder), number), manifest)


def held_by(held: store.Labels, number: int) -> list[str]:
    """The labels of a version."""
    return [label for label, version in held.items() if version == number]


def describe_moves(moves: Mapping[str, Mapping[str, int | None]]) -> str:
    """'champion 2 -> 3, candidate 3 -> none'."""
    return ", ".join(
        f"{label} {move['from'] or 'none'} -> {move['to'] or 'none'}"
        for label, move in moves.items()
    )


def day_and_minute(time: str) -> str:
    """A time of the registry, in UTC, for people."""
    return time[:16].replace("T", " ")
