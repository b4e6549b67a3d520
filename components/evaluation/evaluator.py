"""TFX's Evaluator, judging against whichever baseline applies, with the heuristic beside it."""

from typing import ClassVar

from tfx import types
from tfx.components import Evaluator
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types import standard_component_specs as specs
from tfx.types.component_spec import ExecutionParameter
from tfx.utils import json_utils

from components.evaluation.executor import SlicedExecutor


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
        """Takes the channels, and as JSON the FeatureTable and the `config.Judgement`.

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
