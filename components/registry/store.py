"""The registry: numbered, whole, never changing versions of a model (Model Versioning, pattern 27).

`registry/<model>/<N>/` is TF Serving's layout, with a `manifest.json` beside the SavedModel that
says what made it. Labels point to versions: see `components.registry.labels`. Readers need no
lock.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from components import files
from components.errors import PipelineStop

MANIFEST = "manifest.json"
CHAMPION, PREVIOUS, CANDIDATE = "champion", "previous", "candidate"

EXTRA = "assets.extra"
"""The folder of a version for what no server loads; TensorFlow names it so."""

_LAST_VERSION = ".last_version"
_LABELS = "labels.json"

Manifest = dict[str, Any]
Labels = dict[str, int]


def next_version(existing: Iterable[int]) -> int:
    """The number after the highest; `existing` includes numbers that were used and deleted."""
    return max(existing, default=0) + 1


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


def read_manifest(folder: str, version: int) -> Manifest:
    """A version's manifest.

    Raises:
        PipelineStop: If it is missing or damaged.
    """
    path = os.path.join(version_folder(folder, version), MANIFEST)
    try:
        with open(path) as file:
            found: Manifest = json.load(file)
        if not isinstance(found, dict):
            raise ValueError("it is no object")
        return found
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


def add_version(
    folder: str,
    saved_model: str,
    manifest: Mapping[str, Any],
    extra: Mapping[str, str] | None = None,
) -> int:
    """Files a SavedModel and returns its version; the same model is never filed twice.

    Killed at any moment, it leaves no version or a whole one. A number is used up before the
    version appears, so it is not given out again, not even after the version was deleted.

    Args:
        folder: `registry/<model>`; made if it isn't there.
        saved_model: The folder to copy.
        manifest: At least `fingerprint`; `version`, `files` (their hashes) and `digest` (the
            manifest's own) are filled in.
        extra: Folders to copy into EXTRA, by their name there.
    """
    with files.locked(folder):
        if (known := find_by_fingerprint(folder, manifest["fingerprint"])) is not None:
            return known
        _sweep(folder)
        version = next_version([*list_versions(folder), _last_version(folder)])
        files.write_atomically(os.path.join(folder, _LAST_VERSION), str(version))
        temporary = os.path.join(folder, f"{files.TEMPORARY}{version}")
        hashes = files.copy_tree(saved_model, temporary)
        for name, source in (extra or {}).items():
            copied = files.copy_tree(source, os.path.join(temporary, EXTRA, name))
            hashes |= {os.path.join(EXTRA, name, path): found for path, found in copied.items()}
        filled = {**manifest, "version": version, "files": hashes}
        filled["digest"] = _digest(filled)
        files.write_synced(os.path.join(temporary, MANIFEST), json.dumps(filled, indent=1))
        files.sync_folders(temporary)
        os.rename(temporary, version_folder(folder, version))
        files.sync(folder)
    return version


def remove_version(folder: str, version: int) -> None:
    """Deletes a version. Its number is not given out again.

    Raises:
        PipelineStop: If it has a label.
    """
    with files.locked(folder):
        if held := [label for label, number in read_labels(folder).items() if number == version]:
            raise PipelineStop(f"Version {version} is {', '.join(held)}, and stays.")
        leaving = os.path.join(folder, f"{files.TEMPORARY}{version}")
        shutil.rmtree(leaving, ignore_errors=True)
        os.rename(version_folder(folder, version), leaving)
        files.sync(folder)
        shutil.rmtree(leaving)


def damage(folder: str, version: int) -> list[str]:
    """What about a version is not as it was filed; a sentence for each.

    Raises:
        PipelineStop: If there is no such version, or its manifest cannot be read.
    """
    manifest = read_manifest(folder, version)
    found = files.hash_tree(version_folder(folder, version), leave_out={MANIFEST})
    problems = _differences(manifest["files"], found)
    if manifest.get("digest", _digest(manifest)) != _digest(manifest):
        problems.append(f"{MANIFEST} was changed")
    if manifest["version"] != version:
        problems.append(f"{MANIFEST} is that of version {manifest['version']}")
    return problems


def copy_version(folder: str, version: int, to: str) -> None:
    """Copies a version's SavedModel, without its manifest, and checks every file's hash.

    Raises:
        PipelineStop: If the version isn't there, or a file differs from what was filed.
    """
    expected = read_manifest(folder, version)["files"]
    found = files.copy_tree(version_folder(folder, version), to, leave_out={MANIFEST})
    if problems := _differences(expected, found):
        raise damaged(folder, version, problems)


def damaged(folder: str, version: int, problems: Iterable[str]) -> PipelineStop:
    """The error for a version that is not as it was filed."""
    return PipelineStop(
        f"Version {version} of the registry is damaged: in {version_folder(folder, version)} "
        f"{', '.join(problems)}. Restore it from a copy, or promote another version."
    )


def read_labels(folder: str) -> Labels:
    """The version of each label; always one whole state, without a lock."""
    labels: Labels = read_state(folder)["labels"]
    return labels


def read_state(folder: str) -> dict[str, Any]:
    """The labels file: {"labels", "champions": all since the first, "last": the last move}."""
    path = os.path.join(folder, _LABELS)
    try:
        with open(path) as file:
            state: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        return {"labels": {}, "champions": [], "last": None}
    except ValueError as error:
        raise PipelineStop(
            f"{path} is not JSON ({error}). The last line of history.jsonl beside it says what "
            "moved last; restore the file from a copy."
        ) from error
    before = [state["labels"].get(label) for label in (PREVIOUS, CHAMPION)]
    # A file from before there was this list.
    return {"champions": [version for version in before if version], **state}


def write_state(folder: str, state: Mapping[str, Any]) -> None:
    """Replaces the labels file. The caller holds the lock."""
    files.write_atomically(os.path.join(folder, _LABELS), json.dumps(state, indent=1))


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    missing = [f"{name} is missing" for name in expected.keys() - found.keys()]
    extra = [f"{name} was added" for name in found.keys() - expected.keys()]
    both = expected.keys() & found.keys()
    changed = [f"{name} was changed" for name in both if expected[name] != found[name]]
    return sorted(missing + extra + changed)


def _digest(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _last_version(folder: str) -> int:
    try:
        with open(os.path.join(folder, _LAST_VERSION)) as file:
            return int(file.read())
    except FileNotFoundError:
        return 0


def _sweep(folder: str) -> None:
    """Removes what killed processes left; under the lock nobody else's temporaries are alive."""
    for name in os.listdir(folder):
        if name.startswith(files.TEMPORARY):
            path = os.path.join(folder, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
