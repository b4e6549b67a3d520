"""What a candidate is to be compared with: the champion, or while there is none the heuristic."""

import json
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from tfx import types
from tfx.dsl.components.base import base_component, base_driver, base_executor, executor_spec
from tfx.orchestration import data_types_utils
from tfx.orchestration.portable import base_driver as portable_driver
from tfx.orchestration.portable import data_types
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, path_utils

from components.errors import PipelineStop
from components.evaluation import heuristic_model
from components.evaluation.config import HEURISTIC
from components.evaluation.heuristic import heuristic_problems
from components.evaluation.results import BASELINE_FILE
from components.features.table import FeatureTable
from components.registry import store

TRAINING_FILE = "training.json"


@dataclass(frozen=True)
class Baseline:
    """What to compare with; `version` is None for the heuristic."""

    kind: Literal["champion", "heuristic"]
    version: int | None = None


def choose_baseline(
    own: int | None, judged: Baseline | None, champion: int | None, versions: Collection[int]
) -> Baseline:
    """Decides what to compare with.

    Args:
        own: The version that the candidate already is.
        judged: What that version was judged against when it was filed. It is used again, so that
            nothing is computed anew when nothing changed.
        champion: The version with that label.
        versions: Those that are there.

    Raises:
        PipelineStop: If the champion is not there.
    """
    if judged is not None and (judged.kind == "heuristic" or judged.version in versions):
        return judged
    if champion is None or champion == own:
        return Baseline("heuristic")
    if champion not in versions:
        raise PipelineStop(
            f"The champion is version {champion}, but the registry has only {sorted(versions)}. "
            "Restore its folder, or promote a version that is there."
        )
    return Baseline("champion", champion)


def find_baseline(folder: str, fingerprint: str) -> Baseline:
    """Reads the registry and decides; see `choose_baseline`."""
    own = store.find_by_fingerprint(folder, fingerprint)
    judged = Baseline(**store.read_manifest(folder, own)["baseline"]) if own else None
    champion = store.read_labels(folder).get(store.CHAMPION)
    return choose_baseline(own, judged, champion, store.list_versions(folder))


def read_training(uri: str) -> dict[str, Any]:
    """The Trainer's `training.json` in a model artifact."""
    with open(os.path.join(uri, TRAINING_FILE)) as file:
        return json.load(file)


def _find(input_dict: dict[str, list[types.Artifact]], exec_properties: dict[str, Any]) -> Baseline:
    model = artifact_utils.get_single_uri(input_dict["model"])
    folder = os.path.join(exec_properties["registry"], exec_properties["model_name"])
    return find_baseline(folder, read_training(model)["fingerprint"])


class BaselineDriver(base_driver.BaseDriver, portable_driver.BaseDriver):
    """Decides before the cache is consulted, so that the decision is part of the cache key."""

    def __init__(self, metadata_handle: Any) -> None:
        """Takes the metadata connection, which it does not need."""
        portable_driver.BaseDriver.__init__(self, metadata_handle)

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Sets the exec property `found`."""
        found = _find(execution_info.input_dict, execution_info.exec_properties)
        output = driver_output_pb2.DriverOutput()
        data_types_utils.set_metadata_value(
            output.exec_properties["found"], json.dumps(asdict(found))
        )
        return output


class BaselineExecutor(base_executor.BaseExecutor):
    """Puts the baseline's SavedModel, and the heuristic's, into the output artifact."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Where no driver has run (on Kubeflow Pipelines), decides first."""
        given = exec_properties.get("found")
        found = Baseline(**json.loads(given)) if given else _find(input_dict, exec_properties)
        uri = artifact_utils.get_single_uri(output_dict["baseline"])
        folder = os.path.join(exec_properties["registry"], exec_properties["model_name"])
        rule = _export_heuristic(input_dict, exec_properties, os.path.join(uri, HEURISTIC))
        if found.version is not None:
            store.copy_version(folder, found.version, path_utils.serving_model_dir(uri))
        else:
            store.copy_tree(os.path.join(uri, HEURISTIC), path_utils.serving_model_dir(uri))
        with open(os.path.join(uri, BASELINE_FILE), "w") as file:
            json.dump({**asdict(found), "heuristic": rule}, file, indent=1)


def _export_heuristic(
    input_dict: dict[str, list[types.Artifact]], exec_properties: dict[str, Any], folder: str
) -> dict[str, Any]:
    """Learns the heuristic from the training split, exports it, and returns it in words."""
    table = FeatureTable.model_validate_json(exec_properties["features"])
    schema_uri = artifact_utils.get_single_uri(input_dict["schema"])
    schema = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(schema_uri))
    columns = heuristic_model.column_types(schema)
    rule = exec_properties["heuristic"]
    if problems := list(heuristic_problems(rule, table, columns)):
        raise PipelineStop(f"evaluation.heuristic: {'; '.join(problems)}.")
    training = artifact_utils.get_split_uris(input_dict["examples"], "train")
    learned = heuristic_model.learn(rule, table, columns, training)
    heuristic_model.export(learned, table, columns, folder)
    return {"rule": rule, **learned.describe()}


class BaselineLookupSpec(ComponentSpec):
    """See `BaselineLookup`."""

    INPUTS: ClassVar = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
    }
    OUTPUTS: ClassVar = {"baseline": ChannelParameter(type=standard_artifacts.Model)}
    PARAMETERS: ClassVar = {
        "registry": ExecutionParameter(type=str),
        "model_name": ExecutionParameter(type=str),
        "heuristic": ExecutionParameter(type=str),
        "features": ExecutionParameter(type=str),
        "code": ExecutionParameter(type=str),
        "found": ExecutionParameter(type=str, optional=True),
    }


class BaselineLookup(base_component.BaseComponent):
    """Finds what to compare a model with.

    Output `baseline`, a Model: `Format-Serving/` (the champion's or the heuristic's SavedModel),
    `heuristic/` (the heuristic's) and `baseline.json` {kind, version, heuristic: its rule, column
    and buckets}.
    """

    SPEC_CLASS = BaselineLookupSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(BaselineExecutor)
    DRIVER_CLASS = BaselineDriver

    def __init__(
        self,
        model: types.BaseChannel,
        examples: types.BaseChannel,
        schema: types.BaseChannel,
        registry: str,
        model_name: str,
        heuristic: str,
        features: str,
        code: str,
    ) -> None:
        """Takes the channels and settings.

        Args:
            model: The candidate, with `training.json`.
            examples: Raw examples; the heuristic learns from the split `train`.
            schema: The schema of the raw examples.
            registry: The folder of all registered models.
            model_name: The model's folder in it.
            heuristic: The rule, or 'mined'.
            features: The FeatureTable as JSON.
            code: Fingerprint of the code this depends on, for the cache.
        """
        spec = BaselineLookupSpec(
            model=model,
            examples=examples,
            schema=schema,
            registry=registry,
            model_name=model_name,
            heuristic=heuristic,
            features=features,
            code=code,
            baseline=types.Channel(type=standard_artifacts.Model),
        )
        super().__init__(spec=spec)
