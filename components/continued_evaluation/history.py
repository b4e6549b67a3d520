"""Every evaluation of a model's versions, and what came of it: append-only, in the registry.

`registry/<model>/evaluations/<id>/` holds `evaluation.json` (a `Record`), the span's
statistics and its rows' hashes. It appears by one rename, whole, and never changes; what came of a
decision is in a file of its own beside it, `followed.json`. The id is made from what was
evaluated, so the same evaluation, run again, is the one that is there.

What a decision asks for is done once: `due` says what that is, and `note` that it was done.
"""

import hashlib
import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any, Literal

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
_EPOCH = date(1970, 1, 1).toordinal()
_ALL = 1_000_000
"""A growing window where the last span is not known."""

Due = Literal["nothing", "retrain", "roll_back", "look"]


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
      followed: What came of it, when it was read.
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
    followed: Followed | None = None

    @property
    def span_name(self) -> str:
        """The span as the data's pattern has it: its number or date; else the evaluation's day.

        Source: TFX counts the days since 1970-01-01 where the pattern has {YYYY}, {MM} and {DD}.
        """
        if not self.has_spans:
            return self.time[:10]
        if "{YYYY}" in self.source:
            return date.fromordinal(_EPOCH + self.evidence.span).isoformat()
        return str(self.evidence.span)

    @property
    def outcome(self) -> str:
        """What came of the decision, in words."""
        if self.followed is not None:
            return self.followed.what
        return "nothing to do" if self.decision.action == "keep" else "nothing yet"

    def as_json(self) -> str:
        """What a file says of it; what came of it is in one of its own."""
        return self.model_dump_json(indent=1, exclude={"followed"})


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
            Path(made, EVALUATION_FILE).write_text(record.as_json())
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
    """One evaluation, and what came of it.

    Raises:
      PipelineStop: It is damaged.
    """
    record: Record = _parsed(Record, path_of(model, evaluation, EVALUATION_FILE))
    return record.model_copy(update={"followed": followed(model, evaluation)})


def _parsed(kind: type[Filed], path: Path) -> Any:
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


def retraining(record: Record) -> dict[str, Any]:
    """What a retraining is trained on, as the settings ask for.

    Returns:
      `spans`, a rolling or growing window as in the setting `data.spans`, or None where the data
      has no spans; and `warm_start`, the version whose weights it starts from, or None.
    """
    wanted, last = record.settings["retraining"], record.evidence.span
    first, is_late = wanted["first"], record.evidence.joined is not None
    spans = {"count": wanted["spans"] or (_ALL if is_late else last - first + 1), "start": first}
    if not is_late:  # Labels' spans are not the training data's.
        spans["last"] = last
    start = record.evidence.champion if wanted["warm_start"] else None
    return {"spans": spans if record.has_spans else None, "warm_start": start}


def settle(model: str) -> None:
    """Notes the outcome of retrainings that were killed after their version was filed.

    It is read from the registry: a version belongs to the newest evaluation before it that asked
    for its window of spans. So it does not matter who saw it filed, or who promotes it.

    Args:
      model: `registry/<model>`.
    """
    asked = [one for one in read_all(model) if one.decision.action == "retrain"]
    waiting = [record for record in asked if record.followed is None]
    for manifest in reversed([*store.manifests(model)] if waiting else []):
        if own := [record for record in waiting if _is_of(manifest, record)]:
            version, held = manifest["version"], store.read_labels(model)
            roles = {store.CHAMPION: ", now champion", store.CANDIDATE: ", a candidate"}
            now = [text for label, text in roles.items() if held.get(label) == version]
            what = f"retrained: version {version}{''.join(now[:1])}"
            note(model, own[-1], what, version=version)


def _is_of(manifest: store.Manifest, record: Record) -> bool:
    """Whether a version was filed after an evaluation, and trained on the spans it asks for."""
    wanted, trained = retraining(record)["spans"], manifest.get("config", {}).get("data", {})
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
