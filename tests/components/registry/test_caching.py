"""Look-up, Evaluator and push behind TFX's launcher and a real metadata store."""

import json
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.components.common.importer import Importer
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.types import standard_artifacts

from components.evaluation.evaluator import SlicedEvaluator
from components.registry import labels, store
from components.registry.lookup import BaselineLookup
from components.registry.push import RegistryPush
from tests.components.evaluation import samples

STEPS = ("BaselineLookup", "SlicedEvaluator", "RegistryPush")


class Project:
    """A pipeline from a given model onward, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = str(folder / "registry" / "small")
        samples.examples(folder / "data", train=samples.rows(300), test=samples.rows(300, seed=1))
        samples.schema(folder / "schema")
        samples.statistics(folder / "statistics", train=samples.rows(300))
        self.connection = metadata.sqlite_metadata_connection_config(str(folder / "metadata.db"))

    def run(self, slope: float, rule: str = "shop == 'A'") -> tuple[str, ...]:
        """Runs with the model of a slope; says which steps ran and which were cached."""
        model = self.folder / f"model {slope}"
        if not model.exists():
            samples.model(model, slope)
        LocalDagRunner().run(self._pipeline(model, rule))
        with metadata.Metadata(self.connection) as handle:
            states = []
            for step in STEPS:
                (context,) = [
                    c for c in handle.store.get_contexts_by_type("node") if c.name.endswith(step)
                ]
                last = max(handle.store.get_executions_by_context(context.id), key=lambda e: e.id)
                state = metadata_store_pb2.Execution.State.Name(last.last_known_state)
                states.append({"COMPLETE": "ran", "CACHED": "cached"}[state])
        return tuple(states)

    def _pipeline(self, model: Path, rule: str) -> pipeline.Pipeline:
        data = Importer(
            source_uri=str(self.folder / "data"),
            artifact_type=standard_artifacts.Examples,
            properties={"split_names": json.dumps(["train", "test"])},
            custom_properties={
                "payload_format": "FORMAT_TF_EXAMPLE",
                "file_format": "tfrecords_gzip",
            },
        ).with_id("data")
        others = {
            name: Importer(
                source_uri=str(uri),
                artifact_type=kind,
                properties={"split_names": '["train"]'} if name == "statistics" else {},
            ).with_id(name)
            for name, uri, kind in (
                ("schema", self.folder / "schema", standard_artifacts.Schema),
                ("model", model, standard_artifacts.Model),
                ("statistics", self.folder / "statistics", standard_artifacts.ExampleStatistics),
                ("graph", self.folder / "schema", standard_artifacts.TransformGraph),
            )
        }
        channels: dict[str, Any] = {
            "examples": data.outputs["result"],
            "schema": others["schema"].outputs["result"],
            "model": others["model"].outputs["result"],
        }
        where = {"registry": str(self.folder / "registry"), "model_name": "small"}
        table = samples.TABLE.model_dump_json()
        limits = [{"metric": "auc", "at_least": 0.6}]
        judgement = json.dumps({"min_slice_size": 20, "thresholds": limits})
        lookup = BaselineLookup(**channels, **where, heuristic=rule, features=table, code="1")
        baseline = lookup.outputs["baseline"]
        evaluator = SlicedEvaluator(
            **channels, baseline=baseline, features=table, judgement=judgement, code="1"
        )
        push = RegistryPush(
            **channels,
            **where,
            blessing=evaluator.outputs["blessing"],
            evaluation=evaluator.outputs["evaluation"],
            baseline=baseline,
            statistics=others["statistics"].outputs["result"],
            transform_graph=others["graph"].outputs["result"],
            promote="automatic",
            config=json.dumps({"features": samples.TABLE.model_dump(mode="json")}),
            config_hash="",
            code="1",
            git_commit="",
        )
        return pipeline.Pipeline(
            pipeline_name="small",
            pipeline_root=str(self.folder / "root"),
            components=[data, *others.values(), lookup, evaluator, push],
            enable_cache=True,
            metadata_connection_config=self.connection,
            beam_pipeline_args=["--runner=DirectRunner", "--direct_running_mode=in_memory"],
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.prove
def test_what_runs_again(project: Project) -> None:
    assert project.run(1.0) == ("ran", "ran", "ran")
    assert store.read_labels(project.registry) == {"champion": 1}
    # The model is version 1 and champion by now, and still judged against the heuristic.
    assert project.run(1.0)[:2] == ("cached", "cached")
    assert project.run(2.0) == ("ran", "ran", "ran")
    assert store.read_labels(project.registry) == {"champion": 2, "previous": 1}
    judged = {version: store.read_manifest(project.registry, version) for version in (1, 2)}
    assert judged[1]["baseline"] == {"kind": "heuristic", "version": None}
    assert judged[2]["baseline"] == {"kind": "champion", "version": 1}
    for slope in (2.0, 1.0):
        assert project.run(slope)[:2] == ("cached", "cached")
    # A model that was not blessed is compared anew when there is another champion, and only then.
    assert project.run(-1.0) == ("ran", "ran", "ran")
    assert project.run(-1.0)[:2] == ("cached", "cached")
    labels.rollback(project.registry, labels.Mover("ann", "worse"))
    assert project.run(-1.0)[:2] == ("ran", "ran")
    # A changed rule counts, whoever is champion.
    assert project.run(2.0, rule="mined")[:2] == ("ran", "ran")
    assert store.list_versions(project.registry) == [1, 2]
    assert store.read_labels(project.registry) == {"champion": 1}
