"""TFX's Evaluator, run with an EvalConfig for whichever baseline applies."""

import logging
from typing import Any

from tfx import types
from tfx.components.evaluator import executor as tfx_executor
from tfx.types import standard_component_specs as specs
from tfx.utils import json_utils, proto_utils

from components.evaluation import extractors
from components.evaluation.config import Judgement, eval_config
from components.evaluation.results import describe, read_baseline, write_results
from components.evaluation.slices import OVERALL
from components.features.table import FeatureTable


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
        found = write_results(evaluation.uri, baseline)
        for metric, value in found["metrics"]["candidate"][OVERALL].items():
            if value is not None:
                evaluation.set_float_custom_property(metric, value)
        for failure in found["failures"]:
            logging.info("not blessed: %s", describe(failure))
