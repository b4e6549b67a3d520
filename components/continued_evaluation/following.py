"""What follows from a decision, once: a retraining, or the champion before."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from components.continued_evaluation import history
from components.continued_evaluation.evidence import Record
from components.continued_evaluation.settings import ContinuedEvaluation
from components.errors import PipelineStop
from components.registry import labels, store

_ALL = 1_000_000
"""A growing window where the last span is not known."""

Due = Literal["nothing", "retrain", "roll_back", "look"]


class Retraining(Record):
    """What a retraining is trained on.

    Attributes:
      spans: As in the setting `data.spans`; None where the data has no spans.
      warm_start: The version whose weights it starts from, if any.
    """

    spans: dict[str, Any] | None
    warm_start: int | None


def due(model: str, record: history.Record, settings: ContinuedEvaluation) -> Due:
    """What is still to be done about a decision; `look`: a person has to.

    Args:
      model: `registry/<model>`.
      record: The decision.
      settings: As they are now.
    """
    action = record.decision.action
    if action == "keep" or history.followed(model, record.id) is not None:
        return "nothing"
    if action == "retrain" and settings.retraining.start:
        return "retrain"
    if action == "roll_back" and settings.roll_back == "automatic":
        return "roll_back"
    return "look"


def retraining(record: history.Record) -> Retraining:
    """The window of spans and the weights that the settings ask for: rolling, or growing."""
    wanted, last = record.settings["retraining"], record.evidence.span
    spans = None
    if record.has_spans:
        count = wanted["spans"] or last - wanted["first"] + 1
        spans = {"count": count, "start": wanted["first"], "last": last}
        if record.evidence.joined:  # Spans of labels are not those of the training data.
            spans = {"count": wanted["spans"] or _ALL, "start": wanted["first"]}
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
    waiting = [
        record
        for record in history.read_all(model)
        if record.decision.action == "retrain" and history.followed(model, record.id) is None
    ]
    if not waiting:
        return
    manifests = list(_manifests(model))
    for record in waiting:
        filed = [one for one in manifests if _newest_asker(one, waiting) == record]
        if filed:
            note_version(model, record, max(one["version"] for one in filed))


def note_version(model: str, record: history.Record, version: int | None) -> None:
    """Notes what a retraining came to: its version, or None where none was filed."""
    if version is None:
        note(model, record, "retrained; the new model was not blessed, and no version was filed")
        return
    held = [name for name, number in store.read_labels(model).items() if number == version]
    now = ", now champion" if store.CHAMPION in held else ""
    now = ", a candidate" if store.CANDIDATE in held else now
    note(model, record, f"retrained: version {version}{now}", version=version)


def _manifests(model: str) -> Iterator[store.Manifest]:
    for version in store.list_versions(model):
        try:
            yield store.read_manifest(model, version)
        except PipelineStop as stop:
            logging.warning("passed over: %s", stop)


def _newest_asker(
    manifest: store.Manifest, records: Sequence[history.Record]
) -> history.Record | None:
    """The last evaluation before a version was filed that asked for what it was trained on."""
    askers = [
        record
        for record in records
        if record.time <= manifest.get("time", "") and _is_of(manifest, retraining(record))
    ]
    return max(askers, key=lambda record: record.number, default=None)


def _is_of(manifest: store.Manifest, wanted: Retraining) -> bool:
    """Whether a version was trained on the spans that a retraining asks for."""
    trained = manifest.get("config", {}).get("data", {}).get("spans")
    if wanted.spans is None:
        return not isinstance(trained, dict)
    return isinstance(trained, dict) and wanted.spans.items() <= trained.items()


def roll_back(model: str, record: history.Record) -> int:
    """Brings the champion before back and notes it; returns the version that is champion now.

    Where the champion is no longer the one that was judged, nobody rolls back once more: another
    attempt has done it, or a person.

    Raises:
      PipelineStop: There is no earlier champion, or it is damaged.
    """
    judged, champion = record.evidence.champion, store.read_labels(model)[store.CHAMPION]
    what = "version {} was champion already"
    if champion == judged:
        mover = labels.Mover(f"continued evaluation {record.id}", record.decision.reasons[0].text)
        champion = labels.rollback(model, mover)[store.CHAMPION]
        what = "rolled back to version {}"
    note(model, record, what.format(champion), version=champion)
    return champion


def note(
    model: str,
    record: history.Record,
    what: str,
    version: int | None = None,
    run: str | None = None,
) -> None:
    """Says in the history what came of a decision: see `history.Followed`."""
    found = history.Followed(time=history.now(), what=what, version=version, run=run)
    history.follow(model, record.id, found)
