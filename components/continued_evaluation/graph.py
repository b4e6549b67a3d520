"""The graph of continued evaluation. It never trains; it decides.

ExampleGen -> StatisticsGen -> CuratedSchema -> ExampleValidator -> JudgedModels
-> DriftFromTraining, DriftFromBefore -> Evaluator -> Decide

With late labels LabelledLog is in ExampleGen's place; where predictions are logged there are
ServedInputs -> ServedStatistics -> Skew beside them.
"""

import json
from typing import Any

from tfx.components.distribution_validator.component import DistributionValidator
from tfx.components.example_validator.component import ExampleValidator
from tfx.dsl.compiler import constants
from tfx.dsl.components.base.base_beam_component import BaseBeamComponent
from tfx.orchestration.data_types import RuntimeParameter
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline

from components.continued_evaluation.judging import (
    BEFORE,
    RECORD_FILE,
    TRAINING,
    Decide,
    JudgedModels,
)
from components.continued_evaluation.logged import SERVED, LabelledLog, ServedInputs
from components.continued_evaluation.measures import SPLIT, validator_config
from components.evaluation.evaluator import SlicedEvaluator
from components.evaluation.thresholds import Judgement
from components.registry.signature import column_types
from pipeline import graph
from pipeline.config import Config
from pipeline.fingerprint import code_fingerprint
from pipeline.loading import PROJECT, in_package
from pipeline.schema import read_schema
from pipeline.workspace import Workspace

__all__ = ["RECORD_FILE", "UNCACHED", "create_pipeline"]

UNCACHED = frozenset({"Decide"})
"""Nodes that look at the world each time: they always run."""
_PART = "components.continued_evaluation"


def create_pipeline(config: Config, workspace: Workspace, starter: str | None = None) -> Pipeline:
    """Wires the components.

    Args:
      config: the settings.
      workspace: has the registry.
      starter: how Decide starts a retraining (see there); without it whoever runs this does.

    Raises:
      PipelineStop: the schema file is missing or unreadable.
    """
    settings, table = config.part("continued_evaluation"), config.features
    types = column_types(read_schema(PROJECT / config.schema_file))
    compared = {name: types[name] for name in [*table.raw_columns(), table.label.column]}
    where = {"registry": str(workspace.registry), "model_name": config.registry.model}
    log = {
        **where,
        "predictions": str(workspace.predictions),
        "version": 0,
        "columns": json.dumps(types),
        "code": code_fingerprint(f"{_PART}.logged"),
    }
    source: Any = _labelled(config, log) if settings.labels else graph.example_gen(config, True)
    examples = source.outputs["examples"]
    statistics_gen = graph.statistics_of(examples, list(compared) if settings.labels else None)
    statistics = statistics_gen.outputs["statistics"]
    schema_gen = graph.curated_schema(config)
    schema = schema_gen.outputs["schema"]
    validator = ExampleValidator(statistics=statistics, schema=schema)
    judged = JudgedModels(examples=examples, **where, code=code_fingerprint(f"{_PART}.judging"))

    def moved(name: str, of: Any, limits: Any, pair: tuple[str, str], columns: Any) -> Any:
        return DistributionValidator(
            statistics=of,
            baseline_statistics=judged.outputs["references"],
            config=validator_config(limits, columns),
            include_split_pairs=[pair],
        ).with_id(name)

    trained, before = (
        moved(name, statistics, limits, (SPLIT, split), compared)
        for name, limits, split in (
            ("DriftFromTraining", settings.drift_from_training, TRAINING),
            ("DriftFromBefore", settings.drift_from_before, BEFORE),
        )
    )
    components = [source, statistics_gen, schema_gen, validator, judged, trained, before]
    served: dict[str, Any] = {}
    if config.prediction_log.enabled:
        inputs = ServedInputs(**log, days=settings.served_days)
        of_log = graph.statistics_of(inputs.outputs["examples"]).with_id("ServedStatistics")
        read = {*table.raw_columns()} - {*config.prediction_log.exclude}
        columns = {name: types[name] for name in compared if name in read}
        pair = (SERVED, TRAINING)
        skew = moved("Skew", of_log.outputs["statistics"], settings.skew, pair, columns)
        components += [inputs, of_log, skew]
        served = {"served": inputs.outputs["examples"], "skew": skew.outputs["anomalies"]}
    evaluator = _evaluator(config, examples, judged, schema)
    decide = Decide(
        examples=examples,
        statistics=statistics,
        schema=schema,
        anomalies=validator.outputs["anomalies"],
        drift_from_training=trained.outputs["anomalies"],
        drift_from_before=before.outputs["anomalies"],
        champion=judged.outputs["champion"],
        evaluation=evaluator.outputs["evaluation"],
        **served,
        **where,
        settings=settings.model_dump_json(),
        data_path=config.data.path,
        pattern=config.data.pattern,
        starter=starter or "",
        code=code_fingerprint(f"{_PART}.judging"),
        run_id=RuntimeParameter(constants.PIPELINE_RUN_ID_PARAMETER_NAME, str),
    )
    components += [evaluator, decide]
    for component in components:
        if isinstance(component, BaseBeamComponent):
            component.with_beam_pipeline_args(config.beam.flags(component.id))
    name = f"{config.name}-continued-evaluation"
    return Pipeline(
        pipeline_name=name,
        pipeline_root=str(workspace.pipeline_root / name),
        metadata_connection_config=sqlite_metadata_connection_config(str(workspace.metadata))
        if workspace.is_here
        else None,
        components=components,
        enable_cache=True,
    )


def _labelled(config: Config, log: dict[str, Any]) -> Any:
    """Logged predictions whose labels came later, in the place of a span with labels."""
    labels = config.part("continued_evaluation").labels
    return LabelledLog(
        **log,
        labels=labels.model_dump_json(),
        labels_folder=str(PROJECT / in_package("continued_evaluation.labels.path", labels.path)),
        span=str(config.data.spans),
        features=config.features.model_dump_json(),
    )


def _evaluator(config: Config, examples: Any, judged: Any, schema: Any) -> SlicedEvaluator:
    """The champion as the candidate of its previous version, with intervals, without limits."""
    judgement = Judgement(
        min_slice_size=config.evaluation.min_slice_size,
        thresholds=[],
        intervals=True,
        logged=config.part("continued_evaluation").labels is not None,
    )
    return SlicedEvaluator(
        examples=examples,
        model=judged.outputs["champion"],
        baseline=judged.outputs["baseline"],
        schema=schema,
        features=config.features.model_dump_json(),
        judgement=judgement.model_dump_json(),
        code=code_fingerprint("components.evaluation.evaluator"),
    ).with_id("Evaluator")
