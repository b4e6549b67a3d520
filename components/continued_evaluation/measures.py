"""What is measured of a span: how far it has moved, which rows are no news, what is answered now.

Distributions are compared by TFX's DistributionValidator. TFDV's L-infinity norm is the largest
difference of a value's share; on numbers it reads zero without a word, so those have the
Jensen-Shannon divergence.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf
from tensorflow_metadata.proto.v0 import anomalies_pb2, path_pb2, schema_pb2, statistics_pb2
from tfx import types
from tfx.proto import distribution_validator_pb2 as messages
from tfx.types import artifact_utils
from tfx.utils import path_utils
from tfx_bsl.coders import example_coder

from components.continued_evaluation.evidence import Anomaly, Answers, Moved
from components.continued_evaluation.settings import Drift
from components.evaluation.arrays import row_hashes

SKETCH = 100_000
"""So many hashes of a span are kept: 800 kB."""
_BATCH = 4096
_MEASURES = {
    "L_INFTY": "infinity_norm",
    "JENSEN_SHANNON_DIVERGENCE": "jensen_shannon_divergence",
}
_WORDS = {
    "training": "the champion's training",
    "before": "the span before",
    "served": "what is served",
}


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


def drift_found(
    artifact: types.Artifact, against: Literal["training", "before", "served"]
) -> tuple[list[Moved], list[Anomaly]]:
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
