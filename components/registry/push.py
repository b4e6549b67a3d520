"""Files a blessed model in the registry, with a manifest that answers an auditor by itself."""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, path_utils

from components.errors import PipelineStop
from components.evaluation.results import METRICS_FILE, read_baseline
from components.evaluation.thresholds import HEURISTIC
from components.features.table import FeatureTable
from components.hashing import hash_transform, hash_tree
from components.registry import labels, signature, store
from components.registry.lookup import read_training

PUSH_FILE = "push.json"

_OF_TRAINING = ("fingerprint", "hyperparameters", "library_versions")
"""What the manifest has from `training.json` at its top; the rest is under `training`."""


@dataclass(frozen=True)
class Outcome:
    """What happened: the version the model is, if any; whether it is new; whether it leads now."""

    version: int | None
    pushed: bool
    promoted: bool
    reason: str


class PushExecutor(base_executor.BaseExecutor):
    """Files the model if it is blessed and new."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes what happened to `push.json`, and to the artifact's properties."""
        run = exec_properties.get("run_id") or (self._context and self._context.pipeline_run_id)
        outcome = _push(input_dict, exec_properties, str(run or "unknown"))
        artifact = artifact_utils.get_single_instance(output_dict["pushed"])
        artifact.set_int_custom_property("version", outcome.version or 0)
        artifact.set_int_custom_property("pushed", int(outcome.pushed))
        artifact.set_int_custom_property("promoted", int(outcome.promoted))
        with open(os.path.join(artifact.uri, PUSH_FILE), "w") as file:
            json.dump(asdict(outcome), file, indent=1)
        logging.info("version %s: %s", outcome.version or "none", outcome.reason)


def _push(
    input_dict: dict[str, list[types.Artifact]], settings: dict[str, Any], run: str
) -> Outcome:
    folder = os.path.join(settings["registry"], settings["model_name"])
    model = artifact_utils.get_single_uri(input_dict["model"])
    training = read_training(model)
    labels.mend(folder)
    known = store.find_by_fingerprint(folder, training["fingerprint"])
    if known and labels.moves_of(folder, known):
        return Outcome(known, False, False, f"this model is version {known} already")
    if not is_blessed(artifact_utils.get_single_instance(input_dict["blessing"])):
        return Outcome(None, False, False, "not blessed: see the Evaluator's failures")
    manifest = _manifest(input_dict, settings, training, folder, run)
    # A version that no label has ever pointed to was filed by a run that was killed right then.
    version = known or store.add_version(
        folder, path_utils.serving_model_dir(model), manifest, _extra(input_dict)
    )
    over = manifest["baseline"]["version"]
    beaten = f"version {over}" if over else "the heuristic"
    mover = labels.Mover(f"run {run}", f"blessed against {beaten}")
    reason = "blessed; promotion is manual"
    if settings["promote"] == "automatic":
        try:
            labels.promote(folder, version, mover, over)
            return Outcome(version, True, True, mover.why)
        except PipelineStop as stop:
            reason = str(stop)
    labels.assign(folder, store.CANDIDATE, version, mover)
    return Outcome(version, True, False, reason)


def _extra(input_dict: dict[str, list[types.Artifact]]) -> dict[str, str]:
    """What later evaluations compare with: the training rows' statistics, and the heuristic."""
    return {
        "statistics": artifact_utils.get_split_uri(input_dict["statistics"], "train"),
        HEURISTIC: os.path.join(_uri(input_dict, "baseline"), HEURISTIC),
    }


def is_blessed(blessing: types.Artifact) -> bool:
    """Whether the Evaluator blessed the model."""
    return os.path.exists(os.path.join(blessing.uri, constants.BLESSED_FILE_NAME))


def _manifest(
    input_dict: dict[str, list[types.Artifact]],
    settings: dict[str, Any],
    training: dict[str, Any],
    folder: str,
    run: str,
) -> dict[str, Any]:
    with open(os.path.join(_uri(input_dict, "evaluation"), METRICS_FILE)) as file:
        evaluation = json.load(file)
    baseline = read_baseline(_uri(input_dict, "baseline"))
    config = json.loads(settings["config"])
    schema = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(_uri(input_dict, "schema")))
    table = FeatureTable.model_validate(config["features"])
    return {
        "model": settings["model_name"],
        "time": store.now(),
        "run_id": run,
        "signature": signature.describe(table, signature.column_types(schema)),
        "config": config,
        "config_hash": settings["config_hash"],
        "code": settings["code"],
        "git_commit": settings["git_commit"],
        "data": describe_data(input_dict["examples"]),
        "schema_hash": hash_tree(_uri(input_dict, "schema")),
        "transform_hash": hash_transform(_uri(input_dict, "transform_graph")),
        **{key: training[key] for key in _OF_TRAINING},
        "training": {key: value for key, value in training.items() if key not in _OF_TRAINING},
        "metrics": evaluation["metrics"],
        "rows_by_slice": evaluation["rows"],
        "baseline": {key: baseline[key] for key in ("kind", "version")},
        "heuristic": baseline["heuristic"],
        "parent": store.read_labels(folder).get(store.CHAMPION),
    }


def _uri(input_dict: dict[str, list[types.Artifact]], name: str) -> str:
    return artifact_utils.get_single_uri(input_dict[name])


def describe_data(examples: Sequence[types.Artifact]) -> list[dict[str, Any]]:
    """The properties of each examples artifact: spans, fingerprint, rows by split.

    Where an artifact is read elsewhere than it is kept, its property `uri` says where it is kept.
    """
    described = []
    for artifact in examples:
        properties = artifact.mlmd_artifact.properties, artifact.mlmd_artifact.custom_properties
        values = {
            name: getattr(value, value.WhichOneof("value"))
            for found in properties
            for name, value in sorted(found.items())
        }
        described.append({"uri": artifact.uri, **values})
    return described


class RegistryPushSpec(ComponentSpec):
    """See `RegistryPush`."""

    INPUTS: ClassVar = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "baseline": ChannelParameter(type=standard_artifacts.Model),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
        "transform_graph": ChannelParameter(type=standard_artifacts.TransformGraph),
    }
    OUTPUTS: ClassVar = {"pushed": ChannelParameter(type=standard_artifacts.PushedModel)}
    PARAMETERS: ClassVar = {
        "registry": ExecutionParameter(type=str),
        "model_name": ExecutionParameter(type=str),
        "promote": ExecutionParameter(type=str),
        "config": ExecutionParameter(type=str),
        "config_hash": ExecutionParameter(type=str),
        "code": ExecutionParameter(type=str),
        "git_commit": ExecutionParameter(type=str),
        "run_id": ExecutionParameter(type=str, optional=True),
    }


class RegistryPush(base_component.BaseComponent):
    """Files a blessed model as the next version; a model that is a version already, not again.

    Output `pushed`: `push.json` {version, pushed, promoted, reason} and the custom properties
    version (0: none), pushed and promoted. Must not be cached.
    """

    SPEC_CLASS = RegistryPushSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(PushExecutor)

    def __init__(self, *, run_id: str | None = None, **channels_and_settings: Any) -> None:
        """Takes the channels and settings of `RegistryPushSpec`, by name.

        Args:
            run_id: The pipeline run, where the executor's context doesn't know it.
            channels_and_settings: model, blessing, evaluation, baseline, examples, statistics,
                schema, transform_graph (channels); registry, model_name, promote ('automatic' or
                'manual'), config (JSON), config_hash, code, git_commit (str).
        """
        spec = RegistryPushSpec(
            **channels_and_settings,
            run_id=run_id,
            pushed=types.Channel(type=standard_artifacts.PushedModel),
        )
        super().__init__(spec=spec)
