"""The graph of continued evaluation. It never trains; it decides.

ExampleGen -> StatisticsGen -> CuratedSchema -> ExampleValidator -> JudgedModels
-> Evaluator -> Decide

With late labels LabelledLog is in ExampleGen's place; where predictions are logged there are
ServedInputs -> ServedStatistics beside them.
"""

import json
from typing import Any

from tfx.components.example_validator.component import ExampleValidator
from tfx.dsl.compiler import constants
from tfx.orchestration.data_types import RuntimeParameter
from tfx.orchestration.pipeline import Pipeline

from components.continued_evaluation.judging import RECORD_FILE, Decide, JudgedModels
from components.continued_evaluation.logged import LabelledLog, ServedInputs, Source
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

    The champion is the Evaluator's candidate, and its previous version the baseline; with
    confidence intervals, and without limits.

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
    columns = {"training": compared, "before": compared}
    where = {"registry": str(workspace.registry), "model_name": config.registry.model}
    code = code_fingerprint(f"{_PART}.judging")
    log = Source(
        predictions=str(workspace.predictions),
        registry=str(workspace.registry),
        model=config.registry.model,
        days=settings.served_days,
        columns=types,
    )
    source: Any = (
        _labelled(config, log.model_copy(update={"days": settings.labels.days}))
        if settings.labels
        else graph.example_gen(config, True)
    )
    examples = source.outputs["examples"]
    statistics_gen = graph.statistics_of(examples, list(compared) if settings.labels else None)
    statistics = statistics_gen.outputs["statistics"]
    schema_gen = graph.curated_schema(config)
    schema = schema_gen.outputs["schema"]
    validator = ExampleValidator(statistics=statistics, schema=schema)
    judged = JudgedModels(examples=examples, **where, code=code)
    champion, served = judged.outputs["champion"], {}
    components = [source, statistics_gen, schema_gen, validator, judged]
    if config.prediction_log.enabled:
        inputs = ServedInputs(log=log.model_dump_json(), code=code_fingerprint(f"{_PART}.logged"))
        of_log = graph.statistics_of(inputs.outputs["examples"]).with_id("ServedStatistics")
        served["served"] = of_log.outputs["statistics"]
        unread = {table.label.column, *config.prediction_log.exclude}
        columns["served"] = {name: kind for name, kind in compared.items() if name not in unread}
        components += [inputs, of_log]
    judgement = Judgement(
        min_slice_size=config.evaluation.min_slice_size,
        thresholds=[],
        intervals=True,
        logged=settings.labels is not None,
    )
    baseline = judged.outputs["baseline"]
    evaluator = graph.evaluator_of(config, examples, champion, baseline, schema, judgement)
    decide = Decide(
        examples=examples,
        statistics=statistics,
        schema=schema,
        anomalies=validator.outputs["anomalies"],
        champion=champion,
        evaluation=evaluator.outputs["evaluation"],
        **served,
        **where,
        settings=settings.model_dump_json(),
        columns=json.dumps(columns),
        data_path=config.data.path,
        pattern=config.data.pattern,
        starter=starter or "",
        code=code,
        run_id=RuntimeParameter(constants.PIPELINE_RUN_ID_PARAMETER_NAME, str),
    )
    name = f"{config.name}-continued-evaluation"
    return graph.pipeline_of(name, [*components, evaluator, decide], config, workspace)


def _labelled(config: Config, log: Source) -> Any:
    """Logged predictions whose labels came later, in the place of a span with labels."""
    labels = config.part("continued_evaluation").labels
    return LabelledLog(
        log=log.model_dump_json(),
        labels=labels.model_dump_json(),
        labels_folder=str(PROJECT / in_package("continued_evaluation.labels.path", labels.path)),
        span=str(config.data.spans),
        features=config.features.model_dump_json(),
        code=code_fingerprint(f"{_PART}.logged"),
    )
