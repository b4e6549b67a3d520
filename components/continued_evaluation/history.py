"""Every evaluation of a model's versions: append-only, in the registry.

`registry/<model>/evaluations/<id>/` holds `evaluation.json` (a `Record`), the span's
statistics and its rows' hashes. It appears by one rename, whole, and never changes; what came of a
decision is in a file of its own beside it, `followed.json`. The id is made from what was
evaluated, so the same evaluation, run again, is the one that is there.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from components import files
from components.continued_evaluation.decision import Decision
from components.continued_evaluation.evidence import Evidence
from components.continued_evaluation.evidence import Record as _Record
from components.errors import PipelineStop
from components.registry import store

_Any = TypeVar("_Any", bound=_Record)

FOLDER = "evaluations"
EVALUATION_FILE, FOLLOWED_FILE = "evaluation.json", "followed.json"
STATISTICS, HASHES = "statistics.pb", "rows.npy"


class Record(_Record):
    """An evaluation and its decision.

    Attributes:
      id: `span-<span>-v<champion>-<hash>`; the name of a retraining that follows.
      number: 1 for the first of the model.
      time: UTC.
      run_id: The pipeline run.
      source: The data's folder and pattern.
      has_spans: Whether the pattern has spans.
      evidence: What was found.
      decision: What to do.
      settings: `ContinuedEvaluation` as it was.
    """

    id: str
    number: int
    time: str
    run_id: str
    source: str
    has_spans: bool = True
    evidence: Evidence
    decision: Decision
    settings: dict[str, Any]


class Followed(_Record):
    """What came of a decision.

    Attributes:
      time: UTC.
      what: In words.
      version: The version that was filed, or rolled back to.
      run: Of the training pipeline, where it runs elsewhere.
    """

    time: str
    what: str
    version: int | None = None
    run: str | None = None


def make_id(span: int, champion: int, *facts: str) -> str:
    """The id of an evaluation.

    Args:
      span: Evaluated.
      champion: Judged.
      facts: All else that the outcome depends on: data, settings, code.
    """
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]
    return f"span-{span}-v{champion}-{digest}"


def add(model: str, record: Record, statistics: bytes, hashes: np.ndarray) -> Record:
    """Files an evaluation, unless it is there; what is there comes back.

    Args:
      model: `registry/<model>`.
      record: Its number is set here.
      statistics: The span's, a serialised DatasetFeatureStatisticsList.
      hashes: uint64 [at most rows.SKETCH], the `rows.sketch` of the span's rows.
    """
    with files.locked(model):
        folder = Path(model) / FOLDER
        if (folder / record.id / EVALUATION_FILE).exists():
            return read(model, record.id)
        record = record.model_copy(update={"number": len(_ids(model)) + 1})
        for left in folder.glob(f"{files.TEMPORARY}*"):  # under the lock nobody is at work in one
            shutil.rmtree(left)
        made = folder / f"{files.TEMPORARY}{record.id}"
        made.mkdir(parents=True)
        (made / STATISTICS).write_bytes(statistics)
        np.save(made / HASHES, hashes)
        (made / EVALUATION_FILE).write_text(record.model_dump_json(indent=1))
        for name in (STATISTICS, HASHES, EVALUATION_FILE):
            files.sync(str(made / name))
        files.sync_folders(str(made))
        os.rename(made, folder / record.id)
        files.sync(str(folder))
    return record


def follow(model: str, evaluation: str, followed: Followed) -> None:
    """Says what came of a decision; said again, it replaces what was said."""
    path = Path(model) / FOLDER / evaluation / FOLLOWED_FILE
    files.write_atomically(str(path), followed.model_dump_json(indent=1))


def followed(model: str, evaluation: str) -> Followed | None:
    """What came of a decision, if anything yet."""
    path = Path(model) / FOLDER / evaluation / FOLLOWED_FILE
    return _parsed(Followed, path) if path.exists() else None


def read(model: str, evaluation: str) -> Record:
    """One evaluation.

    Raises:
      PipelineStop: It is damaged.
    """
    return _parsed(Record, Path(model) / FOLDER / evaluation / EVALUATION_FILE)


def _parsed(kind: type[_Any], path: Path) -> _Any:
    try:
        return kind.model_validate_json(path.read_text())
    except (OSError, ValueError) as error:
        raise PipelineStop(
            f"{path} cannot be read ({' '.join(str(error).split())[:200]}). Restore the folder "
            f"from a copy, or remove {path.parent}: the other evaluations do not need it."
        ) from error


def read_all(model: str) -> list[Record]:
    """All evaluations, oldest first."""
    return sorted((read(model, name) for name in _ids(model)), key=lambda record: record.number)


def path_of(model: str, evaluation: str, name: str) -> Path:
    """A file of an evaluation."""
    return Path(model) / FOLDER / evaluation / name


def _ids(model: str) -> list[str]:
    folder = Path(model) / FOLDER
    if not folder.is_dir():
        return []
    return [path.name for path in folder.iterdir() if not path.name.startswith(files.TEMPORARY)]


def now() -> str:
    """The time in UTC, to the second."""
    return store.now()
