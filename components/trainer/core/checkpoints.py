"""Checkpoints (pattern 12): a killed training goes on exactly where its last one was taken.

`<root>/<key>/step-000001200/` holds the variables and `progress.json`, written under a temporary
name and renamed. The key stands for all that a training depends on: only the same one finds it.
What is damaged is found by the hashes in `progress.json`, and the checkpoint before is taken.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import tensorflow as tf

PROGRESS = logging.getLogger("progress")
"""Lines for a person who waits; warnings are for the record too."""

_IDENTITY = "identity.json"
_PROGRESS = "progress.json"
_VARIABLES = "variables"
_TEMPORARY = ".tmp-"
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
        self._key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder, self._root, self._keep = os.path.join(root, self._key), root, keep
        self._identity = {
            "key": self._key,
            "pipeline": pipeline,
            "started": _now(),
            "identity": identity,
        }

    def open(self) -> None:
        """Makes the folder, and removes what a killed process left of a write.

        Raises:
          CheckpointError: the folder cannot be written.
        """
        with self._written("for checkpoints"):
            os.makedirs(self.folder, exist_ok=True)
            for name in os.listdir(self.folder):
                if name.startswith(_TEMPORARY):
                    shutil.rmtree(os.path.join(self.folder, name), ignore_errors=True)
            path = os.path.join(self.folder, _IDENTITY)
            if not os.path.exists(path):
                _write_json(path + _TEMPORARY, self._identity)
                os.rename(path + _TEMPORARY, path)

    def save(self, variables: Variables, progress: dict[str, Any]) -> None:
        """Writes a checkpoint and removes those that are too many.

        Args:
          variables: what to save, by group.
          progress: JSON-able, with `step`.

        Raises:
          CheckpointError: the disk is full, or the folder cannot be written.
        """
        temporary = os.path.join(self.folder, f"{_TEMPORARY}{os.getpid()}")
        final = os.path.join(self.folder, f"{_STEP}{progress['step']:09d}")
        with self._written(f"of step {progress['step']:,}"):
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                os.makedirs(temporary)
                tf.train.Checkpoint(**variables).write(os.path.join(temporary, _VARIABLES))
                files = {
                    name: _synced_hash(os.path.join(temporary, name)) for name in _in(temporary)
                }
                record = {**progress, "key": self._key, "time": _now(), "files": files}
                _write_json(os.path.join(temporary, _PROGRESS), record)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            if os.path.lexists(final):  # damaged, or it would not be written again
                os.rename(final, f"{temporary}-old")
            os.rename(temporary, final)
            shutil.rmtree(f"{temporary}-old", ignore_errors=True)
        for name in _steps(self.folder)[self._keep :]:
            shutil.rmtree(os.path.join(self.folder, name), ignore_errors=True)

    @contextlib.contextmanager
    def _written(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            reason = error.strerror if isinstance(error, OSError) else error.message.splitlines()[0]
            kept = [f"{_number(name):,}" for name in _steps(self.folder)[:1]]
            good = f"The one of step {kept[0]} stays good" if kept else "There is none before it"
            raise CheckpointError(
                f"The checkpoint {what} could not be written to {self.folder}: {reason}. {good}. "
                "Free space there, or make the folder writable, and start again."
            ) from error

    def restore(self, variables: Variables) -> dict[str, Any] | None:
        """Gives variables the values of the newest good checkpoint; says what it passes over.

        Returns:
          The checkpoint's progress; None if there is no good one, and nothing was assigned.
        """
        for name in _steps(self.folder):
            try:
                progress, arrays = self._read(os.path.join(self.folder, name))
                _assign(variables, arrays)
                return progress
            except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
                words = " ".join(str(error).split())[:200]
                PROGRESS.warning(
                    "checkpoint of step %s is not usable, taking the one before: %s",
                    f"{_number(name):,}",
                    words,
                )
        if _steps(self.folder):
            PROGRESS.warning("starts fresh: none of its checkpoints is usable")
        return None

    def _read(self, folder: str) -> tuple[dict[str, Any], dict[str, list[Any]]]:
        with open(os.path.join(folder, _PROGRESS), encoding="utf-8") as file:
            progress = json.load(file)
        if progress["key"] != self._key:
            raise ValueError(f"it belongs to another training, {progress['key']}")
        for name, expected in progress["files"].items():
            if _hash(os.path.join(folder, name)) != expected:
                raise ValueError(f"{name} differs from what was written")
        return progress, _arrays(os.path.join(folder, _VARIABLES))

    def why_fresh(self) -> str | None:
        """Why no earlier training of this pipeline is gone on with, if there is one."""
        others = []
        for name in _in(self._root) if os.path.isdir(self._root) else ():
            if name.startswith("."):
                continue
            folder = os.path.join(self._root, name)
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                steps = _steps(folder)
                with open(os.path.join(folder, _IDENTITY), encoding="utf-8") as file:
                    found = json.load(file)
                if steps and name != self._key and found["pipeline"] == self._identity["pipeline"]:
                    others.append((os.path.getmtime(folder), _number(steps[0]), found["identity"]))
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

    def __init__(self, store: Store, options: dict[str, Any], writes: bool, resumed_at: list[int]):
        """Takes the `checkpoints` settings, and whether this process is the one that writes."""
        self._store, self._options, self._writes = store, options, writes
        self._last_time, self._last_step = time.monotonic(), resumed_at[-1] if resumed_at else 0
        self.record: dict[str, Any] = {"saved": 0, "seconds": 0.0, "resumed_at": resumed_at}
        self._slowest = 0.0

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
        position = training.position
        self._last_step = position.step
        if self._writes:
            self.record["saved"] += 1
            self._store.save(training.variables, self.progress(training))
            self._slowest = max(self._slowest, time.monotonic() - started)
            self.record["seconds"] = round(self.record["seconds"] + time.monotonic() - started, 4)
        self._last_time = time.monotonic()

    def progress(self, training: Any) -> dict[str, Any]:
        """What a checkpoint says beside its variables."""
        return {
            "step": training.position.step,
            "steps": training.steps,
            "rows": training.feed.rows,
            "replicas": training.replicas,
            "tensorflow": tf.__version__,
            "position": training.position.as_dict(),
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


def _in(folder: str) -> list[str]:
    return sorted(os.listdir(folder))


def _steps(folder: str) -> list[str]:
    """The checkpoints' names, newest first."""
    if not os.path.isdir(folder):
        return []
    found = [n for n in _in(folder) if n.startswith(_STEP) and n[len(_STEP) :].isdecimal()]
    return sorted(found, key=_number, reverse=True)


def _number(name: str) -> int:
    return int(name.removeprefix(_STEP))


def _synced_hash(path: str) -> str:
    """The file's SHA-256, once it is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return _hash(path)


def _hash(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: str, record: dict[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
