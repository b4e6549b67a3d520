"""Decide: from what was measured to a decision, filed in the registry's history."""

import json
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import types
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils

from components import files
from components.continued_evaluation import evidence as ev
from components.continued_evaluation import history, logged, measures
from components.continued_evaluation.decision import decide
from components.continued_evaluation.judged import JUDGED_FILE, Judged
from components.continued_evaluation.settings import ContinuedEvaluation
from components.errors import PipelineStop
from components.evaluation.results import METRICS_FILE
from components.evaluation.thresholds import BASELINE, CANDIDATE, GAIN, HEURISTIC, LOGGED
from components.ingest.spans import has_spans
from components.registry import store

RECORD_FILE = "record.json"
SPLIT = logged.SPLIT
"""Ingest puts every row of a fresh span here."""
_MODELS = {CANDIDATE: "champion", BASELINE: "previous", HEURISTIC: "heuristic", LOGGED: "logged"}


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
    model, chosen = os.path.join(registry, model_name), _settings(settings)
    drifts = {"training": drift_from_training, "before": drift_from_before}
    if skew is not None and served.get_int_custom_property("rows_served"):
        drifts["served"] = skew
    span = _Span(model, examples, statistics, schema, anomalies, champion, evaluation, drifts)
    found, hashes = span.evidence(chosen)
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
    record = history.add(model, record, span.statistics, measures.sketch(hashes))
    decided.set_string_custom_property("action", record.decision.action)
    Path(decided.uri, RECORD_FILE).write_text(record.model_dump_json(indent=1))
    reasons = "; ".join(reason.text for reason in record.decision.reasons)
    logging.info("%s: %s: %s", record.id, record.decision.action, reasons or "no reason")
    if starter:
        follow(json.loads(starter), data_path, model, record, chosen)


def _settings(text: str) -> ContinuedEvaluation:
    return ContinuedEvaluation.model_validate_json(text)


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


class _Span:
    """What the components before have written about a span, and the evidence in it."""

    def __init__(
        self,
        model: str,
        examples: types.Artifact,
        statistics: types.Artifact,
        schema: types.Artifact,
        anomalies: types.Artifact,
        champion: types.Artifact,
        evaluation: types.Artifact,
        drifts: dict[Any, types.Artifact],
    ) -> None:
        self._model, self._examples, self._champion = model, examples, champion
        self._drifts = drifts
        self.statistics = _split_file(statistics, "FeatureStats.pb")
        self._anomalies = anomalies_pb2.Anomalies.FromString(
            _split_file(anomalies, "SchemaDiff.pb")
        )
        self._schema = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(schema.uri))
        self._judged = Judged.model_validate_json(Path(champion.uri, JUDGED_FILE).read_text())
        self._measured = json.loads(Path(evaluation.uri, METRICS_FILE).read_text())
        self._manifest = store.read_manifest(model, self._judged.champion)
        self._past = history.read_all(model)
        self._number = examples.get_int_custom_property("span")
        self._is_logged = examples.has_custom_property(logged.JUDGED_VERSION)

    def evidence(self, settings: ContinuedEvaluation) -> tuple[ev.Evidence, np.ndarray]:
        """The evidence, and the hashes of the span's rows, uint64 [rows]."""
        judged, manifest = self._judged, self._manifest
        metrics, joined, answers = self._metrics(), None, None
        if self._is_logged:
            self._check_version()
            joined = ev.Joined.model_validate_json(
                Path(self._examples.uri, logged.JOINED_FILE).read_text()
            )
            columns = json.loads(self._examples.get_string_custom_property(logged.LOGGED_COLUMNS))
            if {*manifest["signature"]["inputs"]} <= {*columns}:
                tolerance = settings.prediction_skew.tolerance
                answers = measures.answers(self._examples, SPLIT, self._champion, tolerance)
            else:  # All other models would be judged on rows with holes.
                metrics = {"logged": metrics["logged"]}
        hashes = measures.hashes(self._examples, SPLIT, self._schema)
        moved, vanished = self._moved()
        promoted = manifest["metrics"]
        evidence = ev.Evidence(
            span=self._number,
            rows=self._rows(hashes),
            champion=judged.champion,
            previous=judged.previous,
            metrics=metrics,
            rows_by_slice=self._measured["rows"],
            promoted={"champion": promoted[CANDIDATE], HEURISTIC: promoted.get(HEURISTIC, {})},
            promoted_rows=manifest["rows_by_slice"],
            heuristic_before=self._heuristic_before(),
            moved=moved,
            anomalies=[*self._errors(), *vanished],
            joined=joined,
            answers=answers,
            age=self._age(),
            spans_since_retraining=self._since_retraining(),
        )
        return evidence, hashes

    def _check_version(self) -> None:
        """Another process may have moved the champion between two components."""
        version = self._examples.get_int_custom_property(logged.JUDGED_VERSION)
        if version != self._judged.champion:
            raise PipelineStop(
                f"The predictions are version {version}'s, and by now the champion is "
                f"{self._judged.champion}. Run again."
            )

    def _metrics(self) -> dict[str, ev.Metrics]:
        """All values by model with their intervals, and the gain over the previous version."""
        names = _MODELS | ({GAIN: "over_previous"} if self._judged.previous is not None else {})
        return {
            names[model]: {
                place: {
                    name: ev.Value(value=value, low=low, high=high)
                    for name, (value, low, high) in values.items()
                }
                for place, values in by_slice.items()
            }
            for model, by_slice in self._measured["intervals"].items()
            if model in names
        }

    def _heuristic_before(self) -> dict[str, ev.Value]:
        if self._judged.before is None:
            return {}
        found = history.read(self._model, self._judged.before).evidence.metrics
        return found.get(HEURISTIC, {}).get(ev.OVERALL, {})

    def _moved(self) -> tuple[list[ev.Moved], list[ev.Anomaly]]:
        """What has moved, and the columns that are newly empty."""
        found = [
            measures.drift_found(artifact, against)
            for against, artifact in self._drifts.items()
            if against != "before" or self._judged.before is not None
        ]
        version = Path(store.version_folder(self._model, self._judged.champion))
        training = (version / store.EXTRA / "statistics" / "FeatureStats.pb").read_bytes()
        never = measures.empty_columns(self.statistics) & measures.empty_columns(training)
        return (
            [moved for moves, _ in found for moved in moves],
            [gone for _, vanished in found for gone in vanished if gone.column not in never],
        )

    def _errors(self) -> Iterator[ev.Anomaly]:
        """Errors of TFDV's validation by the schema; the log has no columns but the model's."""
        infos = [*sorted(self._anomalies.anomaly_info.items())]
        infos.append(("", self._anomalies.dataset_anomaly_info))
        for column, info in infos:
            for reason in info.reason if info.severity == info.ERROR else ():
                kind = anomalies_pb2.AnomalyInfo.Type.Name(reason.type)
                if not (self._is_logged and kind == "SCHEMA_MISSING_COLUMN"):
                    what = reason.description.strip() or reason.short_description
                    yield ev.Anomaly(column="".join(info.path.step) or column, kind=kind, what=what)

    def _rows(self, hashes: np.ndarray) -> ev.Rows:
        spans = {r.evidence.span: r.id for r in self._past if r.evidence.span != self._number}
        paths = (history.path_of(self._model, name, history.HASHES) for name in spans.values())
        known = (np.load(path, mmap_mode="r") for path in paths)
        repeated, seen_before = measures.shares(hashes, known)
        return ev.Rows(total=len(hashes), repeated=repeated, seen_before=seen_before)

    def _age(self) -> ev.Age:
        """In spans only where the spans are of data: not those of labels."""
        trained = [span for data in self._manifest["data"] for span in json.loads(data["spans"])]
        made = datetime.fromisoformat(self._manifest["time"]).astimezone(UTC)
        spans = None if self._is_logged else max(self._number - max(trained), 0)
        return ev.Age(spans=spans, days=(datetime.now(UTC) - made).total_seconds() / 86400)

    def _since_retraining(self) -> int | None:
        """Evaluated spans since the last decision to retrain, this one included."""
        spans = [(r.evidence.span, r.decision.action) for r in self._past]
        due = [span for span, action in spans if action == "retrain" and span < self._number]
        if not due:
            return None
        return 1 + len({span for span, _ in spans if max(due) < span < self._number})


def _split_file(artifact: types.Artifact, name: str) -> bytes:
    return Path(artifact_utils.get_split_uri([artifact], SPLIT), name).read_bytes()
