"""TFX's Evaluator, judging against whichever baseline applies, with the heuristic beside it.

What it evaluates with (TFMA, TFX's own executor) takes seconds to import: only when it runs.
"""

import logging
from pathlib import Path
from typing import Any, ClassVar

from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types import standard_component_specs as specs
from tfx.types.component_spec import ExecutionParameter
from tfx.utils import json_utils, path_utils, proto_utils

from components.evaluation.results import describe, read_baseline, write_results
from components.evaluation.slices import OVERALL
from components.evaluation.thresholds import CANDIDATE, Judgement
from components.features.table import FeatureTable
from components.registry.signature import types_in


class SlicedExecutor(base_beam_executor.BaseBeamExecutor):
    """Fills in the EvalConfig of TFX's for the baseline given, and writes `metrics.json`."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Evaluates, blesses or not, and writes the results; see TFX's executor."""
        from tfx.components import Evaluator  # from the package, whose __init__ mends TFMA for it

        from components.evaluation import extractors
        from components.evaluation.config import eval_config

        baseline = read_baseline(input_dict[specs.BASELINE_MODEL_KEY][0].uri)
        table = FeatureTable.model_validate_json(exec_properties["features"])
        judgement = Judgement.model_validate_json(exec_properties["judgement"])
        config = eval_config(table, judgement, baseline["kind"])
        settings = {
            specs.EVAL_CONFIG_KEY: proto_utils.proto_to_json(config),
            specs.EXAMPLE_SPLITS_KEY: json_utils.dumps(["test"]),
            specs.MODULE_PATH_KEY: extractors.__name__,
        }
        inner = Evaluator.EXECUTOR_SPEC.executor_class(self._context)
        inner.Do(input_dict, output_dict, {**exec_properties, **settings})
        evaluation = output_dict[specs.EVALUATION_KEY][0]
        probed = _probed(input_dict, table, judgement)
        results = write_results(evaluation.uri, baseline, judgement, probed)
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


def _probed(
    input_dict: dict[str, list[types.Artifact]], table: FeatureTable, judgement: Judgement
) -> dict[str, Any]:
    if not (judgement.what_if or judgement.importances):
        return {}
    from components.evaluation.probes import probe

    model = path_utils.serving_model_path(input_dict[specs.MODEL_KEY][0].uri)
    examples = artifact_utils.get_split_uri(input_dict[specs.EXAMPLES_KEY], "test")
    kinds = types_in(artifact_utils.get_single_uri(input_dict[specs.SCHEMA_KEY]))
    return probe(model, examples, table, kinds, judgement.what_if, judgement.importances)


class SlicedEvaluatorSpec(specs.EvaluatorSpec):
    """TFX's Evaluator with our settings in place of an EvalConfig."""

    PARAMETERS: ClassVar = {
        **specs.EvaluatorSpec.PARAMETERS,
        "features": ExecutionParameter(type=str),
        "judgement": ExecutionParameter(type=str),
        "code": ExecutionParameter(type=str),
    }


class SlicedEvaluator(base_beam_component.BaseBeamComponent):
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
        super().__init__(spec=spec)
