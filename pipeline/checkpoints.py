"""`python -m pipeline checkpoints`: the trainings that can go on where they were interrupted."""

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from pipeline import loading
from pipeline.console import make, shown, table, tell_next
from pipeline.workspace import Workspace

_KEY = re.compile(r"[0-9a-f]{16}")
_UNREADABLE = "unreadable"
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
    """When its newest file was written."""
    identity: dict[str, Any] | None


def find(root: Path) -> list[Saved]:
    """All trainings with a folder, the one written last first; a damaged one is among them."""
    if not root.is_dir():
        return []
    found = []
    for folder in root.iterdir():
        # A training that ends meanwhile takes its folder along.
        with contextlib.suppress(FileNotFoundError):
            if _KEY.fullmatch(folder.name) and folder.is_dir():
                found.append(_read(folder))
    return sorted(found, key=lambda saved: saved.touched, reverse=True)


def _read(folder: Path) -> Saved:
    names = sorted(folder.glob("step-*"), reverse=True)
    read = [_progress(path) for path in names]
    whole = [progress for progress in read if progress]
    step, steps = whole[0] if whole else (None, None)
    size, touched = measure(folder)
    identity = _json(folder / "identity.json")
    damaged = len(read) - len(whole)
    return Saved(folder.name, folder, step, steps, damaged, size, touched, identity)


def _progress(checkpoint: Path) -> tuple[int, int | None] | None:
    progress = _json(checkpoint / "progress.json") or {}
    step, steps = progress.get("step"), progress.get("steps")
    if not isinstance(step, int):
        return None
    return step, steps if isinstance(steps, int) else None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


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
    found = find(root)
    if as_json:
        print(json.dumps([_plain(saved) for saved in found], indent=1))
        return 0
    console = Console(highlight=False, soft_wrap=True)
    if not found:
        console.print(
            f"No checkpoints in {shown(root)}: a training leaves them there when it is interrupted,"
            " and the same command goes on from them."
        )
        return 0
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(_rows(found), soft_wrap=False)
    _tell_what_next(config_name, console)
    return 0


def _plain(saved: Saved) -> dict[str, Any]:
    touched = datetime.fromtimestamp(saved.touched, UTC).isoformat(timespec="seconds")
    return asdict(saved) | {"folder": str(saved.folder), "touched": touched}


def _rows(found: list[Saved]) -> Table:
    lines = table("key", "step", "size", "age", "of")
    of = lines.columns[-1]
    of.justify, of.no_wrap = "left", False
    for saved in found:
        values = saved.key, _step(saved), decimal(saved.size), age(saved.touched)
        lines.add_row(*values, escape(", ".join(_facts(saved.identity))))
    return lines


def _step(saved: Saved) -> str:
    if saved.step is None:
        return _UNREADABLE if saved.damaged else "none yet"
    of = f" of {saved.steps:,}" if saved.steps else ""
    damaged = f" ({saved.damaged} {_UNREADABLE})" if saved.damaged else ""
    return f"{saved.step:,}{of}{damaged}"


def age(moment: float) -> str:
    """How long ago that was: '42 s', '3 min', '5 h', '2 days'."""
    seconds = max(0, int(time.time() - moment))
    for unit, length, below in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 172_800)):
        if seconds < below:
            return f"{seconds // length} {unit}"
    return f"{seconds // 86_400} days"


def _facts(written: dict[str, Any] | None) -> Iterator[str]:
    """What tells one training from another at a glance; the file holds everything."""
    if written is None:
        yield _UNREADABLE
        return
    yield str(written.get("pipeline") or "?")
    with contextlib.suppress(ValueError):
        started = datetime.fromisoformat(str(written.get("started")))
        yield f"{started.astimezone():%Y-%m-%d %H:%M}"
    for name in ("epochs", "steps"):
        if (length := _setting(written, name)) is not None:
            yield f"{length} {name}"
    rate = _setting(written, "learning_rate")
    rate = rate.get("initial") if isinstance(rate, dict) else rate
    yield from [] if rate is None else [f"rate {rate}"]
    seed = _setting(written, "seed")
    yield from [] if seed is None else [f"seed {seed}"]


def _setting(settings: Any, name: str) -> Any:
    """The first value with this name, however deep."""
    if not isinstance(settings, dict):
        return None
    if settings.get(name) is not None:
        return settings[name]
    found = (_setting(value, name) for value in settings.values())
    return next((value for value in found if value is not None), None)


def _tell_what_next(config_name: str, console: Console) -> None:
    commands = {
        make("run-local", config_name): "goes on where settings, code and data are the same",
        make("gc", config_name): "removes those that nobody came back to",
    }
    console.print()
    tell_next(console, commands)
