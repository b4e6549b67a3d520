"""TFX's Evaluator, judging against whichever baseline applies, with the heuristic beside it."""

import json
import logging
from pathlib import Path
from typing import Any, ClassVar

from tensorflow_model_analysis.proto import config_pb2
from tfx import types
from tfx.components import Evaluator
from tfx.components.evaluator import constants
from tfx.components.evaluator import executor as tfx_executor
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types import standard_component_specs as specs
from tfx.types.component_spec import ExecutionParameter
from tfx.utils import json_utils, proto_utils

from components.evaluation import extractors
from components.evaluation.metrics import ProblemMetrics
from components.evaluation.results import describe, read_baseline, write_results
from components.evaluation.slices import OVERALL
from components.evaluation.thresholds import BASELINE, CANDIDATE, HEURISTIC, LOGGED, Judgement
from components.features.table import FeatureTable


def eval_config(table: FeatureTable, judgement: Judgement, baseline: str) -> config_pb2.EvalConfig:
    """The configuration for a candidate beside a baseline of kind 'champion' or 'heuristic'.

    It measures; `results` compares with the limits.

    A champion has the heuristic beside it, a third model without a ModelSpec (TFX's Evaluator
    allows two): `extractors` finds it in the baseline artifact.
    """
    models = [CANDIDATE, BASELINE]
    models += [HEURISTIC] if baseline == "champion" else []
    models += [LOGGED] if judgement.logged else []
    metric = config_pb2.MetricConfig(
        class_name=ProblemMetrics.__name__,
        module=ProblemMetrics.__module__,
        config=json.dumps({"problem": table.problem, "intervals": judgement.intervals}),
    )
    return config_pb2.EvalConfig(
        model_specs=[_model(table, CANDIDATE), _model(table, BASELINE)],
        slicing_specs=[config_pb2.SlicingSpec(feature_keys=c) for c in _slices(table, judgement)],
        metrics_specs=[config_pb2.MetricsSpec(model_names=models, metrics=[metric])],
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
        label_key=extractors.LABEL_INDEX if indexed else table.label.column,
        preprocessing_function_names=[extractors.LABEL_INDEX] if indexed else [],
    )


def _slices(table: FeatureTable, judgement: Judgement) -> list[list[str]]:
    """All rows, the table's slices, and any other that a threshold names; each once."""
    named = [[], *table.slices, *(limit.slices or [] for limit in judgement.thresholds)]
    return [list(columns) for columns in dict.fromkeys(tuple(sorted(c)) for c in named)]


class SlicedExecutor(tfx_executor.Executor):
    """Fills in the EvalConfig for the baseline given, and writes `metrics.json`."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Evaluates, blesses or not, and writes the results; see TFX's executor."""
        baseline = read_baseline(input_dict[specs.BASELINE_MODEL_KEY][0].uri)
        table = FeatureTable.model_validate_json(exec_properties["features"])
        judgement = Judgement.model_validate_json(exec_properties["judgement"])
        config = eval_config(table, judgement, baseline["kind"])
        settings = {
            specs.EVAL_CONFIG_KEY: proto_utils.proto_to_json(config),
            specs.EXAMPLE_SPLITS_KEY: json_utils.dumps(["test"]),
            specs.MODULE_PATH_KEY: extractors.__name__,
        }
        super().Do(input_dict, output_dict, {**exec_properties, **settings})
        evaluation = output_dict[specs.EVALUATION_KEY][0]
        results = write_results(evaluation.uri, baseline, judgement)
        for metric, value in results["metrics"][CANDIDATE][OVERALL].items():
            if value is not None:
                evaluation.set_float_custom_property(metric, value)
        for failure in results["failures"]:
            logging.info("not blessed: %s", describe(failure))
        # What TFX's executor writes, where it knows the thresholds.
        blessing, is_blessed = output_dict[specs.BLESSING_KEY][0], not results["failures"]
        name = constants.BLESSED_FILE_NAME if is_blessed else constants.NOT_BLESSED_FILE_NAME
        Path(blessing.uri, name).touch()
        blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, int(is_blessed))


class SlicedEvaluatorSpec(specs.EvaluatorSpec):
    """TFX's Evaluator with our settings in place of an EvalConfig."""

    PARAMETERS: ClassVar = {
        **specs.EvaluatorSpec.PARAMETERS,
        "features": ExecutionParameter(type=str),
        "judgement": ExecutionParameter(type=str),
        "code": ExecutionParameter(type=str),
    }


class SlicedEvaluator(Evaluator):
    """Measures candidate, baseline and heuristic on the test split by slice, and blesses or not.

    Outputs `evaluation` (with `metrics.json`, see `results.write_results`, and the metrics of all
    rows as custom properties) and `blessing`.
    """

    SPEC_CLASS = SlicedEvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(SlicedExecutor)

    def __init__(
        self,
        examples: types.BaseChannel,
        model: types.BaseChannel,
        baseline: types.BaseChannel,
        schema: types.BaseChannel,
        features: str,
        judgement: str,
        code: str,
    ) -> None:
        """Takes the channels, and as JSON the FeatureTable and the `thresholds.Judgement`.

        Args:
            examples: Raw examples; the split `test` is used.
            model: The candidate.
            baseline: What `BaselineLookup` put out.
            schema: The schema of the raw examples.
            features: The FeatureTable.
            judgement: Thresholds and minimum slice size.
            code: Fingerprint of the code this depends on, for the cache.
        """
        spec = SlicedEvaluatorSpec(
            examples=examples,
            model=model,
            baseline_model=baseline,
            schema=schema,
            features=features,
            judgement=judgement,
            code=code,
            example_splits=json_utils.dumps(["test"]),
            fairness_indicator_thresholds=json_utils.dumps(None),
            evaluation=types.Channel(type=standard_artifacts.ModelEvaluation),
            blessing=types.Channel(type=standard_artifacts.ModelBlessing),
        )
        # Past TFX's own __init__, which would insist on an EvalConfig.
        base_beam_component.BaseBeamComponent.__init__(self, spec=spec)
