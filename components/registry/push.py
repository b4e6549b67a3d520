"""Files a blessed model in the registry, with a manifest that answers an auditor by itself."""

import json
import logging
import os
from dataclasses import asdict, dataclass
from typing import Any

from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration.portable import data_types
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import path_utils

from components.errors import PipelineStop
from components.evaluation.results import METRICS_FILE, read_baseline
from components.evaluation.thresholds import HEURISTIC
from components.features.table import FeatureTable
from components.hashing import hash_transform, hash_tree
from components.registry import labels, signature, store
from components.registry.finding import FindingDriver
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


class RunDriver(FindingDriver):
    """Tells the component which run it is in."""

    def find(self, info: data_types.ExecutionInfo) -> Any:
        """The id of the pipeline run."""
        return info.pipeline_run_id


@component
def RegistryPush(
    model: InputArtifact[standard_artifacts.Model],
    blessing: InputArtifact[standard_artifacts.ModelBlessing],
    evaluation: InputArtifact[standard_artifacts.ModelEvaluation],
    baseline: InputArtifact[standard_artifacts.Model],
    examples: InputArtifact[standard_artifacts.Examples],
    statistics: InputArtifact[standard_artifacts.ExampleStatistics],
    schema: InputArtifact[standard_artifacts.Schema],
    transform_graph: InputArtifact[standard_artifacts.TransformGraph],
    pushed: OutputArtifact[standard_artifacts.PushedModel],
    registry: Parameter[str],
    model_name: Parameter[str],
    promote: Parameter[str],
    config: Parameter[str],
    config_hash: Parameter[str],
    code: Parameter[str],
    git_commit: Parameter[str],
    run_id: Parameter[str],
    found: Parameter[str] = "",
) -> None:
    """Files a blessed model as the next version; a model that is a version already, not again.

    Must not be cached.

    Args:
        model: The candidate, with `training.json`.
        blessing: The Evaluator's.
        evaluation: With `metrics.json`.
        baseline: What it was judged against, with the heuristic.
        examples: The raw examples.
        statistics: Theirs; those of the split `train` are filed.
        schema: Of the raw examples.
        transform_graph: What the model transforms with.
        pushed: `push.json` {version, pushed, promoted, reason}, and the custom properties version
            (0: none), pushed and promoted.
        registry: The folder of all registered models.
        model_name: The model's folder in it.
        promote: 'automatic' or 'manual'.
        config: The whole configuration as JSON.
        config_hash: Its hash.
        code: Fingerprint of the project's code.
        git_commit: The commit that it is from.
        run_id: The pipeline run; "" if a driver finds it.
        found: What the driver found.
    """
    folder, training = os.path.join(registry, model_name), read_training(model.uri)
    labels.mend(folder)
    known = store.find_by_fingerprint(folder, training["fingerprint"])
    if known and labels.moves_of(folder, known):
        outcome = Outcome(known, False, False, f"this model is version {known} already")
    elif not os.path.exists(os.path.join(blessing.uri, constants.BLESSED_FILE_NAME)):
        outcome = Outcome(None, False, False, "not blessed: see the Evaluator's failures")
    else:
        with open(os.path.join(evaluation.uri, METRICS_FILE)) as file:
            measured = json.load(file)
        settings, judged = json.loads(config), read_baseline(baseline.uri)
        table = FeatureTable.model_validate(settings["features"])
        manifest = {
            "model": model_name,
            "time": store.now(),
            "run_id": run_id or json.loads(found),
            "signature": signature.describe(table, signature.types_in(schema.uri)),
            "config": settings,
            "config_hash": config_hash,
            "code": code,
            "git_commit": git_commit,
            "data": [describe_data(examples)],
            "schema_hash": hash_tree(schema.uri),
            "transform_hash": hash_transform(transform_graph.uri),
            **{key: training[key] for key in _OF_TRAINING},
            "training": {key: v for key, v in training.items() if key not in _OF_TRAINING},
            "metrics": measured["metrics"],
            "rows_by_slice": measured["rows"],
            "baseline": {key: judged[key] for key in ("kind", "version")},
            "heuristic": judged["heuristic"],
            "parent": store.read_labels(folder).get(store.CHAMPION),
        }
        # A version that no label has ever pointed to was filed by a run that was killed right then.
        version = known or store.add_version(
            folder, path_utils.serving_model_dir(model.uri), manifest, _extra(statistics, baseline)
        )
        outcome = _promote(folder, version, manifest, promote)
    pushed.set_int_custom_property("version", outcome.version or 0)
    pushed.set_int_custom_property("pushed", int(outcome.pushed))
    pushed.set_int_custom_property("promoted", int(outcome.promoted))
    with open(os.path.join(pushed.uri, PUSH_FILE), "w") as file:
        json.dump(asdict(outcome), file, indent=1)
    logging.info("version %s: %s", outcome.version or "none", outcome.reason)


RegistryPush.DRIVER_CLASS = RunDriver


def _promote(folder: str, version: int, manifest: dict[str, Any], promote: str) -> Outcome:
    """Makes a new version the champion, or the candidate, with the reason."""
    over = manifest["baseline"]["version"]
    beaten = f"version {over}" if over else "the heuristic"
    mover = labels.Mover(f"run {manifest['run_id']}", f"blessed against {beaten}")
    reason = "blessed; promotion is manual"
    if promote == "automatic":
        try:
            labels.promote(folder, version, mover, over)
            return Outcome(version, True, True, mover.why)
        except PipelineStop as stop:
            reason = str(stop)
    labels.assign(folder, store.CANDIDATE, version, mover)
    return Outcome(version, True, False, reason)


def _extra(statistics: types.Artifact, baseline: types.Artifact) -> dict[str, str]:
    """What later evaluations compare with: the training rows' statistics, and the heuristic."""
    return {
        "statistics": artifact_utils.get_split_uri([statistics], "train"),
        HEURISTIC: os.path.join(baseline.uri, HEURISTIC),
    }


def describe_data(artifact: types.Artifact) -> dict[str, Any]:
    """The properties of an examples artifact: spans, fingerprint, rows by split.

    Where it is read elsewhere than it is kept, its property `uri` says where it is kept.
    """
    own = artifact.mlmd_artifact
    found = [*sorted(own.properties.items()), *sorted(own.custom_properties.items())]
    values = {name: getattr(value, value.WhichOneof("value")) for name, value in found}
    return {"uri": artifact.uri, **values}
