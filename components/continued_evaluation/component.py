"""Decide: from what was measured to a decision, filed in the registry's history."""

import json
import logging
import os
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components import files
from components.continued_evaluation import following, history, rows
from components.continued_evaluation.assembling import assemble, statistics
from components.continued_evaluation.decision import decide
from components.continued_evaluation.settings import ContinuedEvaluation
from components.ingest.spans import has_spans

RECORD_FILE = "record.json"


class Decided(types.Artifact):
    """`record.json`: `history.Record`; the custom property `action`."""

    TYPE_NAME = "Decided"


class DecideExecutor(base_executor.BaseExecutor):
    """Assembles the evidence, decides, and files both; the same evaluation is filed once."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes `record.json`; follows the decision, where there is a `starter`.

        Args:
            input_dict: See `DecideSpec`.
            output_dict: `decided`.
            exec_properties: See `DecideSpec`.
        """
        run = exec_properties.get("run_id") or (self._context and self._context.pipeline_run_id)
        model = os.path.join(exec_properties["registry"], exec_properties["model_name"])
        settings = ContinuedEvaluation.model_validate_json(exec_properties["settings"])
        evidence, hashes = assemble(input_dict, model, settings, datetime.now(UTC))
        fingerprint = _fingerprint(input_dict)
        source = f"{exec_properties['data_path']}/{exec_properties['pattern']}"
        facts = (fingerprint, settings.model_dump_json(), exec_properties["code"])
        record = history.add(
            model,
            history.Record(
                id=history.make_id(evidence.span, evidence.champion, *facts),
                number=0,
                time=history.now(),
                run_id=str(run or "unknown"),
                source=source,
                has_spans=has_spans(source),
                evidence=evidence,
                decision=decide(evidence, settings),
                settings=settings.model_dump(mode="json"),
            ),
            statistics(input_dict),
            rows.sketch(hashes),
        )
        decided = artifact_utils.get_single_instance(output_dict["decided"])
        decided.set_string_custom_property("action", record.decision.action)
        with open(os.path.join(decided.uri, RECORD_FILE), "w") as file:
            file.write(record.model_dump_json(indent=1))
        reasons = "; ".join(reason.text for reason in record.decision.reasons)
        logging.info("%s: %s: %s", record.id, record.decision.action, reasons or "no reason")
        if starter := exec_properties.get("starter"):
            _follow(json.loads(starter), exec_properties["data_path"], model, record, settings)


def _fingerprint(input_dict: dict[str, list[types.Artifact]]) -> str:
    examples = artifact_utils.get_single_instance(input_dict["examples"])
    return examples.get_string_custom_property("input_fingerprint")


def _follow(
    starter: dict[str, Any],
    data_path: str,
    model: str,
    record: history.Record,
    settings: ContinuedEvaluation,
) -> None:
    """Does what the decision asks for, once; a step that is retried goes on where it was."""
    with files.locked(str(history.path_of(model, record.id, history.EVALUATION_FILE).parent)):
        due = following.due(model, record, settings)
        if due == "retrain":
            module, _, name = starter["function"].partition(":")
            start = getattr(import_module(module), name)
            retraining = following.retraining(record).model_dump()
            run = start(record.id, {**retraining, "data_path": data_path}, **starter["arguments"])
            following.note(model, record, f"training run {record.id} started", run=run)
        elif due == "roll_back":
            following.roll_back(model, record)


class DecideSpec(ComponentSpec):
    """See `Decide`."""

    INPUTS: ClassVar = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "drift_from_training": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "drift_from_before": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "champion": ChannelParameter(type=standard_artifacts.Model),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "served": ChannelParameter(type=standard_artifacts.Examples, optional=True),
        "skew": ChannelParameter(type=standard_artifacts.ExampleAnomalies, optional=True),
    }
    OUTPUTS: ClassVar = {"decided": ChannelParameter(type=Decided)}
    PARAMETERS: ClassVar = {
        "registry": ExecutionParameter(type=str),
        "model_name": ExecutionParameter(type=str),
        "settings": ExecutionParameter(type=str),
        "data_path": ExecutionParameter(type=str),
        "pattern": ExecutionParameter(type=str),
        "code": ExecutionParameter(type=str),
        "starter": ExecutionParameter(type=str, optional=True),
        "run_id": ExecutionParameter(type=str, optional=True),
    }


class Decide(base_component.BaseComponent):
    """Decides about the champion, and files the evaluation. Must not be cached.

    Output `decided`: `record.json` (`history.Record`) and the custom property `action`.
    """

    SPEC_CLASS = DecideSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(DecideExecutor)

    def __init__(
        self,
        *,
        run_id: str | None = None,
        starter: str | None = None,
        **channels_and_settings: Any,
    ) -> None:
        """Takes the channels and settings of `DecideSpec`, by name.

        Args:
            run_id: The pipeline run, where the executor's context doesn't know it.
            starter: For a step that is to follow its own decision: JSON with the `function`
                (`module:name`) that starts a retraining, and named `arguments` for it. It is
                called with the decision's id and a retraining (`following.Retraining` and
                `data_path`), must be safe to call again, and returns the run's id.
            channels_and_settings: All else.
        """
        spec = DecideSpec(
            **channels_and_settings,
            run_id=run_id,
            starter=starter,
            decided=types.Channel(type=Decided),
        )
        super().__init__(spec=spec)
