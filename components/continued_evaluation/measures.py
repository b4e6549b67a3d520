"""The evidence about a span: how far it has moved, which rows are no news, what is answered now.

TFDV compares distributions. Its L-infinity norm is the largest difference of a value's share; on
numbers it reads zero without a word, so those have the Jensen-Shannon divergence.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx import types
from tfx.types import artifact_utils
from tfx.utils import path_utils

from components.continued_evaluation import evidence as ev
from components.continued_evaluation import history, logged
from components.continued_evaluation.settings import ContinuedEvaluation, Drift
from components.errors import PipelineStop
from components.evaluation.arrays import row_hashes
from components.evaluation.results import METRICS_FILE
from components.evaluation.thresholds import BASELINE, CANDIDATE, GAIN, HEURISTIC, LOGGED
from components.ingest.examples import decoded, lists_of
from components.registry import store
from components.registry.signature import types_in

SKETCH = 100_000
"""So many hashes of a span are kept: 800 kB."""
JUDGED_FILE = "judged.json"
STATISTICS_FILE = "FeatureStats.pb"
TRAINING_FILE = f"{store.EXTRA}/statistics/{STATISTICS_FILE}"
"""Where a version has the statistics of its training rows."""
_BATCH = 4096
_MEASURES: dict[str, ev.Measure] = {
    **dict.fromkeys(("INT", "FLOAT"), "jensen_shannon_divergence"),
    "BYTES": "infinity_norm",
}
_INTERVAL = ("value", "low", "high")
_WORDS: dict[ev.Against, str] = {
    "training": "the champion's training",
    "before": "the span before",
    "served": "what is served",
}
_MODELS = {CANDIDATE: "champion", BASELINE: "previous", HEURISTIC: "heuristic", LOGGED: "logged"}
Given = Mapping[str, types.Artifact]
"""Inputs of `Decide`; `served` is there where predictions are logged."""
Columns = Mapping[ev.Against, Mapping[str, str]]
"""The columns that are compared, with the schema's types."""
Statistics = statistics_pb2.DatasetFeatureStatisticsList


def evidence(
    model: str, given: Given, settings: ContinuedEvaluation, columns: Columns
) -> tuple[ev.Evidence, np.ndarray]:
    """The evidence about a span, and the hashes of its rows, uint64 [rows], sorted.

    Raises:
      PipelineStop: Another version became champion meanwhile.
    """
    examples, champion = given["examples"], given["champion"]
    judged = ev.Judged.model_validate_json(Path(champion.uri, JUDGED_FILE).read_text())
    measured = json.loads(Path(given["evaluation"].uri, METRICS_FILE).read_text())
    manifest, past = store.read_manifest(model, judged.champion), history.read_all(model)
    number = examples.get_int_custom_property("span")
    metrics, joined, answered = _metrics(measured["intervals"], judged), None, None
    if is_logged := examples.has_custom_property(logged.JUDGED_VERSION):
        version = examples.get_int_custom_property(logged.JUDGED_VERSION)
        if version != judged.champion:  # Another process moved it between two components.
            raise PipelineStop(
                f"The predictions are version {version}'s, and by now the champion is "
                f"{judged.champion}. Run again."
            )
        file = Path(examples.uri, logged.JOINED_FILE)
        joined = ev.Joined.model_validate_json(file.read_text())
        there = json.loads(examples.get_string_custom_property(logged.LOGGED_COLUMNS))
        if {*manifest["signature"]["inputs"]} <= {*there}:
            answered = answers(examples, champion, settings.prediction_skew.tolerance)
        else:  # All other models would be judged on rows with holes.
            metrics = {"logged": metrics["logged"]}
    before = judged.before and history.read(model, judged.before).evidence.metrics
    own = hashes(examples, types_in(given["schema"].uri))
    moved, vanished = _moved(model, judged, given, settings, columns)
    found = ev.Evidence(
        span=number,
        rows=_rows(model, own, [record for record in past if record.evidence.span != number]),
        champion=judged.champion,
        previous=judged.previous,
        metrics=metrics,
        rows_by_slice=measured["rows"],
        promoted={
            "champion": manifest["metrics"][CANDIDATE],
            HEURISTIC: manifest["metrics"].get(HEURISTIC, {}),
        },
        promoted_rows=manifest["rows_by_slice"],
        heuristic_before=(before or {}).get(HEURISTIC, {}).get(ev.OVERALL, {}),
        moved=moved,
        anomalies=[*_errors(given["anomalies"], is_logged), *vanished],
        joined=joined,
        answers=answered,
        age=_age(manifest, None if is_logged else number),
        spans_since_retraining=_since_retraining(number, past),
    )
    return found, own


def _metrics(intervals: Mapping[str, Mapping[str, Any]], judged: ev.Judged) -> dict[str, Any]:
    """Values with their intervals by model, slice and metric; and the gain over the previous."""
    names = _MODELS | ({GAIN: "over_previous"} if judged.previous is not None else {})
    return {
        names[model]: {
            place: {name: dict(zip(_INTERVAL, v, strict=True)) for name, v in values.items()}
            for place, values in by_slice.items()
        }
        for model, by_slice in intervals.items()
        if model in names
    }


def _moved(
    model: str, judged: ev.Judged, given: Given, settings: ContinuedEvaluation, columns: Columns
) -> tuple[list[ev.Moved], list[ev.Anomaly]]:
    """How far columns have moved, and those that cannot be compared any longer."""
    span = Statistics.FromString(split_file(given["statistics"], STATISTICS_FILE))
    version = store.version_folder(model, judged.champion)
    training = Statistics.FromString(Path(version, TRAINING_FILE).read_bytes())
    pairs: dict[ev.Against, Any] = {"training": (span, training, settings.drift_from_training)}
    if judged.before is not None:
        before = history.path_of(model, judged.before, history.STATISTICS).read_bytes()
        pairs["before"] = (span, Statistics.FromString(before), settings.drift_from_before)
    if "served" in given:
        file = split_file(given["served"], STATISTICS_FILE, logged.SERVED)
        if (served := Statistics.FromString(file)).datasets[0].num_examples:
            pairs["served"] = (served, training, settings.skew)
    never = empty_columns(span) & empty_columns(training)
    moved: list[ev.Moved] = []
    vanished: list[ev.Anomaly] = []
    for against, (now, then, drift) in pairs.items():
        found, gone = distances(now, then, drift, columns[against], against)
        moved += found
        text = f"there is nothing in it to compare with {_WORDS[against]}"
        vanished += [
            ev.Anomaly(column=column, kind="not_comparable", what=text) for column in gone - never
        ]
    return moved, sorted(vanished, key=lambda anomaly: anomaly.column)


def distances(
    now: Any, then: Any, drift: Drift, columns: Mapping[str, str], against: ev.Against
) -> tuple[list[ev.Moved], set[str]]:
    """How far columns are from what they were, and the columns that cannot be compared.

    Args:
      now: `Statistics`.
      then: `Statistics`.
      drift: The limits.
      columns: Each column's type: INT, FLOAT or BYTES.
      against: What `then` is.
    """
    schema, compared = tfdv.infer_schema(then), {*columns} - {*drift.ignore}
    for feature in schema.feature:
        if (name := feature.name) in compared:
            usual = drift.categories if columns[name] == "BYTES" else drift.numbers
            comparator = getattr(feature.drift_comparator, _MEASURES[columns[name]])
            comparator.threshold = drift.columns.get(name, usual)
    found = tfdv.validate_statistics(now, schema, previous_statistics=then)
    moved = [
        ev.Moved(
            column=info.path.step[0],
            measure=_MEASURES[columns[info.path.step[0]]],
            against=against,
            value=measured.value,
            limit=measured.threshold,
        )
        for info in found.drift_skew_info
        for measured in info.drift_measurements
    ]
    return moved, compared - {one.column for one in moved}


def _errors(artifact: types.Artifact, is_logged: bool) -> Iterator[ev.Anomaly]:
    """Errors of TFDV's validation by the schema; the log has no columns but the model's."""
    found = anomalies_pb2.Anomalies.FromString(split_file(artifact, "SchemaDiff.pb"))
    for column, info in [*sorted(found.anomaly_info.items()), ("", found.dataset_anomaly_info)]:
        for reason in info.reason if info.severity == info.ERROR else ():
            kind = anomalies_pb2.AnomalyInfo.Type.Name(reason.type)
            if not (is_logged and kind == "SCHEMA_MISSING_COLUMN"):
                what = reason.description.strip() or reason.short_description
                yield ev.Anomaly(column="".join(info.path.step) or column, kind=kind, what=what)


def _rows(model: str, own: np.ndarray, past: Iterable[history.Record]) -> ev.Rows:
    spans = {record.evidence.span: record.id for record in past}
    paths = (history.path_of(model, name, history.HASHES) for name in spans.values())
    repeated, seen_before = shares(own, (np.load(path, mmap_mode="r") for path in paths))
    return ev.Rows(total=len(own), repeated=repeated, seen_before=seen_before)


def _age(manifest: store.Manifest, span: int | None) -> ev.Age:
    """In spans only where the spans are of data: not those of labels."""
    trained = [number for data in manifest["data"] for number in json.loads(data["spans"])]
    made = datetime.fromisoformat(manifest["time"]).astimezone(UTC)
    spans = None if span is None else max(span - max(trained), 0)
    return ev.Age(spans=spans, days=(datetime.now(UTC) - made).total_seconds() / 86400)


def _since_retraining(number: int, past: Iterable[history.Record]) -> int | None:
    """Evaluated spans since the last decision to retrain, this one included."""
    earlier = {(r.evidence.span, r.decision.action) for r in past if r.evidence.span < number}
    due = max((span for span, action in earlier if action == "retrain"), default=None)
    return None if due is None else 1 + len({span for span, _ in earlier if span > due})


def split_file(artifact: types.Artifact, name: str, split: str = logged.SPLIT) -> bytes:
    """A file of a split of an artifact."""
    return Path(artifact_utils.get_split_uri([artifact], split), name).read_bytes()


def empty_columns(statistics: Any) -> set[str]:
    """The columns that have no value in any row, by their `Statistics`."""
    return {
        column.path.step[0]
        for column in statistics.datasets[0].features
        if not getattr(column, column.WhichOneof("stats")).common_stats.num_non_missing
    }


def _batches(examples: types.Artifact) -> Iterator[np.ndarray]:
    """Yields serialised tf.Examples of the span, [at most _BATCH]."""
    shards = sorted(Path(artifact_utils.get_split_uri([examples], logged.SPLIT)).glob("*"))
    records = tf.data.TFRecordDataset([*map(str, shards)], "GZIP")
    yield from records.batch(_BATCH).as_numpy_iterator()


def hashes(examples: types.Artifact, kinds: Mapping[str, str]) -> np.ndarray:
    """FarmHash of each row's values in the schema's columns, uint64 [rows], sorted."""
    columns = lists_of(kinds)
    found = [row_hashes([decoded(batch, columns)]) for batch in _batches(examples)]
    return np.sort(np.concatenate([np.zeros(0, np.uint64), *found]))


def sketch(hashes: np.ndarray) -> np.ndarray:
    """The `SKETCH` smallest different hashes, uint64 [at most SKETCH], sorted: what is kept.

    Hashes are spread evenly, so the smallest are a sample of the rows, and the same rows are drawn
    from every span that has them. A span with no more different rows is kept whole.

    Args:
      hashes: uint64 [rows], of a span's rows.
    """
    return np.unique(hashes)[:SKETCH]


def shares(own: np.ndarray, earlier: Iterable[np.ndarray]) -> tuple[float, float]:
    """Which share of the rows is a repetition within the span, and which is in an earlier one.

    The second is exact where the earlier spans are kept whole. Of a larger span only rows below
    its largest kept hash can be recognised: a sample of both. From the most completely kept span
    to the least, each says which share of the rows left over it has (a product-limit estimate);
    with 100,000 rows in view the share is right to 0.3 %.

    Args:
      own: uint64 [rows], sorted.
      earlier: The `sketch` of each earlier span.
    """
    if not len(own):
        return 0.0, 0.0
    fresh = 1.0
    unknown: np.ndarray = np.ones(len(own), bool)
    for kept in sorted(earlier, key=_reach, reverse=True):
        in_view = int(np.searchsorted(own, _reach(kept), "right"))
        left = unknown[:in_view]
        known = left & np.isin(own[:in_view], kept)
        fresh *= 1 - known.sum() / max(left.sum(), 1)
        unknown[:in_view] &= ~known
    return 1 - len(np.unique(own)) / len(own), float(1 - fresh)


def _reach(kept: np.ndarray) -> np.uint64:
    """Up to which hash a span's rows are kept."""
    return np.uint64(kept[-1] if len(kept) >= SKETCH else np.iinfo(np.uint64).max)


def answers(examples: types.Artifact, champion: types.Artifact, tolerance: float) -> ev.Answers:
    """Compares the logged predictions in examples with those of the same SavedModel now."""
    from components.evaluation.extractors import Served, logged_predictions

    model = Served(path_utils.serving_model_path(champion.uri))
    pairs = [
        (logged_predictions(rows), model.call("serving_default", rows))
        for rows in _batches(examples)
    ]
    before, now = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return compare(before, now, tolerance)


def compare(logged: np.ndarray, recomputed: np.ndarray, tolerance: float) -> ev.Answers:
    """How far logged predictions are from those of the same rows now.

    A value may be off by the tolerance, and by the tolerance times its size where that is above 1,
    as float32 is no more exact. NaN equals NaN, infinity itself; any other value is different from
    them.

    Args:
      logged: float32 [N, C].
      recomputed: float32 [N, C].
      tolerance: Of one value.
    """
    if logged.shape != recomputed.shape:
        raise ValueError(f"{logged.shape} predictions are logged, {recomputed.shape} recomputed")
    before: np.ndarray = logged.astype(np.float64)
    now: np.ndarray = recomputed.astype(np.float64)
    with np.errstate(invalid="ignore"):
        off = np.abs(before - now)
    finite = np.isfinite(off)
    near = off <= tolerance * np.maximum(1.0, np.abs(now))
    same = np.where(finite, near, (before == now) | (np.isnan(before) & np.isnan(now)))
    share = float((~same).any(axis=1).mean()) if len(logged) else 0.0
    largest = float(off.max(initial=0.0, where=finite))
    return ev.Answers(rows=len(logged), different=share, largest=largest)
