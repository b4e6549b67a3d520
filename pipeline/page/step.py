"""The page on a cluster: a last step writes it, for KFP's interface to show."""

import os
from pathlib import Path

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import Artifact, standard_artifacts

from components.evaluation.results import METRICS_FILE
from components.evaluation.slices import OVERALL
from components.evaluation.thresholds import CANDIDATE
from components.gate import GateReport
from pipeline.config import config_model
from pipeline.page.contents import Facts, properties
from pipeline.page.writing import run_page


class HTML(Artifact):
    """A page: its URI is the file."""

    TYPE_NAME = "HTML"


class Metrics(Artifact):
    """The model's metrics over all test rows, as custom properties."""

    TYPE_NAME = "Metrics"


@component
def RunPage(
    examples: InputArtifact[standard_artifacts.Examples],
    statistics: InputArtifact[standard_artifacts.ExampleStatistics],
    report: InputArtifact[GateReport],
    transform_graph: InputArtifact[standard_artifacts.TransformGraph],
    model: InputArtifact[standard_artifacts.Model],
    evaluation: InputArtifact[standard_artifacts.ModelEvaluation],
    pushed: InputArtifact[standard_artifacts.PushedModel],
    page: OutputArtifact[HTML],
    metrics: OutputArtifact[Metrics],
    registry: Parameter[str],
    config: Parameter[str],
    config_hash: Parameter[str],
    code: Parameter[str],
    git_commit: Parameter[str],
    run_id: Parameter[str],
) -> None:
    """Writes the page of a run, and its metrics as properties."""
    settings = config_model().model_validate_json(config)
    facts = Facts(
        run_id=run_id,
        config=settings,
        outputs={
            "ExampleGen": {"examples": examples.uri},
            "StatisticsGen": {"statistics": statistics.uri},
            "Gate": {"report": report.uri},
            "Transform": {"transform_graph": transform_graph.uri},
            "Trainer": {"model": model.uri},
            "Evaluator": {"evaluation": evaluation.uri},
            "RegistryPush": {"pushed": pushed.uri},
        },
        registry=Path(registry, settings.registry.model),
        examples=properties(examples.mlmd_artifact),
        provenance={"code": code, "git_commit": git_commit, "config_hash": config_hash},
    )
    os.rmdir(page.uri)  # runtimes make a folder of each output; KFP's interface reads a file
    Path(page.uri).write_text(run_page(facts, alone=True), encoding="utf-8")
    found = facts.read("Evaluator", "evaluation", METRICS_FILE)["metrics"]
    for name, value in found[CANDIDATE][OVERALL].items():
        if value is not None:
            metrics.set_float_custom_property(name, value)
