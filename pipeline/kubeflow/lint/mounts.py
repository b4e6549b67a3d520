"""Where volumes are mounted, and what they are called."""

import posixpath
from collections import Counter
from collections.abc import Iterator

from pipeline.kubeflow.lint.names import LABEL
from pipeline.kubeflow.lint.platform_document import name_source
from pipeline.kubeflow.lint.reading import Message, Package
from pipeline.kubeflow.lint.rules import Violation

_RESERVED = ("/gcs", "/kfp-launcher", "/minio", "/s3", "/tmp/kfp", "/.cache", "/.config", "/.local")
"""KFP mounts its own volumes there, and finds outputs below /tmp/kfp."""
_NAMED = ("pvc_mount", "secret_as_volume", "config_map_as_volume")
_OWN_NAME = ("empty_dir_mounts", "generic_ephemeral_volume")


def paths(package: Package) -> Iterator[Violation]:
    """Mount paths that are relative, taken twice, or KFP's."""
    for label, config in package.configs.items():
        given = [e.mount_path for field in _NAMED + _OWN_NAME for e in getattr(config, field)]
        counts = Counter(map(posixpath.normpath, given))
        for path in (posixpath.normpath(path) for path in given if path):
            step = package.step_of_executor(label)
            if not path.startswith("/"):
                problem = "is not absolute"
            elif counts[path] > 1:
                problem = "is taken twice"
            elif any(path == root or path.startswith(f"{root}/") for root in _RESERVED):
                problem = "is inside a folder of KFP"
            else:
                continue
            text = f"Mount path {path!r} {problem}; choose another."
            yield Violation(step, "mount-path", text)


def names(package: Package) -> Iterator[Violation]:
    """Names that can't be a volume's."""
    for label, config in package.configs.items():
        for name in _volume_names(config):
            if name and not LABEL.fullmatch(name):
                text = (
                    f"{name!r} becomes a volume's name; use at most 63 lower-case letters, digits "
                    "and hyphens, no hyphen first or last."
                )
                yield Violation(package.step_of_executor(label), "volume-name", text)


def _volume_names(config: Message) -> Iterator[str]:
    """KFP calls a volume like the claim, secret or config map in it."""
    for field in _NAMED:
        for entry in getattr(config, field):
            name = name_source(entry).runtime_value.constant.string_value
            yield "" if "{{" in name else name
    for field in _OWN_NAME:
        for entry in getattr(config, field):
            yield entry.volume_name
