"""The two components that know the registry: JudgedModels, first, and Decide, last.

JudgedModels says who is judged on a span, and beside whom; Decide files what was found, with the
decision, and does what that asks for.
"""

import json
import logging
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration.portable import data_types
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components import files
from components.continued_evaluation import history, measures
from components.continued_evaluation.decision import decide
from components.continued_evaluation.evidence import Judged
from components.continued_evaluation.logged import JUDGED_VERSION
from components.continued_evaluation.measures import JUDGED_FILE, TRAINING_FILE
from components.continued_evaluation.settings import ContinuedEvaluation
from components.errors import NothingToDo, PipelineStop
from components.evaluation.thresholds import HEURISTIC
from components.ingest.spans import has_spans
from components.registry import store
from components.registry.finding import FindingDriver
from components.registry.labels import version_problems
from components.registry.lookup import Baseline, write_baseline

RECORD_FILE = "record.json"
FRESH = "fresh"
"""The outputs' custom property: 0 if there is nothing to judge the champion on, else 1."""
_PROGRESS = logging.getLogger("progress")


def find(model: str, examples: types.Artifact) -> Judged:
    """Reads the registry.

    Args:
      model: `registry/<model>`.
      examples: That are to be evaluated.

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
    if previous not in versions or previous == champion:
        previous = None
    elif problems := version_problems(model, previous):
        text = "Version %s, the champion before, is damaged and passed over: %s"
        _PROGRESS.warning(text, previous, ", ".join(problems))
        previous = None
    span = examples.get_int_custom_property("span")
    # What a version answered is fresh; and the spans of labels are not those of training data.
    if not examples.has_custom_property(JUDGED_VERSION):
        fingerprint = examples.get_string_custom_property("input_fingerprint")
        _check_fresh(store.read_manifest(model, champion), span, fingerprint)
    # The newest evaluation of an earlier span, without those that are under suspicion.
    earlier = [
        (record.evidence.span, record.number, record.id)
        for record in history.read_all(model)
        if record.evidence.span < span and record.decision.action != "investigate"
    ]
    before = max(earlier)[2] if earlier else None
    return Judged(champion=champion, previous=previous, before=before)


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
        model = os.path.join(*(info.exec_properties[name] for name in ("registry", "model_name")))
        return find(model, info.input_dict["examples"][0]).model_dump(mode="json")


@component
def JudgedModels(
    examples: InputArtifact[standard_artifacts.Examples],
    champion: OutputArtifact[standard_artifacts.Model],
    baseline: OutputArtifact[standard_artifacts.Model],
    registry: Parameter[str],
    model_name: Parameter[str],
    code: Parameter[str],
    found: Parameter[str] = "",
) -> None:
    """Brings the champion and the version before it.

    Args:
        examples: The fresh span.
        champion: Output: `Format-Serving/` and `judged.json` (`Judged`).
        baseline: Output, as `BaselineLookup` writes it: the previous version, or the heuristic
            while there is none; `heuristic/` beside it.
        registry: The folder of all registered models.
        model_name: The model's folder in it.
        code: Fingerprint of the code this depends on, for the cache.
        found: What the driver found; where none has run (on Kubeflow Pipelines), "". There the
            outputs' property `fresh` says whether the steps behind are to run.
    """
    del code
    model = os.path.join(registry, model_name)
    try:
        judged = Judged.model_validate_json(found) if found else find(model, examples)
    except NothingToDo as stop:
        logging.info(stop)
        for output in (champion, baseline):  # which nobody is to read
            output.set_int_custom_property(FRESH, 0)
            files.write_synced(os.path.join(output.uri, "nothing_fresh.txt"), str(stop))
        return
    for output in (champion, baseline):
        output.set_int_custom_property(FRESH, 1)
    serving = path_utils.serving_model_dir(champion.uri)
    store.copy_version(model, judged.champion, serving)
    if not os.path.isfile(os.path.join(serving, TRAINING_FILE)):
        raise PipelineStop(
            f"Version {judged.champion} was filed without its training statistics, by an older "
            "release of this project. Train and promote a new version."
        )
    rule = os.path.join(serving, store.EXTRA, HEURISTIC)
    files.copy_tree(rule, os.path.join(baseline.uri, HEURISTIC))
    kind: Any = "heuristic" if judged.previous is None else "champion"
    write_baseline(baseline.uri, model, Baseline(kind, judged.previous), {})
    files.write_synced(os.path.join(champion.uri, JUDGED_FILE), judged.model_dump_json(indent=1))


JudgedModels.DRIVER_CLASS = JudgedDriver


class Decided(types.Artifact):
    """`record.json`: `history.Record`; the custom property `action`."""

    TYPE_NAME = "Decided"


@component
def Decide(
    examples: InputArtifact[standard_artifacts.Examples],
    statistics: InputArtifact[standard_artifacts.ExampleStatistics],
    schema: InputArtifact[standard_artifacts.Schema],
    anomalies: InputArtifact[standard_artifacts.ExampleAnomalies],
    champion: InputArtifact[standard_artifacts.Model],
    evaluation: InputArtifact[standard_artifacts.ModelEvaluation],
    decided: OutputArtifact[Decided],
    registry: Parameter[str],
    model_name: Parameter[str],
    settings: Parameter[str],
    columns: Parameter[str],
    data_path: Parameter[str],
    pattern: Parameter[str],
    code: Parameter[str],
    run_id: Parameter[str],
    served: InputArtifact[standard_artifacts.ExampleStatistics] = None,
    starter: Parameter[str] = "",
) -> None:
    """Decides about the champion, and files the evaluation, once. Must not be cached.

    Args:
        examples: The span: of ExampleGen, or of LabelledLog.
        statistics: Of the span.
        schema: The schema.
        anomalies: Of the span, by the schema.
        champion: What `JudgedModels` put out, with `judged.json`.
        evaluation: Of the champion and those beside it, with intervals.
        decided: Output: `record.json` (`history.Record`) and the custom property `action`.
        registry: The folder of all registered models.
        model_name: The model's folder in it.
        settings: `ContinuedEvaluation` as JSON.
        columns: `measures.Columns` as JSON.
        data_path: The data's folder.
        pattern: The data's pattern.
        code: Fingerprint of the code this depends on, a part of the evaluation's id.
        run_id: The pipeline run.
        served: Statistics of what the champion was given to predict, where that is logged.
        starter: For a step that is to follow its own decision: JSON with the `function`
            (`module:name`) that starts a retraining, and named `arguments` for it. It is called
            with the decision's id and a retraining (`history.retraining` and `data_path`), must
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
    } | ({"served": served} if served else {})
    found, hashes = measures.evidence(model, given, chosen, json.loads(columns))
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
    described = measures.split_file(statistics, measures.STATISTICS_FILE)
    record = history.add(model, record, described, measures.sketch(hashes))
    decided.set_string_custom_property("action", record.decision.action)
    Path(decided.uri, RECORD_FILE).write_text(record.as_json())
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
            wanted = history.retraining(record) | {"data_path": data_path}
            run = start(record.id, wanted, **starter["arguments"])
            history.note(model, record, f"training run {record.id} started", run=run)
        elif due == "roll_back":
            history.roll_back(model, record)
