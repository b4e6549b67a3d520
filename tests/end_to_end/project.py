"""A copy of the project with the small data: what the end-to-end tests run, edit and break."""

import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import small, warm

_ROOT = Path(__file__).parent.parent.parent
_LINE = re.compile(r"^  (\w+) +(done|cached|failed|skipped)\b", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """What a run printed, and how it ended."""

    code: int
    output: str

    @property
    def outcomes(self) -> dict[str, str]:
        """done, cached or failed by component."""
        return dict(_LINE.findall(self.output))

    def computed(self) -> list[str]:
        """The components that ran."""
        return [name for name, outcome in self.outcomes.items() if outcome == "done"]


class Project:
    """A folder with `pipeline/`, `components/`, a configuration `small` and its data."""

    def __init__(self, folder: Path, settings: dict[str, Any] | None = None, rows: int = 1500):
        """Copies the code and writes configuration, schema and data."""
        self.folder = folder
        for package in ("pipeline", "components"):
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(_ROOT / package, folder / package, ignore=ignore)
        small.write_config(folder / "configs", settings or small.SETTINGS)
        (folder / "configs" / "small.schema.pbtxt").write_text(small.schema_text())
        (folder / "README.md").write_text("words\n")
        small.write_csv(folder / "data" / "rows.csv", small.rows(rows))

    @property
    def registry(self) -> Path:
        """The model's folder in the registry."""
        return self.folder / "workspace" / "registry" / "small"

    def versions(self) -> list[int]:
        """The versions filed, in order."""
        return sorted(int(p.name) for p in self.registry.glob("*") if p.name.isdigit())

    def command(self, *arguments: str, name: str = "run") -> list[str]:
        """The command line of a run, or of another command."""
        return [sys.executable, "-m", "pipeline", name, *arguments, "--config", "small"]

    def start(self, *arguments: str, name: str = "run") -> "subprocess.Popen[str]":
        """Starts a run, or another command."""
        return subprocess.Popen(
            self.command(*arguments, name=name),
            cwd=self.folder,
            env=small.environment_of_a_copy(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A test run in the background ignores Ctrl-C, and its children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def run(self, *arguments: str, name: str = "run") -> Result:
        """Runs the pipeline, or another command, to its end."""
        words = [name, *arguments, "--config", "small"]
        return Result(*warm.run(self.folder, words, small.environment_of_a_copy()))

    def save(self) -> None:
        """Keeps a copy of the whole folder, for `restore`."""
        shutil.copytree(self.folder, self._saved, symlinks=True)

    def restore(self) -> None:
        """Brings the folder back to what it was when it was saved, at the same path."""
        shutil.rmtree(self.folder)
        shutil.copytree(self._saved, self.folder, symlinks=True)

    @property
    def _saved(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}-saved")

    def manifest(self, version: int) -> dict[str, Any]:
        """What the registry says of a version."""
        manifest: dict[str, Any] = json.loads(
            (self.registry / str(version) / "manifest.json").read_text()
        )
        return manifest

    def call(self, command: str, *arguments: str) -> Result:
        """Runs any command to its end."""
        return self.run(*arguments, name=command)

    def replace(self, file: str, old: str, new: str) -> None:
        """Edits a file of the copy; the words must be there."""
        path = self.folder / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new))
