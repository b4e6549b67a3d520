"""`python -m pipeline checkpoints`: the trainings that can go on where they were interrupted."""

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape

from pipeline import loading
from pipeline.console import make, shown, table, tell_next
from pipeline.workspace import Workspace

_KEY = re.compile(r"[0-9a-f]{16}")
_WIDTH = 100
"""Of the table where no terminal says how wide it is."""


@dataclass(frozen=True)
class Saved:
    """The folder of one training's checkpoints; what could not be read is None."""

    key: str
    folder: Path
    step: int | None
    """Of the newest checkpoint that can be read."""
    steps: int | None
    damaged: int
    """Checkpoints that cannot be read."""
    size: int
    touched: float
    """When its newest file was written (epoch)."""
    identity: dict[str, Any] | None


def find(root: Path) -> list[Saved]:
    """All trainings with a folder, the one written last first; a damaged one is among them."""
    saved = []
    for folder in root.iterdir() if root.is_dir() else ():
        # A training that ends meanwhile takes its folder along.
        with contextlib.suppress(FileNotFoundError):
            if _KEY.fullmatch(folder.name) and folder.is_dir():
                saved.append(_read(folder))
    return sorted(saved, key=lambda one: one.touched, reverse=True)


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


def main(config_name: str, overrides: list[str], as_json: bool = False) -> int:
    """Prints a row for each training, or everything known of it as JSON."""
    config = loading.load(config_name, overrides)
    root = Workspace(loading.PROJECT / config.workspace).checkpoints
    saved = find(root)
    console = Console(highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps([_plain(one) for one in saved], indent=1))
    elif not saved:
        console.print(
            f"No checkpoints in {shown(root)}: a training leaves them there when it is interrupted,"
            " and the same command goes on from them."
        )
    else:
        if not console.is_terminal:
            console.width = _WIDTH
        _print_rows(saved, console)
        commands = {
            make("run-local", config_name): "goes on where settings, code and data are the same",
            make("gc", config_name): "removes those that nobody came back to",
        }
        tell_next(console, commands)
    return 0


def _read(folder: Path) -> Saved:
    read = [_json(path / "progress.json") for path in sorted(folder.glob("step-*"), reverse=True)]
    whole = [progress for progress in read if progress and isinstance(progress.get("step"), int)]
    newest = whole[0] if whole else {}
    steps = newest.get("steps")
    return Saved(
        folder.name,
        folder,
        newest.get("step"),
        steps if isinstance(steps, int) else None,
        len(read) - len(whole),
        *measure(folder),
        _json(folder / "identity.json"),
    )


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _plain(saved: Saved) -> dict[str, Any]:
    return asdict(saved) | {"folder": str(saved.folder), "touched": _time(saved.touched)}


def _print_rows(saved: list[Saved], console: Console) -> None:
    lines = table("key", "step", "size", "written (UTC)", "of")
    of = lines.columns[-1]
    of.justify, of.no_wrap = "left", False
    for one in saved:
        values = one.key, _step(one), decimal(one.size), _time(one.touched)[:16].replace("T", " ")
        lines.add_row(*values, escape(_facts(one.identity)))
    console.print(lines, soft_wrap=False)
    console.print()


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def _step(saved: Saved) -> str:
    if saved.step is None:
        return "unreadable" if saved.damaged else "none yet"
    of = f" of {saved.steps:,}" if saved.steps else ""
    return f"{saved.step:,}{of}" + (f" ({saved.damaged} unreadable)" if saved.damaged else "")


def _facts(identity: dict[str, Any] | None) -> str:
    """What tells one training from another at a glance; the file holds everything."""
    if identity is None:
        return "unreadable"
    training: Any = identity
    for name in ("identity", "hyperparameters", "training"):
        training = training.get(name) if isinstance(training, Mapping) else None
    settings = dict(training) if isinstance(training, Mapping) else {}
    rate = settings.get("learning_rate")
    settings["rate"] = rate.get("initial") if isinstance(rate, Mapping) else rate
    known = {name: settings.get(name) for name in ("epochs", "steps", "rate", "seed")}
    facts = [f"{name} {value}" for name, value in known.items() if value is not None]
    started = str(identity.get("started", "?"))[:16].replace("T", " ")
    return ", ".join([str(identity.get("pipeline", "?")), f"{started} UTC", *facts])
