"""Which files a run reads: globs, spans, versions and dates with TFX's meaning.

TFX's own driver reads one span. Here a pattern is listed once with TFX's glob and regular
expression, and the spans wanted are picked from what is there.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import tensorflow as tf
from tfx.components.example_gen import utils
from tfx.dsl.io import fileio, filesystem
from tfx.proto import example_gen_pb2

from components.errors import PipelineStop
from components.ingest.settings import RollingSpans, SpanRange, Spans

VANISHED = (FileNotFoundError, filesystem.NotFoundError, tf.errors.NotFoundError)


@dataclass(frozen=True)
class Inputs:
    """The files of a run, sorted, and what identifies them."""

    by_span: list[list[str]]
    """The files of each span."""
    spans: list[int]
    version: int | None
    fingerprint: str
    others: list[str] = field(default_factory=list)
    """Those that a query reads beside the rows."""

    @property
    def files(self) -> list[str]:
        """The files of all spans."""
        return sorted(file for files in self.by_span for file in files)

    @property
    def newest(self) -> list[str]:
        """The files of the newest span."""
        return self.by_span[-1]


@dataclass(frozen=True)
class _Found:
    path: str
    span: int
    version: int | None


def resolve(base: str, pattern: str, spans: Spans, others: Sequence[str] = ()) -> Inputs:
    """Finds the files of the spans wanted, the newest version of each span.

    Args:
        base: The folder.
        pattern: A glob below it, with {SPAN}, {VERSION}, or {YYYY}, {MM} and {DD}.
        spans: Which spans; without a placeholder in the pattern all files are span 0.
        others: More files that the fingerprint is to cover.

    Raises:
        PipelineStop: If the folder, the files or a span aren't there, or the pattern is wrong.
    """
    if not fileio.isdir(base):
        why = " An address is none: mount the store, or copy the files." if ":/" in base else ""
        raise PipelineStop(f"The data folder {base} does not exist. Correct data.path.{why}")
    found = _list(base, pattern)
    if not found:
        raise PipelineStop(
            f"No file in {base} matches '{pattern}'. Correct data.path or data.pattern."
        )
    if not has_spans(pattern) and spans != "newest":
        raise PipelineStop(
            f"data.spans is set, but data.pattern '{pattern}' selects no spans. Put {{SPAN}}, or "
            "{YYYY}, {MM} and {DD}, into the pattern, or set data.spans to newest."
        )
    wanted = _wanted(sorted({f.span for f in found}), spans, os.path.join(base, pattern))
    versions = {span: max((f.version or 0) for f in found if f.span == span) for span in wanted}
    files = [f for f in found if (f.version or 0) == versions.get(f.span)]
    by_span = [sorted(f.path for f in files if f.span == span) for span in wanted]
    paths = sorted(f.path for f in files)
    version = versions[wanted[-1]] if files[0].version is not None else None
    identity = fingerprint(base, [*paths, *others])
    return Inputs(by_span, wanted, version, identity, [*others])


def fingerprint(base: str, files: list[str]) -> str:
    """The names, sizes and times of change of `files`, as one string.

    Raises:
        PipelineStop: If one of them is gone.
    """
    digest, total = hashlib.sha256(), 0
    for path in files:
        size, changed = _stat(path)
        total += size
        digest.update(f"{path.removeprefix(base)}\n{size} {changed}\n".encode())
    return f"num_files:{len(files)},total_bytes:{total},sha256:{digest.hexdigest()[:32]}"


def check_unchanged(base: str, inputs: Inputs, what: str = "Files") -> None:
    """Looks at the files again.

    Args:
        base: Their folder.
        inputs: What was found before.
        what: What they are, for the message.

    Raises:
        PipelineStop: If one of them is not as it was.
    """
    if fingerprint(base, [*inputs.files, *inputs.others]) != inputs.fingerprint:
        raise PipelineStop(
            f"{what} in {base} have changed since the run began. Run again when they no longer do."
        )


def vanished(path: str) -> PipelineStop:
    """The error for a file that was there when the run began."""
    return PipelineStop(f"{path} has vanished since the run began. Put it back, then run again.")


def _stat(path: str) -> tuple[int, int]:
    try:
        if os.path.exists(path):  # TFX's file system counts whole seconds for local files.
            local = os.stat(path)
            return local.st_size, local.st_mtime_ns
        remote = fileio.stat(path)
    except VANISHED:
        raise vanished(path) from None
    return remote.length, remote.mtime_nsec


def has_spans(pattern: str) -> bool:
    """Whether a pattern selects spans: by {SPAN}, or by {YYYY}, {MM} and {DD}."""
    return any(utils.verify_split_pattern_specs(example_gen_pb2.Input.Split(pattern=pattern))[:2])


def _list(base: str, pattern: str) -> list[_Found]:
    split = example_gen_pb2.Input.Split(name="all", pattern=pattern)
    try:
        specs = utils.verify_split_pattern_specs(split)
        glob, regex = utils._create_matching_glob_and_regex(base, split, *specs, range_config=None)
        files = [path for path in fileio.glob(glob) if not fileio.isdir(path)]
        matches = [utils._find_matched_span_version_from_path(p, regex, *specs) for p in files]
    except ValueError as error:
        raise PipelineStop(f"data.pattern '{pattern}' in {base}: {error}.") from error
    return [_Found(p, m[1] or 0, m[3]) for p, m in zip(files, matches, strict=True)]


def _wanted(there: list[int], spans: Spans, where: str) -> list[int]:
    """The spans to read, in order; a rolling range takes what is there, all others are exact."""
    match spans:
        case "newest":
            return there[-1:]
        case RollingSpans(count=count, skip=skip, start=start, last=newest):
            last = min(there[-1], there[-1] if newest is None else newest) - skip
            wanted = [s for s in there if max(start, last - count + 1) <= s <= last]
            asked = f"the newest {count} without {skip}, from {start}"
        case SpanRange(first=first, last=last):  # One beyond the newest is enough to complain of.
            asked, wanted = f"{first} to {last}", [*range(first, min(last, there[-1] + 1) + 1)]
        case number:
            asked, wanted = str(number), [number]
    lacking = sorted(set(wanted) - set(there))
    if lacking or not wanted:
        raise PipelineStop(
            f"data.spans asks for {asked}, but there is no {_listed(lacking) or 'such span'} "
            f"in {where}. There are: {_listed(there)}. Correct data.spans, or bring the data."
        )
    return wanted


def _listed(spans: list[int]) -> str:
    shown = ", ".join(map(str, spans[:10]))
    return f"{shown}, … {spans[-1]}" if len(spans) > 10 else shown
