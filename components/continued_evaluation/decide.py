"""Decide: from what was measured to a decision, filed in the registry's history."""

import json
import logging
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts

from components import files
from components.continued_evaluation import history, measures
from components.continued_evaluation.decision import decide
from components.continued_evaluation.settings import ContinuedEvaluation
from components.ingest.spans import has_spans
from components.registry import store

RECORD_FILE = "record.json"


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
