"""The graph of continued evaluation. It never trains; it decides.

ExampleGen -> StatisticsGen -> CuratedSchema -> ExampleValidator -> JudgedModels
-> DriftFromTraining, DriftFromBefore -> Evaluator -> Decide

With late labels LabelledLog is in ExampleGen's place; where predictions are logged there are
ServedInputs -> ServedStatistics -> Skew beside them.
"""

import json
from typing import Any

from tfx.components import DistributionValidator, ExampleValidator
from tfx.dsl.components.base.base_beam_component import BaseBeamComponent
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline

from components.continued_evaluation import drift
from components.continued_evaluation.assembling import SPLIT
from components.continued_evaluation.component import RECORD_FILE, Decide
from components.continued_evaluation.joined import SERVED, LabelledLog, ServedInputs
from components.continued_evaluation.lookup import BEFORE, TRAINING, JudgedModels
from components.evaluation.evaluator import SlicedEvaluator
from components.evaluation.thresholds import Judgement
from pipeline import graph
from pipeline.config import Config
from pipeline.fingerprint import code_fingerprint
from pipeline.loading import PROJECT, in_package
from pipeline.schema import column_types, read_schema
from pipeline.workspace import Workspace

__all__ = ["RECORD_FILE", "UNCACHED", "create_pipeline"]

UNCACHED = frozenset({"Decide"})
"""Nodes that look at the world each time: they always run."""


def create_pipeline(config: Config, workspace: Workspace, starter: str | None = None) -> Pipeline:
    """Wires the components.

    Args:
      config: the settings.
      workspace: has the registry.
      starter: how Decide starts a retraining (see there); without it whoever runs this does.

    Raises:
      PipelineStop: the schema file is missing or unreadable.
    """
    source = _source(config, workspace)
    examples = source.outputs["examples"]
    compared = _columns(config)
    is_logged = config.part("continued_evaluation").labels is not None
    statistics_gen = graph.statistics_of(examples, list(compared) if is_logged else None)
    statistics = statistics_gen.outputs["statistics"]
    schema_gen = graph.curated_schema(config)
    schema = schema_gen.outputs["schema"]
    validator = ExampleValidator(statistics=statistics, schema=schema)
    where = {"registry": str(workspace.registry), "model_name": config.registry.model}
    code = code_fingerprint("components.continued_evaluation.lookup")
    judged = JudgedModels(examples=examples, **where, code=code)
    references = judged.outputs["references"]
    drifts = _drifts(config, statistics, references)
    log = _served(config, workspace, references) if config.prediction_log.enabled else []
    evaluator = _evaluator(config, examples, judged, schema)
    decide = Decide(
        examples=examples,
        statistics=statistics,
        schema=schema,
        anomalies=validator.outputs["anomalies"],
        drift_from_training=drifts[0].outputs["anomalies"],
        drift_from_before=drifts[1].outputs["anomalies"],
        champion=judged.outputs["champion"],
        evaluation=evaluator.outputs["evaluation"],
        served=log[0].outputs["examples"] if log else None,
        skew=log[-1].outputs["anomalies"] if log else None,
        **where,
        settings=config.part("continued_evaluation").model_dump_json(),
        data_path=config.data.path,
        pattern=config.data.pattern,
        starter=starter,
        code=code_fingerprint("components.continued_evaluation.component"),
    )
    components = [source, statistics_gen, schema_gen, validator, judged, *drifts, *log]
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


def _source(config: Config, workspace: Workspace) -> Any:
    """The fresh rows: a span with labels, or logged predictions whose labels came later."""
    labels = config.part("continued_evaluation").labels
    if labels is None:
        return graph.example_gen(config, fresh=True)
    return LabelledLog(
        predictions=str(workspace.predictions),
        registry=str(workspace.registry),
        model_name=config.registry.model,
        version=0,
        labels=labels.model_dump_json(),
        labels_folder=str(PROJECT / in_package("continued_evaluation.labels.path", labels.path)),
        span=str(config.data.spans),
        features=config.features.model_dump_json(),
        columns=json.dumps(_types(config)),
        code=code_fingerprint("components.continued_evaluation.joined"),
    )


def _types(config: Config) -> dict[str, str]:
    return column_types(read_schema(PROJECT / config.schema_file))


def _columns(config: Config) -> dict[str, str]:
    """What is compared: the columns that the model reads, and the label, each with its type."""
    types, table = _types(config), config.features
    return {name: types[name] for name in [*table.raw_columns(), table.label.column]}


def _drifts(config: Config, statistics: Any, references: Any) -> list[DistributionValidator]:
    """Comparisons with the champion's training rows, and with the span before."""
    settings, columns = config.part("continued_evaluation"), _columns(config)
    return [
        DistributionValidator(
            statistics=statistics,
            baseline_statistics=references,
            config=drift.validator_config(limits, columns),
            include_split_pairs=[(SPLIT, split)],
        ).with_id(name)
        for name, limits, split in (
            ("DriftFromTraining", settings.drift_from_training, TRAINING),
            ("DriftFromBefore", settings.drift_from_before, BEFORE),
        )
    ]


def _served(config: Config, workspace: Workspace, references: Any) -> list[Any]:
    """What the champion was given to predict, beside what it was trained on."""
    read = set(config.features.raw_columns()) - set(config.prediction_log.exclude)
    columns = {name: kind for name, kind in _columns(config).items() if name in read}
    inputs = ServedInputs(
        predictions=str(workspace.predictions),
        registry=str(workspace.registry),
        model_name=config.registry.model,
        version=0,
        days=config.part("continued_evaluation").served_days,
        columns=json.dumps(_types(config)),
        code=code_fingerprint("components.continued_evaluation.joined"),
    )
    statistics = graph.statistics_of(inputs.outputs["examples"]).with_id("ServedStatistics")
    skew = DistributionValidator(
        statistics=statistics.outputs["statistics"],
        baseline_statistics=references,
        config=drift.validator_config(config.part("continued_evaluation").skew, columns),
        include_split_pairs=[(SERVED, TRAINING)],
    )
    return [inputs, statistics, skew.with_id("Skew")]


def _evaluator(config: Config, examples: Any, judged: Any, schema: Any) -> SlicedEvaluator:
    """The champion as the candidate of its previous version, with intervals, without limits."""
    size = config.evaluation.min_slice_size
    is_logged = config.part("continued_evaluation").labels is not None
    judgement = Judgement(min_slice_size=size, thresholds=[], intervals=True, logged=is_logged)
    return SlicedEvaluator(
        examples=examples,
        model=judged.outputs["champion"],
        baseline=judged.outputs["baseline"],
        schema=schema,
        features=config.features.model_dump_json(),
        judgement=judgement.model_dump_json(),
        code=code_fingerprint("components.evaluation.evaluator"),
    ).with_id("Evaluator")
