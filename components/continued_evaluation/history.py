"""Every evaluation of a model's versions, and what came of it: append-only, in the registry.

`registry/<model>/evaluations/<id>/` holds `evaluation.json` (a `Record`), the span's
statistics and its rows' hashes. It appears by one rename, whole, and never changes; what came of a
decision is in a file of its own beside it, `followed.json`. The id is made from what was
evaluated, so the same evaluation, run again, is the one that is there.

What a decision asks for is done once: `due` says what that is, and `note` that it was done.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from components import files
from components.continued_evaluation.decision import Decision
from components.continued_evaluation.evidence import Evidence, Filed
from components.continued_evaluation.settings import ContinuedEvaluation
from components.errors import PipelineStop
from components.registry import labels, store

FOLDER = "evaluations"
EVALUATION_FILE, FOLLOWED_FILE = "evaluation.json", "followed.json"
STATISTICS, HASHES = "statistics.pb", "rows.npy"
_ALL = 1_000_000
"""A growing window where the last span is not known."""

_Model = TypeVar("_Model", bound=Filed)
Due = Literal["nothing", "retrain", "roll_back", "look"]


class Record(Filed):
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


class Followed(Filed):
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


class Retraining(Filed):
    """What a retraining is trained on.

    Attributes:
      spans: As in the setting `data.spans`; None where the data has no spans.
      warm_start: The version whose weights it starts from, if any.
    """

    spans: dict[str, Any] | None
    warm_start: int | None


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
      hashes: uint64 [at most judging.SKETCH], the `judging.sketch` of the span's rows.
    """
    with files.locked(model):
        folder = path_of(model, record.id)
        if (folder / EVALUATION_FILE).exists():
            return read(model, record.id)
        for left in folder.parent.glob(f"{files.TEMPORARY}*"):  # of a killed process: it is locked
            shutil.rmtree(left)
        record = record.model_copy(update={"number": len(_ids(model)) + 1})
        with files.new_folder(str(folder)) as made:
            Path(made, STATISTICS).write_bytes(statistics)
            np.save(Path(made, HASHES), hashes)
            Path(made, EVALUATION_FILE).write_text(record.model_dump_json(indent=1))
    return record


def note(
    model: str, record: Record, what: str, version: int | None = None, run: str | None = None
) -> None:
    """Says what came of a decision (see `Followed`); said again, it replaces what was said."""
    followed = Followed(time=store.now(), what=what, version=version, run=run)
    path = path_of(model, record.id, FOLLOWED_FILE)
    files.write_atomically(str(path), followed.model_dump_json(indent=1))


def followed(model: str, evaluation: str) -> Followed | None:
    """What came of a decision, if anything yet."""
    path = path_of(model, evaluation, FOLLOWED_FILE)
    return _parsed(Followed, path) if path.exists() else None


def read(model: str, evaluation: str) -> Record:
    """One evaluation.

    Raises:
      PipelineStop: It is damaged.
    """
    return _parsed(Record, path_of(model, evaluation, EVALUATION_FILE))


def _parsed(kind: type[_Model], path: Path) -> _Model:
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


def path_of(model: str, evaluation: str, name: str = "") -> Path:
    """A file of an evaluation, or its folder."""
    return Path(model, FOLDER, evaluation, name)


def _ids(model: str) -> list[str]:
    found = (path.name for path in Path(model, FOLDER).glob("*"))
    return [name for name in found if not name.startswith(files.TEMPORARY)]


def due(model: str, record: Record, settings: ContinuedEvaluation) -> Due:
    """What is still to be done about a decision; `look`: a person has to.

    Args:
      model: `registry/<model>`.
      record: The decision.
      settings: As they are now.
    """
    action = record.decision.action
    if action == "keep" or followed(model, record.id) is not None:
        return "nothing"
    if action == "retrain" and settings.retraining.start:
        return "retrain"
    return "roll_back" if action == "roll_back" and settings.roll_back == "automatic" else "look"


def retraining(record: Record) -> Retraining:
    """The window of spans and the weights that the settings ask for: rolling, or growing."""
    wanted, last = record.settings["retraining"], record.evidence.span
    first, count = wanted["first"], wanted["spans"]
    spans: dict[str, Any] | None = None
    if record.has_spans and record.evidence.joined:  # Labels' spans are not the training data's.
        spans = {"count": count or _ALL, "start": first}
    elif record.has_spans:
        spans = {"count": count or last - first + 1, "start": first, "last": last}
    return Retraining(
        spans=spans, warm_start=record.evidence.champion if wanted["warm_start"] else None
    )


def settle(model: str) -> None:
    """Notes the outcome of retrainings that were killed after their version was filed.

    It is read from the registry: a version belongs to the newest evaluation before it that asked
    for its window of spans. So it does not matter who saw it filed, or who promotes it.

    Args:
      model: `registry/<model>`.
    """
    asked = {
        record.id: record
        for record in read_all(model)
        if record.decision.action == "retrain" and followed(model, record.id) is None
    }
    versions = {
        ids[-1]: manifest["version"]
        for manifest in (_manifests(model) if asked else ())
        if (ids := [name for name, record in asked.items() if _is_of(manifest, record)])
    }
    for name, version in versions.items():
        note_version(model, asked[name], version)


def note_version(model: str, record: Record, version: int | None) -> None:
    """Notes what a retraining came to: its version, or None where none was filed."""
    what = "retrained; the new model was not blessed, and no version was filed"
    if version is not None:
        titles = {store.CHAMPION: ", now champion", store.CANDIDATE: ", a candidate"}
        held = [name for name, number in store.read_labels(model).items() if number == version]
        now = next((title for name, title in titles.items() if name in held), "")
        what = f"retrained: version {version}{now}"
    note(model, record, what, version=version)


def _manifests(model: str) -> Iterator[store.Manifest]:
    for version in store.list_versions(model):
        try:
            yield store.read_manifest(model, version)
        except PipelineStop as stop:
            logging.warning("passed over: %s", stop)


def _is_of(manifest: store.Manifest, record: Record) -> bool:
    """Whether a version was filed after an evaluation, and trained on the spans it asks for."""
    wanted, trained = retraining(record).spans, manifest.get("config", {}).get("data", {})
    spans = trained.get("spans") if isinstance(trained.get("spans"), dict) else None
    same = spans is None if wanted is None else wanted.items() <= (spans or {}).items()
    return bool(same and record.time <= manifest.get("time", ""))


def roll_back(model: str, record: Record) -> int:
    """Brings the champion before back and notes it; returns the version that is champion now.

    Where the champion is no longer the one that was judged, nobody rolls back once more: another
    attempt has done it, or a person.

    Raises:
      PipelineStop: There is no earlier champion, or it is damaged.
    """
    champion, what = store.read_labels(model)[store.CHAMPION], "version {} was champion already"
    if champion == record.evidence.champion:
        mover = labels.Mover(f"continued evaluation {record.id}", record.decision.reasons[0].text)
        champion, what = labels.rollback(model, mover)[store.CHAMPION], "rolled back to version {}"
    note(model, record, what.format(champion), version=champion)
    return champion
