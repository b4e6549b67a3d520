"""TFMA's EvalConfig, made from the feature table and the evaluation's settings."""

import json
from collections.abc import Iterator

from pydantic import PositiveInt
from tensorflow_model_analysis.proto import config_pb2

from components.evaluation import metrics
from components.evaluation.thresholds import (
    BASELINE,
    CANDIDATE,
    HEURISTIC,
    LOGGED,
    METRICS,
    ROWS,
    Threshold,
)
from components.features.table import FeatureTable
from components.settings import Strict

LABEL_INDEX = "label_index"
"""The signature that turns the label into its class index, where the table names classes."""


class Judgement(Strict):
    """What the Evaluator needs to know beside the feature table."""

    min_slice_size: PositiveInt
    thresholds: list[Threshold]
    intervals: bool = False
    """Whether metrics come with confidence intervals (95 %): TFMA's jackknife over 20 parts."""
    logged: bool = False
    """Whether the examples have the candidate's logged predictions, to be judged as well."""


def eval_config(table: FeatureTable, judgement: Judgement, baseline: str) -> config_pb2.EvalConfig:
    """The configuration for a candidate against a baseline of kind 'champion' or 'heuristic'.

    A champion has the heuristic beside it, a third model without a ModelSpec (TFX's Evaluator
    allows two): `components.evaluation.extractors` finds it in the baseline artifact.
    """
    judged = config_pb2.MetricsSpec(
        model_names=[CANDIDATE, BASELINE], metrics=[_metrics(table)], per_slice_thresholds={}
    )
    for name, threshold in _thresholds(judgement, baseline):
        judged.per_slice_thresholds[name].thresholds.append(threshold)
    beside = [HEURISTIC] if baseline == "champion" else []
    beside += [LOGGED] if judgement.logged else []
    shown = [config_pb2.MetricsSpec(model_names=[m], metrics=[_metrics(table)]) for m in beside]
    slices = [config_pb2.SlicingSpec(feature_keys=c) for c in _slices(table, judgement)]
    options = config_pb2.Options(
        include_default_metrics={"value": False},
        min_slice_size={"value": judgement.min_slice_size},
        compute_confidence_intervals={"value": judgement.intervals},
        confidence_intervals={"method": config_pb2.ConfidenceIntervalOptions.JACKKNIFE},
    )
    return config_pb2.EvalConfig(
        model_specs=[_model(table, CANDIDATE), _model(table, BASELINE)],
        slicing_specs=slices,
        metrics_specs=[judged, *shown],
        options=options,
    )


def _model(table: FeatureTable, name: str) -> config_pb2.ModelSpec:
    indexed = bool(table.label.classes)
    return config_pb2.ModelSpec(
        name=name,
        is_baseline=name == BASELINE,
        model_type="tf_generic",
        signature_name="serving_default",
        label_key=LABEL_INDEX if indexed else table.label.column,
        preprocessing_function_names=[LABEL_INDEX] if indexed else [],
    )


def _metrics(table: FeatureTable) -> config_pb2.MetricConfig:
    return config_pb2.MetricConfig(
        class_name=metrics.ProblemMetrics.__name__,
        module=metrics.__name__,
        config=json.dumps({"problem": table.problem}),
    )


def _slices(table: FeatureTable, judgement: Judgement) -> list[list[str]]:
    """All rows, the table's slices, and any other that a threshold names; each once."""
    named = [[], *table.slices, *(limit.slices or [] for limit in judgement.thresholds)]
    return [list(columns) for columns in dict.fromkeys(tuple(sorted(c)) for c in named)]


def _thresholds(
    judgement: Judgement, baseline: str
) -> Iterator[tuple[str, config_pb2.PerSliceMetricThreshold]]:
    """Yields (metric, threshold); first one that always holds, so that there is a verdict."""
    some_rows = Threshold(metric=ROWS, at_least=1)
    for limit in (some_rows, *judgement.thresholds):
        if threshold := metric_threshold(limit, baseline):
            spec = config_pb2.SlicingSpec(feature_keys=limit.slices or [])
            yield (
                limit.metric,
                config_pb2.PerSliceMetricThreshold(slicing_specs=[spec], threshold=threshold),
            )


def metric_threshold(limit: Threshold, baseline: str) -> config_pb2.MetricThreshold | None:
    """TFMA's threshold for a limit, or None if it says nothing about this kind of baseline."""
    threshold = config_pb2.MetricThreshold()
    for bound, value in (("lower_bound", limit.at_least), ("upper_bound", limit.at_most)):
        if value is not None:
            getattr(threshold.value_threshold, bound).value = value
    margin = limit.over_champion if baseline == "champion" else limit.over_heuristic
    if margin is not None:
        higher = METRICS[limit.metric].higher_is_better
        directions = config_pb2.MetricDirection
        threshold.change_threshold.direction = (
            directions.HIGHER_IS_BETTER if higher else directions.LOWER_IS_BETTER
        )
        threshold.change_threshold.absolute.value = margin if higher else -margin
    return threshold if threshold.ByteSize() else None
