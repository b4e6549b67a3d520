"""Files that appear whole or not at all, and a lock for those who write them.

The lock is flock's, so the kernel releases it when a process dies. A change becomes visible by one
rename, after its bytes are on the disk. Both hold on local folders and on mounted ones that have
POSIX renames and locks; object stores have neither.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator

TEMPORARY = ".tmp-"
_LOCK = ".lock"


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Keeps other writers out of a model's folder, which is made if it isn't there."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, _LOCK), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def copy_tree(source: str, to: str, leave_out: Iterable[str] = ()) -> dict[str, str]:
    """Copies a folder, syncs every file, and returns their SHA-256 by relative path."""
    hashes = {}
    for relative in walk(source, leave_out):
        target = os.path.join(to, relative)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        hashes[relative] = _copy(os.path.join(source, relative), target)
    return hashes


def hash_tree(source: str, leave_out: Iterable[str] = ()) -> dict[str, str]:
    """SHA-256 of every file by relative path."""
    hashes = {}
    for relative in walk(source, leave_out):
        with open(os.path.join(source, relative), "rb") as file:
            hashes[relative] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def walk(source: str, leave_out: Iterable[str] = ()) -> Iterator[str]:
    """The relative paths of all files."""
    for parent, _, names in os.walk(source):
        for name in names:
            relative = os.path.relpath(os.path.join(parent, name), source)
            if relative not in leave_out:
                yield relative


@contextlib.contextmanager
def new_folder(path: str) -> Iterator[str]:
    """Yields a temporary folder beside `path`, which gets its name when the block ends well.

    What a killed process left under the same temporary name is removed first. A folder that is
    there already is replaced; after an exception nothing is left.
    """
    parent, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(parent, f"{TEMPORARY}{name}")
    shutil.rmtree(temporary, ignore_errors=True)
    os.makedirs(temporary)
    try:
        yield temporary
        for name in walk(temporary):
            sync(os.path.join(temporary, name))
        sync_folders(temporary)
        if os.path.isdir(path):
            shutil.rmtree(path)
        os.rename(temporary, path)
        sync(parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def new_file(path: str, ending: str = "") -> Iterator[str]:
    """Yields a temporary path beside `path`; the file there gets its name when the block ends well.

    A file that is there already is replaced; after an exception nothing is left.

    Args:
        path: Of the file.
        ending: Of the temporary path, after the file's own, for files that others look for by
            their ending.
    """
    parent, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(parent, f"{TEMPORARY}{name}{ending}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.rename(temporary, path)
        sync(parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


def write_atomically(path: str, text: str) -> None:
    """Replaces a file in one step; makes its folder if need be. The caller holds the lock."""
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f"{TEMPORARY}{name}")
    write_synced(temporary, text)
    os.rename(temporary, path)
    sync(folder)


def write_synced(path: str, text: str) -> None:
    """Writes a file through to the disk."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync_folders(top: str) -> None:
    """Makes the names in a folder and all below it last."""
    for folder, _, _ in os.walk(top):
        sync(folder)


def sync(path: str) -> None:
    """Makes the names in a folder, or the bytes of a file, last."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(source: str, target: str) -> str:
    digest = hashlib.sha256()
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while block := reader.read(1 << 20):
            digest.update(block)
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest()
