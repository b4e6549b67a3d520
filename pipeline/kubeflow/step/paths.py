"""KFP's URIs, and the folders where its launcher puts what they name."""

import os
import shutil
from pathlib import Path

_FOLDERS = {"minio://": "/minio/", "s3://": "/s3/", "gs://": "/gcs/"}


def local(uri: str) -> str:
    """`minio://bucket/key` -> `/minio/bucket/key`; what has no such scheme stays as it is."""
    for scheme, folder in _FOLDERS.items():
        if uri.startswith(scheme):
            return folder + uri.removeprefix(scheme)
    return uri


def remote(path: str) -> str:
    """`/minio/bucket/key` -> `minio://bucket/key`; any other text stays as it is."""
    for scheme, folder in _FOLDERS.items():
        if path.startswith(folder):
            return scheme + path.removeprefix(folder)
    return path


def resolve_links(folder: Path) -> None:
    """Puts a copy in place of each link to a folder: KFP's launcher fails at one."""
    for parent, names, _ in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if path.is_symlink():
                target = path.resolve()
                path.unlink()
                shutil.copytree(target, path)
