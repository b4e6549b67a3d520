"""The registry: numbered, whole, never changing versions of a model, and labels that point to them.

`registry/<model>/<N>/` is TF Serving's layout, with a `manifest.json` beside the SavedModel. Every
change happens under one lock (flock, so the kernel releases it when a process dies) and becomes
visible by one rename; readers need no lock. This holds on local and on mounted folders that have
POSIX renames and locks; object stores have neither.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from components.errors import PipelineStop

MANIFEST = "manifest.json"
CHAMPION, PREVIOUS = "champion", "previous"

_LOCK = ".lock"
_TEMPORARY = ".tmp-"
_LAST_VERSION = ".last_version"
_LABELS = "labels.json"
_HISTORY = "history.jsonl"

Labels = dict[str, int]
Entry = dict[str, Any]


def next_version(existing: Iterable[int]) -> int:
    """The number after the highest; `existing` includes numbers that were used and deleted."""
    return max(existing, default=0) + 1


def promoted(labels: Mapping[str, int], version: int) -> Labels:
    """The labels after a promotion: the old champion, if there is another, becomes previous."""
    old = labels.get(CHAMPION)
    moved = {CHAMPION: version} if old in (None, version) else {CHAMPION: version, PREVIOUS: old}
    return {**labels, **moved}


def moves(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, dict[str, int | None]]:
    """What moved: {label: {"from": version or None, "to": version or None}}."""
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: {"from": before.get(name), "to": after.get(name)} for name in changed}


def list_versions(folder: str) -> list[int]:
    """The versions that are there, ascending; none if the folder isn't there yet."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if name.isdecimal())


def version_folder(folder: str, version: int) -> str:
    """Where a version's SavedModel and manifest are."""
    return os.path.join(folder, str(version))


def read_manifest(folder: str, version: int) -> dict[str, Any]:
    """A version's manifest.

    Raises:
        PipelineStop: If it is missing or damaged.
    """
    path = os.path.join(version_folder(folder, version), MANIFEST)
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise PipelineStop(
            f"Version {version} of the registry is damaged: {path} cannot be read ({error}). "
            f"Restore {version_folder(folder, version)} from a copy, or delete the folder and "
            "promote another version."
        ) from error


def find_by_fingerprint(folder: str, fingerprint: str) -> int | None:
    """The version that holds the model with this fingerprint, if any."""
    for version in reversed(list_versions(folder)):
        if read_manifest(folder, version)["fingerprint"] == fingerprint:
            return version
    return None


def add_version(folder: str, saved_model: str, manifest: Mapping[str, Any]) -> int:
    """Files a SavedModel and returns its version; the same model is never filed twice.

    Killed at any moment, it leaves no version or a whole one. A number is used up before the
    version appears, so it is not given out again, not even after the version was deleted.

    Args:
        folder: `registry/<model>`; made if it isn't there.
        saved_model: The folder to copy.
        manifest: At least `fingerprint`; `version` and `files` (their hashes) are filled in.
    """
    with _locked(folder):
        if (known := find_by_fingerprint(folder, manifest["fingerprint"])) is not None:
            return known
        _sweep(folder)
        version = next_version([*list_versions(folder), _last_version(folder)])
        _write_atomically(os.path.join(folder, _LAST_VERSION), str(version))
        temporary = os.path.join(folder, f"{_TEMPORARY}{version}")
        hashes = copy_tree(saved_model, temporary)
        filled = {**manifest, "version": version, "files": hashes}
        _write_synced(os.path.join(temporary, MANIFEST), json.dumps(filled, indent=1))
        _sync_folders(temporary)
        os.rename(temporary, version_folder(folder, version))
        _sync(folder)
    return version


def copy_version(folder: str, version: int, to: str) -> None:
    """Copies a version's SavedModel, without its manifest, and checks every file's hash.

    Raises:
        PipelineStop: If the version isn't there, or a file differs from what was filed.
    """
    expected = read_manifest(folder, version)["files"]
    found = copy_tree(version_folder(folder, version), to, leave_out={MANIFEST})
    wrong = sorted(name for name in {**expected, **found} if expected.get(name) != found.get(name))
    if wrong:
        raise PipelineStop(
            f"Version {version} of the registry is damaged: {', '.join(wrong)} in "
            f"{version_folder(folder, version)} differ from what was filed. Restore them from a "
            "copy, or promote another version."
        )


def copy_tree(source: str, to: str, leave_out: Iterable[str] = ()) -> dict[str, str]:
    """Copies a folder, syncs every file, and returns their SHA-256 by relative path."""
    hashes = {}
    for parent, _, names in os.walk(source):
        target = os.path.join(to, os.path.relpath(parent, source))
        os.makedirs(target, exist_ok=True)
        for name in names:
            relative = os.path.relpath(os.path.join(parent, name), source)
            if relative not in leave_out:
                hashes[relative] = _copy(os.path.join(parent, name), os.path.join(target, name))
    return hashes


def read_labels(folder: str) -> Labels:
    """The version of each label; always one whole state, without a lock."""
    return _read_state(folder)["labels"]


def promote(folder: str, version: int, who: str, why: str, over: int | None) -> Labels:
    """Makes a version the champion and the old champion `previous`, in one step.

    Args:
        folder: `registry/<model>`.
        version: The new champion.
        who: For the history.
        why: For the history.
        over: The champion (None: there is none) that this is known to be right for.

    Raises:
        PipelineStop: If the version isn't there, or another process moved the champion meanwhile.
    """
    with _locked(folder):
        state = _read_state(folder)
        champion = state["labels"].get(CHAMPION)
        if version not in list_versions(folder):
            raise PipelineStop(f"There is no version {version} in {folder} to promote.")
        if champion not in (over, version):
            raise PipelineStop(
                f"Version {version} was to replace champion {over}, but by now the champion is "
                f"{champion}. Run again to compare them, or promote it by hand."
            )
        labels = promoted(state["labels"], version)
        if labels != state["labels"]:
            _move(folder, state, labels, who, why)
    return labels


def read_history(folder: str) -> list[Entry]:
    """Every move of labels, oldest first: n, time (UTC), who, why, moves."""
    entries, last = _history_lines(folder), _read_state(folder)["last"]
    return entries + [last] * bool(last and last["n"] > len(entries))


def _move(folder: str, state: dict[str, Any], labels: Labels, who: str, why: str) -> None:
    """Replaces the labels, which decides, then writes the history.

    The labels file carries its own last move, so a process killed in between loses nothing: the
    next one writes the missing line.
    """
    history = read_history(folder)
    entry = {
        "n": len(history) + 1,
        "time": now(),
        "who": who,
        "why": why,
        "moves": moves(state["labels"], labels),
    }
    changed = {"labels": labels, "last": entry}
    _write_atomically(os.path.join(folder, _LABELS), json.dumps(changed, indent=1))
    missing = [*history, entry][len(_history_lines(folder)) :]
    with open(os.path.join(folder, _HISTORY), "a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write("".join(json.dumps(line) + "\n" for line in missing).encode())
        file.flush()
        os.fsync(file.fileno())


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read_state(folder: str) -> dict[str, Any]:
    path = os.path.join(folder, _LABELS)
    try:
        with open(path) as file:
            return json.load(file)
    except FileNotFoundError:
        return {"labels": {}, "last": None}
    except ValueError as error:
        raise PipelineStop(
            f"{path} is not JSON ({error}). The last line of {_HISTORY} beside it says what moved "
            "last; restore the file from a copy."
        ) from error


def _history_lines(folder: str) -> list[Entry]:
    try:
        with open(os.path.join(folder, _HISTORY), "rb") as file:
            whole = file.read().rpartition(b"\n")[0]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in whole.splitlines()]


def _last_version(folder: str) -> int:
    try:
        with open(os.path.join(folder, _LAST_VERSION)) as file:
            return int(file.read())
    except FileNotFoundError:
        return 0


def _sweep(folder: str) -> None:
    """Removes what killed processes left; under the lock nobody else's temporaries are alive."""
    for name in os.listdir(folder):
        if name.startswith(_TEMPORARY):
            path = os.path.join(folder, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, _LOCK), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _copy(source: str, target: str) -> str:
    digest = hashlib.sha256()
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while block := reader.read(1 << 20):
            digest.update(block)
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest()


def _write_atomically(path: str, text: str) -> None:
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f"{_TEMPORARY}{name}")
    _write_synced(temporary, text)
    os.rename(temporary, path)
    _sync(folder)


def _write_synced(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folders(top: str) -> None:
    for folder, _, _ in os.walk(top):
        _sync(folder)


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
