"""What a candidate is to be compared with: the champion, or while there is none the heuristic."""

import json
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tfx import types
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration.portable import data_types
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import path_utils

from components import files
from components.errors import PipelineStop
from components.evaluation.heuristic import heuristic_problems, learn
from components.evaluation.results import BASELINE_FILE
from components.evaluation.thresholds import HEURISTIC
from components.features.table import FeatureTable
from components.registry import signature, store
from components.registry.finding import FindingDriver

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


def _judged(manifest: store.Manifest) -> Baseline | None:
    """What a version was judged against; None if its manifest does not say so."""
    try:
        return Baseline(**manifest["baseline"])
    except (KeyError, TypeError):
        return None


def read_training(uri: str) -> dict[str, Any]:
    """The Trainer's `training.json` in a model artifact."""
    with open(os.path.join(uri, TRAINING_FILE)) as file:
        return json.load(file)


def _find(registry: str, model_name: str, model: types.Artifact) -> Baseline:
    """Reads the registry and decides; see `choose_baseline`."""
    folder = os.path.join(registry, model_name)
    own = store.find_by_fingerprint(folder, read_training(model.uri)["fingerprint"])
    judged = _judged(store.read_manifest(folder, own)) if own else None
    champion = store.read_labels(folder).get(store.CHAMPION)
    return choose_baseline(own, judged, champion, store.list_versions(folder))


class BaselineDriver(FindingDriver):
    """Decides before the cache is consulted, so that the decision is part of the cache key."""

    def find(self, info: data_types.ExecutionInfo) -> dict[str, Any]:
        """A `Baseline`."""
        given = info.exec_properties
        model = artifact_utils.get_single_instance(info.input_dict["model"])
        return asdict(_find(given["registry"], given["model_name"], model))


@component
def BaselineLookup(
    model: InputArtifact[standard_artifacts.Model],
    examples: InputArtifact[standard_artifacts.Examples],
    schema: InputArtifact[standard_artifacts.Schema],
    baseline: OutputArtifact[standard_artifacts.Model],
    registry: Parameter[str],
    model_name: Parameter[str],
    heuristic: Parameter[str],
    features: Parameter[str],
    code: Parameter[str],
    found: Parameter[str] = "",
) -> None:
    """Finds what to compare a model with.

    Output `baseline`, a Model: `Format-Serving/` (the champion's SavedModel or the heuristic),
    `heuristic/` (the heuristic) and `baseline.json` {kind, version, heuristic: its rule, column
    and buckets}.

    Args:
        model: The candidate, with `training.json`.
        examples: Raw examples; the heuristic learns from the split `train`.
        schema: The schema of the raw examples.
        baseline: The output.
        registry: The folder of all registered models.
        model_name: The model's folder in it.
        heuristic: The rule, or 'mined'.
        features: The FeatureTable as JSON.
        code: Fingerprint of the code this depends on, for the cache.
        found: What the driver decided; where none has run (on Kubeflow Pipelines), "".
    """
    del code
    chosen = Baseline(**json.loads(found)) if found else _find(registry, model_name, model)
    rule_folder = os.path.join(baseline.uri, HEURISTIC)
    rule = _export_heuristic(heuristic, features, examples, schema, rule_folder)
    write_baseline(baseline.uri, os.path.join(registry, model_name), chosen, rule)


BaselineLookup.DRIVER_CLASS = BaselineDriver


def write_baseline(uri: str, model: str, chosen: Baseline, rule: dict[str, Any]) -> None:
    """Writes the model and `baseline.json` of an output where `heuristic/` is already.

    Args:
        uri: The output's folder.
        model: `registry/<model>`.
        chosen: The version, or the heuristic.
        rule: The heuristic in words.
    """
    serving = path_utils.serving_model_dir(uri)
    if chosen.version is not None:
        store.copy_version(model, chosen.version, serving)
    else:
        files.copy_tree(os.path.join(uri, HEURISTIC), serving)
    with open(os.path.join(uri, BASELINE_FILE), "w") as file:
        json.dump({**asdict(chosen), "heuristic": rule}, file, indent=1)


def _export_heuristic(
    rule: str, features: str, examples: types.Artifact, schema: types.Artifact, folder: str
) -> dict[str, Any]:
    """Learns the heuristic from the training split, exports it, and returns it in words."""
    table = FeatureTable.model_validate_json(features)
    columns = signature.types_in(schema.uri)
    if problems := list(heuristic_problems(rule, table, columns)):
        raise PipelineStop(f"evaluation.heuristic: {'; '.join(problems)}.")
    training = artifact_utils.get_split_uris([examples], "train")
    learned = learn(rule, table, columns, training)
    learned.write(folder)
    return {"rule": rule, **learned.describe()}
