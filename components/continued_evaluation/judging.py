"""The two components that know the registry: JudgedModels, first, and Decide, last.

JudgedModels says who is judged on a span, beside whom, and what its distribution is compared with;
Decide files what was found, with the decision, and does what that asks for.
"""

import json
import logging
import os
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration.portable import data_types
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import path_utils

from components import files
from components.continued_evaluation import history, measures
from components.continued_evaluation.decision import decide
from components.continued_evaluation.evidence import Judged
from components.continued_evaluation.logged import JUDGED_VERSION
from components.continued_evaluation.measures import JUDGED_FILE
from components.continued_evaluation.settings import ContinuedEvaluation
from components.errors import NothingToDo, PipelineStop
from components.evaluation.results import BASELINE_FILE
from components.evaluation.thresholds import HEURISTIC
from components.ingest.spans import has_spans
from components.registry import store
from components.registry.finding import FindingDriver

RECORD_FILE = "record.json"
_PROGRESS = logging.getLogger("progress")
FRESH = "fresh"
"""The outputs' custom property: 0 if there is nothing to judge the champion on, else 1."""
TRAINING, BEFORE = "training", "before"
"""The splits of the statistics that a span is compared with."""


def find(model: str, span: int, fingerprint: str | None) -> Judged:
    """Reads the registry.

    Args:
      model: `registry/<model>`.
      span: That will be evaluated.
      fingerprint: Of its data; None where the champion cannot have been trained on it.

    Raises:
      PipelineStop: There is no champion, or it is damaged.
      NothingToDo: It was trained on this span.
    """
    labels, versions = store.read_labels(model), store.list_versions(model)
    champion, previous = labels.get(store.CHAMPION), labels.get(store.PREVIOUS)
    if champion not in versions:
        missing = f"The champion is version {champion}, which is not in {model}: restore its folder"
        raise PipelineStop(
            f"{missing if champion else f'There is no champion in {model} to evaluate'}. Versions: "
            f"{', '.join(map(str, versions)) or 'none'}. Train one (make run-local "
            "CONFIG=automated), or promote one (make promote)."
        )
    if damage := store.damage(model, champion):
        raise store.damaged(model, champion, damage)
    if previous not in versions or previous == champion or not _is_whole(model, previous):
        previous = None
    if fingerprint is not None:
        _check_fresh(store.read_manifest(model, champion), span, fingerprint)
    # The newest evaluation of an earlier span, without those that are under suspicion.
    earlier = (
        (record.evidence.span, record.number, record.id)
        for record in history.read_all(model)
        if record.evidence.span < span and record.decision.action != "investigate"
    )
    before = max(earlier, default=(None, None, None))[2]
    return Judged(champion=champion, previous=previous, before=before)


def _is_whole(model: str, previous: int) -> bool:
    """Whether the version before the champion can be judged beside it; says why not."""
    try:
        problems = store.damage(model, previous)
    except PipelineStop as stop:  # its manifest cannot be read
        problems = [str(stop)]
    if problems:
        text = "Version %s, the champion before, is damaged and passed over: %s"
        _PROGRESS.warning(text, previous, ", ".join(problems))
    return not problems


def _check_fresh(manifest: store.Manifest, span: int, fingerprint: str) -> None:
    """A model is not judged on what it was trained on."""
    for data in manifest["data"]:
        spans = json.loads(data.get("spans", "[]"))
        same = data.get("input_fingerprint") == fingerprint
        if span in spans and (same or spans != [0]):
            raise NothingToDo(
                f"Version {manifest['version']}, the champion, was trained on span {span} itself: "
                "there is nothing fresh to evaluate it on. Bring the next span (data.pattern with "
                "{SPAN}, or {YYYY}, {MM} and {DD}), or name another: SPAN=12, or on a "
                "cluster --param span=12."
            )


class JudgedDriver(FindingDriver):
    """Looks before the cache is consulted, so that what was found is part of the cache key."""

    def find(self, info: data_types.ExecutionInfo) -> dict[str, Any]:
        """A `Judged`."""
        given = info.exec_properties
        examples = artifact_utils.get_single_instance(info.input_dict["examples"])
        return _find(given["registry"], given["model_name"], examples).model_dump(mode="json")


def _find(registry: str, model_name: str, examples: types.Artifact) -> Judged:
    # What a version answered is fresh; and the spans of labels are not those of training data.
    is_logged = examples.has_custom_property(JUDGED_VERSION)
    fingerprint = None if is_logged else examples.get_string_custom_property("input_fingerprint")
    span = examples.get_int_custom_property("span")
    return find(os.path.join(registry, model_name), span, fingerprint)


@component
def JudgedModels(
    examples: InputArtifact[standard_artifacts.Examples],
    champion: OutputArtifact[standard_artifacts.Model],
    baseline: OutputArtifact[standard_artifacts.Model],
    references: OutputArtifact[standard_artifacts.ExampleStatistics],
    registry: Parameter[str],
    model_name: Parameter[str],
    code: Parameter[str],
    found: Parameter[str] = "",
) -> None:
    """Brings the champion, the version before it, and the statistics to compare with.

    Args:
        examples: The fresh span.
        champion: Output: `Format-Serving/` and `judged.json` (`Judged`).
        baseline: Output, as `BaselineLookup` writes it: the previous version, or the heuristic
            while there is none; `heuristic/` beside it.
        references: Output: statistics of the splits `training` (the champion's training rows) and
            `before` (the span before; while there is none, `training` again).
        registry: The folder of all registered models.
        model_name: The model's folder in it.
        code: Fingerprint of the code this depends on, for the cache.
        found: What the driver found; where none has run (on Kubeflow Pipelines), "". There the
            outputs' property `fresh` says whether the steps behind are to run.
    """
    del code
    model, outputs = os.path.join(registry, model_name), (champion, baseline, references)
    for output in outputs:
        output.set_int_custom_property(FRESH, 1)
    try:
        judged = (
            Judged.model_validate_json(found) if found else _find(registry, model_name, examples)
        )
    except NothingToDo as stop:
        logging.info(stop)
        for output in outputs:  # which nobody is to read
            output.set_int_custom_property(FRESH, 0)
            files.write_synced(os.path.join(output.uri, "nothing_fresh.txt"), str(stop))
        return
    serving = path_utils.serving_model_dir(champion.uri)
    store.copy_version(model, judged.champion, serving)
    extra = os.path.join(serving, store.EXTRA)
    training = os.path.join(extra, "statistics", "FeatureStats.pb")
    if not os.path.isfile(training):
        raise PipelineStop(
            f"Version {judged.champion} was filed without its training statistics, by an older "
            "release of this project. Train and promote a new version."
        )
    _write_baseline(model, judged.previous, os.path.join(extra, HEURISTIC), baseline.uri)
    before = judged.before and history.path_of(model, judged.before, history.STATISTICS)
    references.split_names = artifact_utils.encode_split_names([TRAINING, BEFORE])
    for split, source in ((TRAINING, training), (BEFORE, before or training)):
        folder = os.path.join(references.uri, f"Split-{split}")
        os.makedirs(folder, exist_ok=True)
        shutil.copyfile(source, os.path.join(folder, "FeatureStats.pb"))
    files.write_synced(os.path.join(champion.uri, JUDGED_FILE), judged.model_dump_json(indent=1))


JudgedModels.DRIVER_CLASS = JudgedDriver


def _write_baseline(model: str, previous: int | None, rule: str, to: str) -> None:
    files.copy_tree(rule, os.path.join(to, HEURISTIC))
    serving = path_utils.serving_model_dir(to)
    if previous is None:
        files.copy_tree(rule, serving)
    else:
        store.copy_version(model, previous, serving)
    kind = "heuristic" if previous is None else "champion"
    text = json.dumps({"kind": kind, "version": previous})
    files.write_synced(os.path.join(to, BASELINE_FILE), text)


class Decided(types.Artifact):
    """`record.json`: `history.Record`; the custom property `action`."""

    TYPE_NAME = "Decided"


@component
def Decide(
    examples: InputArtifact[standard_artifacts.Examples],
    statistics: InputArtifact[standard_artifacts.ExampleStatistics],
    schema: InputArtifact[standard_artifacts.Schema],
    anomalies: InputArtifact[standard_artifacts.ExampleAnomalies],
    drift_from_training: InputArtifact[standard_artifacts.ExampleAnomalies],
    drift_from_before: InputArtifact[standard_artifacts.ExampleAnomalies],
    champion: InputArtifact[standard_artifacts.Model],
    evaluation: InputArtifact[standard_artifacts.ModelEvaluation],
    decided: OutputArtifact[Decided],
    registry: Parameter[str],
    model_name: Parameter[str],
    settings: Parameter[str],
    data_path: Parameter[str],
    pattern: Parameter[str],
    code: Parameter[str],
    run_id: Parameter[str],
    served: InputArtifact[standard_artifacts.Examples] = None,
    skew: InputArtifact[standard_artifacts.ExampleAnomalies] = None,
    starter: Parameter[str] = "",
) -> None:
    """Decides about the champion, and files the evaluation, once. Must not be cached.

    Args:
        examples: The span: of ExampleGen, or of LabelledLog.
        statistics: Of the span.
        schema: The schema.
        anomalies: Of the span, by the schema.
        drift_from_training: Of the span from the champion's training rows.
        drift_from_before: Of the span from the one before.
        champion: What `JudgedModels` put out, with `judged.json`.
        evaluation: Of the champion and those beside it, with intervals.
        decided: Output: `record.json` (`history.Record`) and the custom property `action`.
        registry: The folder of all registered models.
        model_name: The model's folder in it.
        settings: `ContinuedEvaluation` as JSON.
        data_path: The data's folder.
        pattern: The data's pattern.
        code: Fingerprint of the code this depends on, a part of the evaluation's id.
        run_id: The pipeline run.
        served: What the champion was given to predict, where that is logged.
        skew: Of that from the champion's training rows.
        starter: For a step that is to follow its own decision: JSON with the `function`
            (`module:name`) that starts a retraining, and named `arguments` for it. It is called
            with the decision's id and a retraining (`history.Retraining` and `data_path`), must
            be safe to call again, and returns the run's id.
    """
    model = os.path.join(registry, model_name)
    chosen = ContinuedEvaluation.model_validate_json(settings)
    given = {
        "examples": examples,
        "statistics": statistics,
        "schema": schema,
        "anomalies": anomalies,
        "champion": champion,
        "evaluation": evaluation,
        "training": drift_from_training,
        "before": drift_from_before,
    }
    if skew is not None and served.get_int_custom_property("rows_served"):
        given["served"] = skew
    found, hashes = measures.evidence(model, given, chosen)
    source = f"{data_path}/{pattern}"
    fingerprint = examples.get_string_custom_property("input_fingerprint")
    record = history.Record(
        id=history.make_id(found.span, found.champion, fingerprint, settings, code),
        number=0,
        time=store.now(),
        run_id=run_id or "unknown",
        source=source,
        has_spans=has_spans(source),
        evidence=found,
        decision=decide(found, chosen),
        settings=chosen.model_dump(mode="json"),
    )
    described = measures.split_file(statistics, "FeatureStats.pb")
    record = history.add(model, record, described, measures.sketch(hashes))
    decided.set_string_custom_property("action", record.decision.action)
    Path(decided.uri, RECORD_FILE).write_text(record.model_dump_json(indent=1))
    reasons = "; ".join(reason.text for reason in record.decision.reasons)
    logging.info("%s: %s: %s", record.id, record.decision.action, reasons or "no reason")
    if starter:
        follow(json.loads(starter), data_path, model, record, chosen)


def follow(
    starter: dict[str, Any],
    data_path: str,
    model: str,
    record: history.Record,
    settings: ContinuedEvaluation,
) -> None:
    """Does what the decision asks for, once; a step that is retried goes on where it was."""
    with files.locked(str(history.path_of(model, record.id))):
        due = history.due(model, record, settings)
        if due == "retrain":
            module, _, name = starter["function"].partition(":")
            start = getattr(import_module(module), name)
            wanted = history.retraining(record).model_dump() | {"data_path": data_path}
            run = start(record.id, wanted, **starter["arguments"])
            history.note(model, record, f"training run {record.id} started", run=run)
        elif due == "roll_back":
            history.roll_back(model, record)
