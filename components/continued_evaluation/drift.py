"""How far distributions have moved: the settings for TFX's DistributionValidator, and its answer.

TFDV's L-infinity norm is the largest difference of a value's share; on numbers it reads zero
without a word, so those have the Jensen-Shannon divergence.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Literal

from tensorflow_metadata.proto.v0 import anomalies_pb2, path_pb2, statistics_pb2
from tfx import types
from tfx.proto import distribution_validator_pb2 as messages

from components.continued_evaluation.evidence import Anomaly, Moved
from components.continued_evaluation.settings import Drift

Against = Literal["training", "before", "served"]

_INFINITY, _DIVERGENCE = "infinity_norm", "jensen_shannon_divergence"
_MEASURES = {"L_INFTY": _INFINITY, "JENSEN_SHANNON_DIVERGENCE": _DIVERGENCE}
_NOT_COMPARABLE = anomalies_pb2.AnomalyInfo.STATS_NOT_AVAILABLE


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
        if column in drift.ignore:
            continue
        feature = config.default_slice_config.feature.add(path=path_pb2.Path(step=[column]))
        measure = _INFINITY if kind == "BYTES" else _DIVERGENCE
        usual = drift.categories if kind == "BYTES" else drift.numbers
        limit = drift.columns.get(column, usual)
        getattr(feature.distribution_comparator, measure).threshold = limit
    return config


def empty_columns(statistics: bytes) -> set[str]:
    """The columns that have no value in any row of a split, by its serialised statistics."""
    found = statistics_pb2.DatasetFeatureStatisticsList.FromString(statistics)
    return {
        column.path.step[0]
        for dataset in found.datasets
        for column in dataset.features
        if not getattr(column, column.WhichOneof("stats")).common_stats.num_non_missing
    }


def read(artifact: types.Artifact, against: Against) -> tuple[list[Moved], list[Anomaly]]:
    """What a DistributionValidator found: measures, and columns it could not compare.

    Args:
      artifact: ExampleAnomalies with one pair of splits.
      against: What the span was compared with.
    """
    found = anomalies_pb2.Anomalies()
    (pair,) = (name for name in os.listdir(artifact.uri) if name.startswith("SplitPair-"))
    with open(os.path.join(artifact.uri, pair, "SchemaDiff.pb"), "rb") as file:
        found.ParseFromString(file.read())
    return list(_moved(found, against)), list(_vanished(found, against))


def _moved(found: anomalies_pb2.Anomalies, against: Against) -> Iterator[Moved]:
    for info in found.drift_skew_info:
        for measured in info.drift_measurements:
            name = anomalies_pb2.DriftSkewInfo.Measurement.Type.Name(measured.type)
            yield Moved(
                column=info.path.step[0],
                measure=_MEASURES[name],
                against=against,
                value=measured.value,
                limit=measured.threshold,
            )


def _vanished(found: anomalies_pb2.Anomalies, against: Against) -> Iterator[Anomaly]:
    for info in found.anomaly_info.values():
        if any(reason.type == _NOT_COMPARABLE for reason in info.reason):
            text = f"there is nothing in it to compare with {_WORDS[against]}"
            yield Anomaly(column=info.path.step[0], kind="not_comparable", what=text)


_WORDS = {
    "training": "the champion's training",
    "before": "the span before",
    "served": "what is served",
}
