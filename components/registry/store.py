"""The registry: numbered, whole, never changing versions of a model (Model Versioning, pattern 27).

`registry/<model>/<N>/` is TF Serving's layout, with a `manifest.json` beside the SavedModel that
says what made it. Labels point to versions. `history.jsonl` is their journal: a line for each move,
with the labels after it, so its last whole line says what holds. `components.registry.labels` moves
them. Readers need no lock.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NotRequired

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from components import files
from components.errors import PipelineStop

MANIFEST, JOURNAL, LABELS = "manifest.json", "history.jsonl", "labels.json"
CHAMPION, PREVIOUS, CANDIDATE = "champion", "previous", "candidate"

EXTRA = "assets.extra"
"""The folder of a version for what no server loads; TensorFlow names it so."""

LAST_VERSION = ".last_version"
"""The file with the number that was given out last."""

_ALWAYS = {"version": int, "fingerprint": str, "files": dict}
"""What every manifest has, whoever wrote it."""

_ADVICE = {
    errno.EACCES: "Do it as a user who may write there.",
    errno.EPERM: "Do it as a user who may write there.",
    errno.EROFS: "The disk is mounted read-only: mount it for writing, or do it where it is.",
    errno.ENOSPC: "The disk is full: make room first (`make gc` shows what can go).",
    errno.EDQUOT: "The quota is used up: make room first (`make gc` shows what can go).",
}
_PROGRESS = logging.getLogger("progress")  # its warnings are shown beside the run

Manifest = dict[str, Any]
Labels = dict[str, int]
Step = TypedDict("Step", {"from": int | None, "to": int | None})


class Entry(TypedDict):
    """A move, as a line of the journal; `labels` and `champions` are those after it.

    `champions` are the ones that a rollback goes back through, the present one last. An older
    state of the project wrote lines without the two, and kept them in `labels.json` alone.
    """

    n: int
    time: str
    who: str
    why: str
    action: str
    moves: dict[str, Step]
    labels: NotRequired[Labels]
    champions: NotRequired[list[int]]


class State(BaseModel):
    """What holds, as the journal's last line says. `labels.json` is a copy of it."""

    labels: Labels
    champions: list[int] = Field(
        default_factory=lambda known: [
            known["labels"][label] for label in (PREVIOUS, CHAMPION) if label in known["labels"]
        ]
    )
    """Those that a rollback goes back through, the present one last."""
    last: Entry | None = None
    """The move that led there."""


_ENTRY = TypeAdapter(Entry)


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
    """A version's manifest; it has `version`, `fingerprint` and `files`.

    Raises:
        PipelineStop: If it is missing or damaged.
    """
    path = os.path.join(version_folder(folder, version), MANIFEST)
    try:
        with open(path) as file:
            manifest: Manifest = json.load(file)
        if not isinstance(manifest, dict):
            raise ValueError("it is no object")
        for name, kind in _ALWAYS.items():
            if not isinstance(manifest.get(name), kind):
                raise ValueError(f"it has no '{name}' that is one")
        return manifest
    except (OSError, ValueError, RecursionError) as error:
        raise PipelineStop(
            f"Version {version} of the registry is damaged: {path} cannot be read ({error}). "
            f"Restore {version_folder(folder, version)} from a copy, or delete the folder and "
            "promote another version."
        ) from error


def manifests(folder: str) -> Iterator[Manifest]:
    """Those of all versions, newest first; one that cannot be read is warned of, and left out."""
    for version in reversed(list_versions(folder)):
        try:
            yield read_manifest(folder, version)
        except PipelineStop as stop:
            _PROGRESS.warning("passed over: %s", stop)


def find_by_fingerprint(folder: str, fingerprint: str) -> int | None:
    """The version that holds the model with this fingerprint, if any."""
    found = (each["version"] for each in manifests(folder) if each["fingerprint"] == fingerprint)
    return next(found, None)


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

    Raises:
        PipelineStop: The registry cannot be written.
    """
    with writing(folder):
        if (known := find_by_fingerprint(folder, manifest["fingerprint"])) is not None:
            return known
        _sweep(folder)
        version = max([*list_versions(folder), _last_version(folder)]) + 1
        files.write_atomically(os.path.join(folder, LAST_VERSION), str(version))
        temporary = os.path.join(folder, f"{files.TEMPORARY}{version}")
        hashes = files.copy_tree(saved_model, temporary)
        for name, source in (extra or {}).items():
            copied = files.copy_tree(source, os.path.join(temporary, EXTRA, name))
            hashes |= {os.path.join(EXTRA, name, path): digest for path, digest in copied.items()}
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
        PipelineStop: If it has a label, or the registry cannot be written.
    """
    with writing(folder):
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
    hashes = files.hash_tree(version_folder(folder, version), leave_out={MANIFEST})
    problems = _differences(manifest["files"], hashes)
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
    hashes = files.copy_tree(version_folder(folder, version), to, leave_out={MANIFEST})
    if problems := _differences(expected, hashes):
        raise damaged(folder, version, problems)


def damaged(folder: str, version: int, problems: Iterable[str]) -> PipelineStop:
    """The error for a version that is not as it was filed."""
    return PipelineStop(
        f"Version {version} of the registry is damaged: in {version_folder(folder, version)} "
        f"{', '.join(problems)}. Restore it from a copy, or promote another version."
    )


def read_labels(folder: str) -> Labels:
    """The version of each label; always one whole state, without a lock."""
    return read_state(folder).labels


def read_state(folder: str) -> State:
    """What holds: what the journal's last whole line says, or `labels.json` where none does.

    An older state of the project kept the labels in `labels.json` alone.

    Raises:
        PipelineStop: That line, or that file, is damaged.
    """
    lines = journal_lines(folder)
    last = parse_line(folder, len(lines), lines[-1]) if lines else None
    if last and "labels" in last and "champions" in last:
        return State(labels=last["labels"], champions=last["champions"], last=last)
    path = os.path.join(folder, LABELS)
    try:
        with open(path, "rb") as file:
            return State.model_validate_json(file.read(), strict=True)
    except FileNotFoundError:
        return State(labels={})
    except ValidationError as error:
        raise PipelineStop(
            f"{path} is damaged ({_first(error)}), and it says what the labels are. Restore it "
            f"from a copy; or delete it and {JOURNAL} beside it, and promote a version again."
        ) from error


def journal_lines(folder: str) -> list[bytes]:
    """The journal's whole lines, oldest first; half a line is a move that did not happen."""
    try:
        with open(os.path.join(folder, JOURNAL), "rb") as file:
            return file.read().rpartition(b"\n")[0].splitlines()
    except FileNotFoundError:
        return []


def parse_line(folder: str, number: int, line: bytes) -> Entry:
    """A line of the journal.

    Raises:
        PipelineStop: It is no move.
    """
    try:
        return _ENTRY.validate_json(line, strict=True)
    except ValidationError as error:
        raise PipelineStop(
            f"Line {number} of {os.path.join(folder, JOURNAL)} is damaged ({_first(error)}). "
            "Restore the file from a copy, or take the line out, as if that move had not been; "
            f"the last line says what the labels are, and {LABELS} beside it is a copy of it."
        ) from error


@contextlib.contextmanager
def writing(folder: str) -> Iterator[None]:
    """Keeps other writers out of a model's folder, which is made if it isn't there.

    Raises:
        PipelineStop: It cannot be written: no permission, a read-only or full disk.
    """
    try:
        with files.locked(folder):
            yield
    except OSError as error:
        raise PipelineStop(f"Nothing was changed: {unwritable(folder, error)}") from error


def unwritable(folder: str, error: OSError) -> str:
    """What cannot be written and why, and what to do, in a sentence or two."""
    advice = _ADVICE.get(error.errno or 0, "")
    return f"{error.filename or folder} cannot be written ({error.strerror}). {advice}".rstrip()


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def counter_problems(folder: str) -> list[str]:
    """What is wrong with the number that was given out last."""
    versions = list_versions(folder)
    if versions and _counted(folder) < versions[-1]:
        return [f"does not say that number {versions[-1]} was given out"]
    return []


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, and where."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]


def _differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    missing = [f"{name} is missing" for name in expected.keys() - found.keys()]
    extra = [f"{name} was added" for name in found.keys() - expected.keys()]
    both = expected.keys() & found.keys()
    changed = [f"{name} was changed" for name in both if expected[name] != found[name]]
    return sorted(missing + extra + changed)


def _digest(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _counted(folder: str) -> int:
    """The number in the file; 0 if there is none."""
    try:
        with open(os.path.join(folder, LAST_VERSION)) as file:
            return int(file.read())
    except (FileNotFoundError, ValueError):
        return 0


def _last_version(folder: str) -> int:
    """The highest number that is known to have been given out, to a version or to its label."""
    labelled = re.findall(rb'"to": (\d{1,18})', b"\n".join(journal_lines(folder)))
    return max([_counted(folder), *map(int, labelled)])


def _sweep(folder: str) -> None:
    """Removes what killed processes left; under the lock nobody else's temporaries are alive."""
    for name in os.listdir(folder):
        if name.startswith(files.TEMPORARY):
            path = os.path.join(folder, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
