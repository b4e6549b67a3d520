"""TFMA's EvalConfig, made from the feature table and the evaluation's settings."""

import json
from typing import Any

from tensorflow_model_analysis.proto import config_pb2

from components.evaluation import curves, metrics
from components.evaluation.thresholds import (
    BASELINE,
    CANDIDATE,
    HEURISTIC,
    LOGGED,
    Judgement,
)
from components.features.table import FeatureTable

LABEL_INDEX = "label_index"
"""The signature that turns the label into its class index, where the table names classes."""


LABEL_SLICE = "label"
"""Multilabel: the slice of one class alone is called `label:CLASS`."""


def eval_config(table: FeatureTable, judgement: Judgement, baseline: str) -> config_pb2.EvalConfig:
    """The configuration for a candidate beside a baseline of kind 'champion' or 'heuristic'.

    It measures; `components.evaluation.results` compares with the limits.

    A champion has the heuristic beside it, a third model without a ModelSpec (TFX's Evaluator
    allows two): `components.evaluation.extractors` finds it in the baseline artifact.
    """
    models = [CANDIDATE, BASELINE]
    models += [HEURISTIC] if baseline == "champion" else []
    models += [LOGGED] if judgement.logged else []
    configured: dict[str, Any] = {"problem": table.problem, "intervals": judgement.intervals}
    if table.problem == "multilabel":
        configured["classes"] = table.label.values("BYTES")
    metric = config_pb2.MetricConfig(
        class_name=metrics.ProblemMetrics.__name__,
        module=metrics.__name__,
        config=json.dumps(configured),
    )
    drawn = config_pb2.MetricConfig(
        class_name=curves.Curves.__name__,
        module=curves.__name__,
        config=json.dumps({"problem": table.problem}),
    )
    return config_pb2.EvalConfig(
        model_specs=[_model(table, CANDIDATE), _model(table, BASELINE)],
        slicing_specs=[config_pb2.SlicingSpec(feature_keys=c) for c in _slices(table, judgement)],
        metrics_specs=[config_pb2.MetricsSpec(model_names=models, metrics=[metric, drawn])],
        options=config_pb2.Options(
            include_default_metrics={"value": False},
            min_slice_size={"value": judgement.min_slice_size},
        ),
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


def _slices(table: FeatureTable, judgement: Judgement) -> list[list[str]]:
    """All rows, the table's slices, and any other that a threshold names; each once."""
    named = [[], *table.slices, *(limit.slices or [] for limit in judgement.thresholds)]
    return [list(columns) for columns in dict.fromkeys(tuple(sorted(c)) for c in named)]
