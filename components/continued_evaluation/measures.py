"""The evidence about a span: how far it has moved, which rows are no news, what is answered now.

Distributions are compared by TFX's DistributionValidator. TFDV's L-infinity norm is the largest
difference of a value's share; on numbers it reads zero without a word, so those have the
Jensen-Shannon divergence.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from tensorflow_metadata.proto.v0 import anomalies_pb2, path_pb2, schema_pb2, statistics_pb2
from tfx import types
from tfx.proto import distribution_validator_pb2 as messages
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils
from tfx_bsl.coders import example_coder

from components.continued_evaluation import evidence as ev
from components.continued_evaluation import history, logged
from components.continued_evaluation.evidence import Anomaly, Answers, Judged, Moved
from components.continued_evaluation.settings import ContinuedEvaluation, Drift
from components.errors import PipelineStop
from components.evaluation.arrays import row_hashes
from components.evaluation.results import METRICS_FILE
from components.evaluation.thresholds import BASELINE, CANDIDATE, GAIN, HEURISTIC, LOGGED
from components.registry import store

SPLIT = logged.SPLIT
"""Ingest puts every row of a fresh span here."""
JUDGED_FILE = "judged.json"
SKETCH = 100_000
"""So many hashes of a span are kept: 800 kB."""
_BATCH = 4096
_MEASURES = {
    "L_INFTY": "infinity_norm",
    "JENSEN_SHANNON_DIVERGENCE": "jensen_shannon_divergence",
}
Against = Literal["training", "before", "served"]
_WORDS: dict[Against, str] = {
    "training": "the champion's training",
    "before": "the span before",
    "served": "what is served",
}


_MODELS = {CANDIDATE: "champion", BASELINE: "previous", HEURISTIC: "heuristic", LOGGED: "logged"}
Given = Mapping[str, types.Artifact]
"""What the components before have written about a span. `training`, `before` and `served` are what
has moved since; the last is there where something was served."""


def evidence(
    model: str, given: Given, settings: ContinuedEvaluation
) -> tuple[ev.Evidence, np.ndarray]:
    """The evidence about a span, and the hashes of its rows, uint64 [rows], sorted.

    Args:
      model: `registry/<model>`.
      given: See there.
      settings: For the tolerance of answers.

    Raises:
      PipelineStop: Another version became champion meanwhile.
    """
    examples, champion = given["examples"], given["champion"]
    judged = Judged.model_validate_json(Path(champion.uri, JUDGED_FILE).read_text())
    measured = json.loads(Path(given["evaluation"].uri, METRICS_FILE).read_text())
    manifest, past = store.read_manifest(model, judged.champion), history.read_all(model)
    number = examples.get_int_custom_property("span")
    metrics, joined, answered = _metrics(measured["intervals"], judged), None, None
    if is_logged := examples.has_custom_property(logged.JUDGED_VERSION):
        joined = _joined(examples, judged)
        columns = json.loads(examples.get_string_custom_property(logged.LOGGED_COLUMNS))
        if {*manifest["signature"]["inputs"]} <= {*columns}:
            answered = answers(examples, SPLIT, champion, settings.prediction_skew.tolerance)
        else:  # All other models would be judged on rows with holes.
            metrics = {"logged": metrics["logged"]}
    before = judged.before and history.read(model, judged.before).evidence.metrics
    schema = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(given["schema"].uri))
    own = hashes(examples, SPLIT, schema)
    moved, vanished = _moved(model, judged, given)
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


def _metrics(intervals: Mapping[str, Mapping[str, Any]], judged: Judged) -> dict[str, ev.Metrics]:
    """All values by model with their intervals, and the gain over the previous version."""
    names = _MODELS | ({GAIN: "over_previous"} if judged.previous is not None else {})
    return {
        names[model]: {
            place: {
                name: ev.Value(value=value, low=low, high=high)
                for name, (value, low, high) in values.items()
            }
            for place, values in by_slice.items()
        }
        for model, by_slice in intervals.items()
        if model in names
    }


def _joined(examples: types.Artifact, judged: Judged) -> ev.Joined:
    version = examples.get_int_custom_property(logged.JUDGED_VERSION)
    if version != judged.champion:  # Another process moved it between two components.
        raise PipelineStop(
            f"The predictions are version {version}'s, and by now the champion is "
            f"{judged.champion}. Run again."
        )
    return ev.Joined.model_validate_json(Path(examples.uri, logged.JOINED_FILE).read_text())


def _moved(model: str, judged: Judged, given: Given) -> tuple[list[Moved], list[Anomaly]]:
    """What has moved, and the columns that are newly empty."""
    compared = [
        drift_found(given[against], against)
        for against in _WORDS
        if against in given and (against != "before" or judged.before is not None)
    ]
    version = Path(store.version_folder(model, judged.champion))
    training = (version / store.EXTRA / "statistics" / "FeatureStats.pb").read_bytes()
    statistics = split_file(given["statistics"], "FeatureStats.pb")
    never = empty_columns(statistics) & empty_columns(training)
    return (
        [moved for moves, _ in compared for moved in moves],
        [gone for _, vanished in compared for gone in vanished if gone.column not in never],
    )


def _errors(artifact: types.Artifact, is_logged: bool) -> Iterator[Anomaly]:
    """Errors of TFDV's validation by the schema; the log has no columns but the model's."""
    found = anomalies_pb2.Anomalies.FromString(split_file(artifact, "SchemaDiff.pb"))
    for column, info in [*sorted(found.anomaly_info.items()), ("", found.dataset_anomaly_info)]:
        for reason in info.reason if info.severity == info.ERROR else ():
            kind = anomalies_pb2.AnomalyInfo.Type.Name(reason.type)
            if not (is_logged and kind == "SCHEMA_MISSING_COLUMN"):
                what = reason.description.strip() or reason.short_description
                yield Anomaly(column="".join(info.path.step) or column, kind=kind, what=what)


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


def split_file(artifact: types.Artifact, name: str) -> bytes:
    """A file of the span's split of an artifact."""
    return Path(artifact_utils.get_split_uri([artifact], SPLIT), name).read_bytes()


def validator_config(
    drift: Drift, columns: Mapping[str, str]
) -> messages.DistributionValidatorConfig:
    """What TFX's DistributionValidator is to compare.

    Args:
      drift: The limits.
      columns: Each column's type: INT, FLOAT or BYTES.
    """
    config = messages.DistributionValidatorConfig()
    for column, kind in sorted(columns.items()):
        if column not in drift.ignore:
            feature = config.default_slice_config.feature.add(path=path_pb2.Path(step=[column]))
            comparator = feature.distribution_comparator
            if kind == "BYTES":
                limit = drift.columns.get(column, drift.categories)
                comparator.infinity_norm.threshold = limit
            else:
                limit = drift.columns.get(column, drift.numbers)
                comparator.jensen_shannon_divergence.threshold = limit
    return config


def drift_found(artifact: types.Artifact, against: Against) -> tuple[list[Moved], list[Anomaly]]:
    """What a DistributionValidator found: measures, and columns it could not compare.

    Args:
      artifact: ExampleAnomalies with one pair of splits.
      against: What the span was compared with.
    """
    (path,) = Path(artifact.uri).glob("SplitPair-*/SchemaDiff.pb")
    found = anomalies_pb2.Anomalies.FromString(path.read_bytes())
    name_of = anomalies_pb2.DriftSkewInfo.Measurement.Type.Name
    moved = [
        Moved(
            column=info.path.step[0],
            measure=_MEASURES[name_of(measured.type)],
            against=against,
            value=measured.value,
            limit=measured.threshold,
        )
        for info in found.drift_skew_info
        for measured in info.drift_measurements
    ]
    text = f"there is nothing in it to compare with {_WORDS[against]}"
    vanished = [
        Anomaly(column=info.path.step[0], kind="not_comparable", what=text)
        for info in found.anomaly_info.values()
        if any(
            reason.type == anomalies_pb2.AnomalyInfo.STATS_NOT_AVAILABLE for reason in info.reason
        )
    ]
    return moved, vanished


def empty_columns(statistics: bytes) -> set[str]:
    """The columns that have no value in any row of a split, by its serialised statistics."""
    found = statistics_pb2.DatasetFeatureStatisticsList.FromString(statistics)
    return {
        column.path.step[0]
        for dataset in found.datasets
        for column in dataset.features
        if not getattr(column, column.WhichOneof("stats")).common_stats.num_non_missing
    }


def _batches(examples: types.Artifact, split: str) -> Iterator[np.ndarray]:
    """Yields serialised tf.Examples [at most _BATCH]."""
    shards = sorted(Path(artifact_utils.get_split_uri([examples], split)).glob("*"))
    records = tf.data.TFRecordDataset([*map(str, shards)], "GZIP")
    yield from records.batch(_BATCH).as_numpy_iterator()


def hashes(examples: types.Artifact, split: str, schema: schema_pb2.Schema) -> np.ndarray:
    """FarmHash of each row's values in the schema's columns, uint64 [rows], sorted."""
    decoder = example_coder.ExamplesToRecordBatchDecoder(schema.SerializeToString())
    found = [row_hashes([decoder.DecodeBatch(batch)]) for batch in _batches(examples, split)]
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


def answers(
    examples: types.Artifact, split: str, champion: types.Artifact, tolerance: float
) -> Answers:
    """Compares the logged predictions with those of the same SavedModel now.

    Args:
      examples: Of the prediction log.
      split: Of them.
      champion: The model that made them.
      tolerance: Of one value.
    """
    from components.evaluation.extractors import Served, logged_predictions

    model = Served(path_utils.serving_model_path(champion.uri))
    pairs = [
        (logged_predictions(rows), model.call("serving_default", rows))
        for rows in _batches(examples, split)
    ]
    before, now = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return compare(before, now, tolerance)


def compare(logged: np.ndarray, recomputed: np.ndarray, tolerance: float) -> Answers:
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
    finite = np.isfinite(before) & np.isfinite(now)
    with np.errstate(invalid="ignore"):
        off = np.where(finite, np.abs(before - now), 0.0)
    allowed = tolerance * np.maximum(1.0, np.abs(now))
    same = (before == now) | (np.isnan(before) & np.isnan(now))
    different = ~np.where(finite, off <= allowed, same).all(axis=1)
    share = float(different.mean()) if len(logged) else 0.0
    return Answers(rows=len(logged), different=share, largest=float(off.max(initial=0.0)))
