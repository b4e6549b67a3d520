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
    wanted = _wanted(sorted({span for span, *_ in found}), spans, os.path.join(base, pattern))
    newest = {span: max(v for s, v, _ in found if s == span) for span in wanted}
    by_span = [[file for s, v, file in found if (s, v) == (span, newest[span])] for span in wanted]
    version = newest[wanted[-1]] if "{VERSION" in pattern else None
    paths = sorted(path for files in by_span for path in files)
    identity = fingerprint(base, [*paths, *others])
    return Inputs(by_span, wanted, version, identity, [*others])


def fingerprint(base: str, files: list[str]) -> str:
    """The names, sizes and times of change of `files`, all of which must be there, as a string."""
    digest, total = hashlib.sha256(), 0
    for path in files:
        try:
            if os.path.exists(path):  # TFX's file system counts whole seconds for local files.
                local = os.stat(path)
                size, changed = local.st_size, local.st_mtime_ns
            else:
                remote = fileio.stat(path)
                size, changed = remote.length, remote.mtime_nsec
        except (FileNotFoundError, filesystem.NotFoundError, tf.errors.NotFoundError):
            raise PipelineStop(
                f"{path} has vanished since the run began. Put it back, then run again."
            ) from None
        total += size
        digest.update(f"{path.removeprefix(base)}\n{size} {changed}\n".encode())
    return f"num_files:{len(files)},total_bytes:{total},sha256:{digest.hexdigest()[:32]}"


def check_unchanged(base: str, inputs: Inputs, what: str = "Files") -> None:
    """Stops if one of the files is not as it was; `what` they are stands in the message."""
    if fingerprint(base, [*inputs.files, *inputs.others]) != inputs.fingerprint:
        raise PipelineStop(
            f"{what} in {base} have changed since the run began. Run again when they no longer do."
        )


def has_spans(pattern: str) -> bool:
    """Whether a pattern selects spans: by {SPAN}, or by {YYYY}, {MM} and {DD}."""
    return any(utils.verify_split_pattern_specs(example_gen_pb2.Input.Split(pattern=pattern))[:2])


def _list(base: str, pattern: str) -> list[tuple[int, int, str]]:
    """Span, version and path of each file, sorted."""
    split = example_gen_pb2.Input.Split(name="all", pattern=pattern)
    try:
        specs = utils.verify_split_pattern_specs(split)
        glob, regex = utils._create_matching_glob_and_regex(base, split, *specs, range_config=None)
        files = [path for path in fileio.glob(glob) if not fileio.isdir(path)]
        found = [utils._find_matched_span_version_from_path(p, regex, *specs) for p in files]
    except ValueError as error:
        raise PipelineStop(f"data.pattern '{pattern}' in {base}: {error}.") from error
    return sorted((m[1] or 0, m[3] or 0, path) for path, m in zip(files, found, strict=True))


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
