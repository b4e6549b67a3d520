"""Checkpoints (pattern 12): a killed training goes on exactly where its last one was taken.

`<root>/<key>/step-000001200/` holds the variables, `progress.json`, and in `SHA256SUMS` the hashes
of both, as `sha256sum -c` reads them; it is written under a temporary name and renamed. The key
stands for all that a training depends on: only the same one finds it. Where a byte is not what was
written, the checkpoint before is taken.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import tensorflow as tf

from components import files

PROGRESS = logging.getLogger("progress")
"""Lines for a person who waits; warnings are for the record too."""

_IDENTITY = "identity.json"
_PROGRESS = "progress.json"
_SUMS = "SHA256SUMS"
_VARIABLES = "variables"
_STEP = "step-"

Variables = dict[str, list[tf.Variable]]


class CheckpointError(Exception):
    """A checkpoint cannot be written; the message says why, and what stays good."""


class Store:
    """The checkpoints of one training."""

    def __init__(self, root: str, pipeline: str, identity: dict[str, Any], keep: int):
        """Touches nothing yet.

        Args:
          root: the folder for the checkpoints of all trainings.
          pipeline: whose training it is, for people.
          identity: all that the training depends on, JSON-able, by name; the key is its hash.
          keep: how many checkpoints to keep.
        """
        text = json.dumps(identity, sort_keys=True)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder, self._root, self._keep = os.path.join(root, self.key), root, keep
        self._identity = {
            "key": self.key,
            "pipeline": pipeline,
            "started": _now(),
            "identity": identity,
        }

    def open(self) -> None:
        """Makes the folder, and removes what a killed process left of a write.

        Raises:
          CheckpointError: the folder cannot be written.
        """
        with self._writing("for checkpoints"):
            os.makedirs(self.folder, exist_ok=True)
            for name in os.listdir(self.folder):
                if name.startswith(files.TEMPORARY):
                    shutil.rmtree(os.path.join(self.folder, name), ignore_errors=True)
            path = os.path.join(self.folder, _IDENTITY)
            if not os.path.exists(path):
                files.write_atomically(path, json.dumps(self._identity, indent=1))

    def save(self, variables: Variables, progress: dict[str, Any]) -> None:
        """Writes a checkpoint and removes those that are too many.

        Args:
          variables: what to save, by group.
          progress: JSON-able, with `step`.

        Raises:
          CheckpointError: the disk is full, or the folder cannot be written.
        """
        step = progress["step"]
        record = {**progress, "key": self.key, "time": _now()}
        with self._writing(f"of step {step:,}"), files.new_folder(self._path(step)) as folder:
            tf.train.Checkpoint(**variables).write(os.path.join(folder, _VARIABLES))
            files.write_synced(os.path.join(folder, _PROGRESS), json.dumps(record, indent=1))
            files.write_synced(os.path.join(folder, _SUMS), _sums(folder))
        later = [
            found for found in _steps(self.folder) if found > step
        ]  # damaged: it began before them
        for number in (*later, *_steps(self.folder)[len(later) + self._keep :]):
            shutil.rmtree(self._path(number), ignore_errors=True)

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            reason = error.strerror if isinstance(error, OSError) else error.message.splitlines()[0]
            kept = _steps(self.folder)[:1]
            good = f"The one of step {kept[0]:,} stays good" if kept else "There is none before it"
            raise CheckpointError(
                f"The checkpoint {what} could not be written to {self.folder}: {reason}. {good}. "
                "Free space there, or make the folder writable, and start again."
            ) from error

    def restore(self, variables: Variables, order: str | None = None) -> dict[str, Any] | None:
        """Gives variables the values of the newest good checkpoint; says what it passes over.

        Args:
          variables: by group, as they were saved.
          order: of the rows (`Source.order`); None if no step is to follow.

        Returns:
          The checkpoint's progress; None if there is no good one, and nothing was assigned.
        """
        for step in _steps(self.folder):
            try:
                progress, arrays = self.read(step)
                if order is not None and progress.get("order", order) != order:
                    raise ValueError("the rows beyond memory were written again in another order")
                _assign(variables, arrays)
                return progress
            except (OSError, ValueError, tf.errors.OpError) as error:
                PROGRESS.warning(
                    "checkpoint of step %s is not usable, taking the one before: %s",
                    *(f"{step:,}", " ".join(str(error).split())[:200]),
                )
        if _steps(self.folder):
            PROGRESS.warning("starts fresh: none of its checkpoints is usable")
        return None

    def read(self, step: int) -> tuple[dict[str, Any], dict[str, list[Any]]]:
        """A checkpoint's progress, and its arrays by group.

        Raises:
          OSError, ValueError, OpError: it is not as it was written.
        """
        folder = self._path(step)
        with open(os.path.join(folder, _SUMS), "rb") as file:
            if file.read() != _sums(folder).encode():
                raise ValueError(f"its files differ from what was written (see {_SUMS} there)")
        with open(os.path.join(folder, _PROGRESS), encoding="utf-8") as file:
            progress: dict[str, Any] = json.load(file)
        if progress["key"] != self.key:
            raise ValueError(f"it belongs to another training, {progress['key']}")
        return progress, _arrays(os.path.join(folder, _VARIABLES))

    def _path(self, step: int) -> str:
        return os.path.join(self.folder, f"{_STEP}{step:09d}")

    def why_fresh(self) -> str | None:
        """Why no earlier training of this pipeline is gone on with, if there is one."""
        others = []
        for name in os.listdir(self._root) if os.path.isdir(self._root) else ():
            folder = os.path.join(self._root, name)
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                steps = _steps(folder)
                with open(os.path.join(folder, _IDENTITY), encoding="utf-8") as file:
                    found = json.load(file)
                if steps and name != self.key and found["pipeline"] == self._identity["pipeline"]:
                    others.append((os.path.getmtime(folder), steps[0], found["identity"]))
        if not others:
            return None
        _, step, identity = max(others, key=lambda other: other[0])
        changed = "; ".join(_differences(identity, self._identity["identity"], ""))
        return f"starts fresh: the checkpoint of step {step:,} is another training's ({changed})"

    def remove(self) -> None:
        """Removes everything of this training."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _assign(variables: Variables, arrays: dict[str, list[Any]]) -> None:
    """All or nothing."""
    pairs: list[tuple[tf.Variable, Any]] = []
    for group, members in variables.items():
        found = arrays.get(group, [])
        if [tuple(v.shape) for v in members] != [array.shape for array in found]:
            raise ValueError(f"its variables under '{group}' have other shapes")
        pairs += zip(members, found, strict=True)
    for variable, array in pairs:
        variable.assign(array)


def _arrays(prefix: str) -> dict[str, list[Any]]:
    """All variables of a checkpoint: {"model": [...]}, from keys `model/0/.ATTRIBUTES/...`."""
    reader = tf.train.load_checkpoint(prefix)
    found: dict[str, dict[int, Any]] = {}
    for key in reader.get_variable_to_shape_map():
        group, _, rest = key.partition("/")
        number = rest.partition("/")[0]
        if number.isdecimal():
            found.setdefault(group, {})[int(number)] = reader.get_tensor(key)
    return {group: [values[i] for i in sorted(values)] for group, values in found.items()}


class Keeper:
    """Saves a training at its intervals; `pause` of `Training.run`."""

    def __init__(
        self, store: Store, options: dict[str, Any], writes: bool, earlier: dict[str, Any] | None
    ):
        """Begins, or goes on.

        Args:
          store: where checkpoints go.
          options: the `checkpoints` settings.
          writes: whether this process is the one that writes.
          earlier: the progress of the checkpoint that the training goes on from.
        """
        self._store, self._options, self._writes = store, options, writes
        self._last_time, self._slowest = time.monotonic(), 0.0
        self._last_step = earlier["step"] if earlier else 0
        self.record: dict[str, Any] = {"saved": 0, "seconds": 0.0, "resumed_at": []}
        if earlier:
            resumed_at = [*earlier["checkpoints"]["resumed_at"], earlier["step"]]
            self.record = earlier["checkpoints"] | {"resumed_at": resumed_at}

    def is_due(self, step: int) -> bool:
        """Whether the interval is over. Time alone never asks for more than 1 % of the run."""
        every_steps, every_seconds = self._options["every_steps"], self._options["every_seconds"]
        if every_steps and step // every_steps > self._last_step // every_steps:
            return True
        passed = time.monotonic() - self._last_time
        return bool(every_seconds) and passed >= max(every_seconds, 100 * self._slowest)

    def save(self, training: Any) -> None:
        """Saves the training now."""
        started = time.monotonic()
        self._last_step = training.position.step
        if self._writes:
            self.record["saved"] += 1
            self._store.save(training.variables, self.progress(training))
            seconds = time.monotonic() - started
            self._slowest = max(self._slowest, seconds)
            self.record["seconds"] = round(self.record["seconds"] + seconds, 4)
        self._last_time = time.monotonic()

    def progress(self, training: Any) -> dict[str, Any]:
        """What a checkpoint says beside its variables."""
        return {
            "step": training.position.step,
            "steps": training.steps,
            "rows": training.feed.rows,
            "order": training.feed.source.order,
            "replicas": training.replicas,
            "tensorflow": tf.__version__,
            "position": asdict(training.position),
            "checkpoints": self.record,
        }


def _differences(before: Any, now: Any, path: str) -> Iterator[str]:
    """What differs between two identities, as words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted({*before, *now}):
            below = f"{path}.{name}".lstrip(".")
            yield from _differences(before.get(name), now.get(name), below)
    elif before != now:
        plain = all(isinstance(value, int | float | str | None) for value in (before, now))
        is_hash = isinstance(before, str) and len(before) >= 16
        told = f" was {before}, is {now}" if plain and not is_hash else " changed"
        yield path.removeprefix("hyperparameters.") + told


def _steps(folder: str) -> list[int]:
    """The steps of a folder's checkpoints, newest first."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    numbers = [name.removeprefix(_STEP) for name in names if name.startswith(_STEP)]
    return sorted((int(number) for number in numbers if number.isdecimal()), reverse=True)


def _sums(folder: str) -> str:
    """The SHA-256 of each file but this list itself, a line each."""
    hashes = files.hash_tree(folder, [_SUMS])
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
