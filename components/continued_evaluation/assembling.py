"""From the artifacts of a continued evaluation to the evidence."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2
from tfx import types
from tfx.types import artifact_utils
from tfx.utils import io_utils

from components.continued_evaluation import answers as logged
from components.continued_evaluation import drift, history, rows
from components.continued_evaluation.evidence import (
    OVERALL,
    Age,
    Anomaly,
    Evidence,
    Metrics,
    Moved,
    Plain,
    Rows,
    Value,
)
from components.continued_evaluation.lookup import JUDGED_FILE, Judged
from components.continued_evaluation.settings import ContinuedEvaluation
from components.evaluation.results import METRICS_FILE
from components.evaluation.thresholds import BASELINE, CANDIDATE, GAIN, HEURISTIC, LOGGED
from components.registry import store

SPLIT = "test"
"""Ingest puts every row of a fresh span here."""

_MODELS = {
    CANDIDATE: "champion",
    BASELINE: "previous",
    HEURISTIC: "heuristic",
    LOGGED: "logged",
}
_ERROR = anomalies_pb2.AnomalyInfo.ERROR

Inputs = Mapping[str, list[types.Artifact]]


def assemble(
    inputs: Inputs, model: str, settings: ContinuedEvaluation, now: datetime
) -> tuple[Evidence, np.ndarray]:
    """Reads what the components before have written.

    Args:
      inputs: As `component.DecideSpec` names them.
      model: `registry/<model>`.
      settings: For how far a logged prediction may be off.
      now: For the champion's age, in UTC.

    Returns:
      The evidence, and the hashes of the span's rows, uint64 [rows].
    """
    examples = artifact_utils.get_single_instance(inputs["examples"])
    span = examples.get_int_custom_property("span")
    judged = read_judged(inputs)
    manifest = store.read_manifest(model, judged.champion)
    metrics, rows_by_slice = _metrics(inputs, judged)
    answers = None
    if joined := logged.read_joined(examples):
        logged.check_version(examples, judged.champion)
        if logged.can_be_recomputed(examples, manifest):
            tolerance = settings.prediction_skew.tolerance
            answers = logged.answers(examples, SPLIT, inputs["champion"][0], tolerance)
        else:  # All other models would be judged on rows with holes.
            metrics = {"logged": metrics["logged"]}
    hashes = rows.hashes(examples, SPLIT, _schema(inputs))
    past = history.read_all(model)
    moved, vanished = _moved(inputs, judged)
    never = _never_filled(inputs, model, judged)
    evidence = Evidence(
        span=span,
        rows=_rows(hashes, model, span, past),
        champion=judged.champion,
        previous=judged.previous,
        metrics=metrics,
        rows_by_slice=rows_by_slice,
        promoted=_promoted(manifest),
        promoted_rows=manifest["rows_by_slice"],
        heuristic_before=_heuristic_before(model, judged),
        moved=moved,
        anomalies=[*_anomalies(inputs), *(a for a in vanished if a.column not in never)],
        joined=joined,
        answers=answers,
        age=_age(manifest, None if joined else span, now),
        spans_since_retraining=_since_retraining(past, span),
    )
    return evidence, hashes


def read_judged(inputs: Inputs) -> Judged:
    """Who was judged."""
    uri = artifact_utils.get_single_uri(inputs["champion"])
    return Judged.model_validate_json(Path(uri, JUDGED_FILE).read_text())


def statistics(inputs: Inputs) -> bytes:
    """The span's statistics, serialised."""
    return Path(
        artifact_utils.get_split_uri(inputs["statistics"], SPLIT), "FeatureStats.pb"
    ).read_bytes()


def _schema(inputs: Inputs) -> schema_pb2.Schema:
    uri = artifact_utils.get_single_uri(inputs["schema"])
    return io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(uri))


def _metrics(inputs: Inputs, judged: Judged) -> tuple[dict[str, Metrics], dict[str, int]]:
    uri = artifact_utils.get_single_uri(inputs["evaluation"])
    found = json.loads(Path(uri, METRICS_FILE).read_text())
    metrics = {
        _MODELS[model]: _with_intervals(by_slice, found["intervals"].get(model, {}))
        for model, by_slice in found["metrics"].items()
    }
    if judged.previous is not None:
        metrics["over_previous"] = _with_intervals({}, found["intervals"].get(GAIN, {}))
    return metrics, found["rows"]


def _with_intervals(plain: Plain, intervals: dict[str, dict[str, list[Any]]]) -> Metrics:
    """Every value; with its interval where there is one."""
    found = {
        place: {name: Value(value=value) for name, value in values.items()}
        for place, values in plain.items()
    }
    for place, values in intervals.items():
        for name, (value, low, high) in values.items():
            found.setdefault(place, {})[name] = Value(value=value, low=low, high=high)
    return found


def _promoted(manifest: store.Manifest) -> dict[str, Plain]:
    """What the Evaluator found when the champion was a candidate."""
    metrics = manifest["metrics"]
    return {"champion": metrics[CANDIDATE], HEURISTIC: metrics.get(HEURISTIC, {})}


def _heuristic_before(model: str, judged: Judged) -> dict[str, Value]:
    if judged.before is None:
        return {}
    found = history.read(model, judged.before).evidence.metrics
    return found.get(HEURISTIC, {}).get(OVERALL, {})


def _moved(inputs: Inputs, judged: Judged) -> tuple[list[Moved], list[Anomaly]]:
    moved, vanished = drift.read(inputs["drift_from_training"][0], "training")
    if judged.before is not None:
        jumped, gone = drift.read(inputs["drift_from_before"][0], "before")
        moved, vanished = moved + jumped, vanished + gone
    if inputs.get("skew") and _is_served(inputs["served"][0]):
        skewed, gone = drift.read(inputs["skew"][0], "served")
        moved, vanished = moved + skewed, vanished + gone
    return moved, vanished


def _never_filled(inputs: Inputs, model: str, judged: Judged) -> set[str]:
    """Columns as empty in the span as they were when the champion was trained: no news."""
    version = Path(store.version_folder(model, judged.champion))
    training = (version / store.EXTRA / "statistics" / "FeatureStats.pb").read_bytes()
    return drift.empty_columns(statistics(inputs)) & drift.empty_columns(training)


def _is_served(examples: types.Artifact) -> bool:
    return bool(examples.get_int_custom_property("rows_served"))


def _anomalies(inputs: Inputs) -> Iterator[Anomaly]:
    """Errors of TFDV's validation against the schema; the log has no columns but the model's."""
    is_logged = logged.is_logged(artifact_utils.get_single_instance(inputs["examples"]))
    folder = artifact_utils.get_split_uri(inputs["anomalies"], SPLIT)
    found = anomalies_pb2.Anomalies()
    found.ParseFromString(Path(folder, "SchemaDiff.pb").read_bytes())
    whole = [("", found.dataset_anomaly_info)] if found.HasField("dataset_anomaly_info") else []
    for column, info in [*sorted(found.anomaly_info.items()), *whole]:
        if info.severity == _ERROR:
            for reason in info.reason:
                kind = anomalies_pb2.AnomalyInfo.Type.Name(reason.type)
                if is_logged and kind == "SCHEMA_MISSING_COLUMN":
                    continue
                what = reason.description.strip() or reason.short_description
                yield Anomaly(column="".join(info.path.step) or column, kind=kind, what=what)


def _rows(hashes: np.ndarray, model: str, span: int, past: list[history.Record]) -> Rows:
    earlier = {record.evidence.span: record.id for record in past if record.evidence.span != span}
    paths = (history.path_of(model, name, history.HASHES) for name in earlier.values())
    known = (np.load(path, mmap_mode="r") for path in paths)
    repeated, seen_before = rows.shares(hashes, known)
    return Rows(total=len(hashes), repeated=repeated, seen_before=seen_before)


def _age(manifest: store.Manifest, span: int | None, now: datetime) -> Age:
    """Without a span in days only: the spans of labels are not those of training data."""
    trained = [number for data in manifest["data"] for number in json.loads(data["spans"])]
    made = datetime.fromisoformat(manifest["time"]).astimezone(UTC)
    spans = None if span is None else max(span - max(trained), 0)
    return Age(spans=spans, days=(now - made).total_seconds() / 86400)


def _since_retraining(past: list[history.Record], span: int) -> int | None:
    """Evaluated spans since the last decision to retrain, this one included."""
    due = [r.evidence.span for r in past if r.decision.action == "retrain"]
    due = [number for number in due if number < span]
    if not due:
        return None
    return 1 + len({r.evidence.span for r in past if max(due) < r.evidence.span < span})
