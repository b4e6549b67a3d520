"""Bad rows set aside: written with their reasons, counted, and measured against what is allowed."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain, islice, zip_longest
from types import TracebackType
from typing import Any, NamedTuple

from tfx.dsl.io import fileio

from components.errors import PipelineStop
from components.ingest.problems import BadRow

FOLDER = "quarantine"
_EXAMPLES = 3
_REASONS = 10


class Quarantined(NamedTuple):
    """The bad rows of one file, or of several together."""

    rows: int
    read: int
    """All rows of the files, good ones too."""
    reasons: dict[str, int]
    """How many rows have each; a row can have several."""
    examples: dict[str, list[str]]
    """The first few rows that have each."""
    lists: list[str]
    """The files that have all of them, a JSON object a row."""

    @property
    def fraction(self) -> float:
        """Of all rows."""
        return self.rows / max(self.read, 1)


class Quarantine:
    """Takes the bad rows of one file, and writes them to a list."""

    def __init__(self, path: str, target: str) -> None:
        """Takes the path of the file, and that of the list, which is made if there is a row."""
        self._path, self._target = path, target
        self._rows, self._reasons = 0, Counter[str]()
        self._examples: dict[str, list[str]] = {}
        self._list: Any = None

    def __enter__(self) -> "Quarantine":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Closes the list."""
        if self._list is not None:
            self._list.close()

    def __call__(self, row: BadRow) -> None:
        """Takes a row."""
        self._rows += 1
        self._reasons.update({problem.reason for problem in row.problems})
        for problem in row.problems:
            examples = self._examples.setdefault(problem.reason, [])
            if len(examples) < _EXAMPLES:
                examples.append(f"{self._path}, {row.place} {row.number}{problem}")
        if self._list is None:
            self._list = fileio.open(self._target, "w")
        self._list.write(json.dumps(self._record(row), ensure_ascii=False) + "\n")

    def _record(self, row: BadRow) -> dict[str, Any]:
        reasons = [str(problem).lstrip(",: ") for problem in row.problems]
        record = {"file": self._path, row.place: row.number, "reasons": reasons}
        return record if row.raw is None else record | {"raw": row.raw}

    def finish(self, good: int) -> Quarantined:
        """What came of the file, which has so many good rows."""
        lists = [self._target] if self._rows else []
        read = good + self._rows
        return Quarantined(self._rows, read, dict(self._reasons), self._examples, lists)


def together(parts: Sequence[Quarantined]) -> Quarantined:
    """The bad rows of all files; the commonest reasons first."""
    reasons: Counter[str] = Counter()
    examples: defaultdict[str, list[str]] = defaultdict(list)
    for part in parts:
        reasons.update(part.reasons)
        for reason, few in part.examples.items():
            examples[reason] += few
    return Quarantined(
        rows=sum(part.rows for part in parts),
        read=sum(part.read for part in parts),
        reasons=dict(reasons.most_common(_REASONS)),
        examples={reason: examples[reason][:_EXAMPLES] for reason, _ in reasons.most_common()},
        lists=[path for part in parts for path in part.lists],
    )


def publish_lists(found: Quarantined, folder: str) -> None:
    """Moves the lists into `folder`, one a file of the data, in order."""
    if fileio.exists(folder):  # From an attempt that was cut short.
        fileio.rmtree(folder)
    if found.lists:
        fileio.makedirs(folder)
    for number, path in enumerate(found.lists):
        fileio.rename(path, os.path.join(folder, f"rows-{number:05d}.jsonl"), overwrite=True)


def check(found: Quarantined, at_most: float, folder: str) -> None:
    """Stops if there are too many bad rows; the lists go to `folder` then.

    Raises:
        PipelineStop: With counts, reasons, examples, and where the whole list is.
    """
    if found.fraction <= at_most:
        return
    publish_lists(found, folder)
    reasons = "\n".join(f"  {count:,} x {reason}" for reason, count in found.reasons.items())
    # One of each reason before a second one of any.
    turns = chain.from_iterable(zip_longest(*found.examples.values()))
    examples = "\n".join(f"  {example}" for example in islice(filter(None, turns), _EXAMPLES))
    raise PipelineStop(
        f"{found.rows:,} of {found.read:,} rows are bad ({found.fraction:.2%}), and "
        f"data.bad_rows.at_most allows {at_most:.2%}:\n{reasons}\nFor example:\n{examples}\n"
        f"All of them, with the reasons: {folder}/*.jsonl\n"
        "Correct the data, or the columns' types in the schema, or raise data.bad_rows.at_most; "
        "then run again."
    )
