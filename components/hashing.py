"""Hashes of the contents of files."""

import glob
import hashlib
import os
from collections.abc import Sequence


def hash_tree(folder: str) -> str:
    """SHA-256 over the relative paths and contents of all files."""
    digest = hashlib.sha256()
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            digest.update(os.path.relpath(path, folder).encode() + b"\0")
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def hash_files(patterns: Sequence[str]) -> str:
    """SHA-256 over the names and contents of the files that match, wherever they lie."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in glob.glob(pattern)):
        digest.update(os.path.basename(path).encode() + b"\0")
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
