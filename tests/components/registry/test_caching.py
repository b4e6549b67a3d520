"""Look-up, Evaluator and push behind TFX's launcher and a real metadata store."""

import json
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.components.common.importer import Importer
from tfx.dsl.experimental.node_execution_options import utils
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.types import standard_artifacts

from components.evaluation.evaluator import SlicedEvaluator
from components.registry import store
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
            name: Importer(source_uri=str(uri), artifact_type=kind).with_id(name)
            for name, uri, kind in (
                ("schema", self.folder / "schema", standard_artifacts.Schema),
                ("model", model, standard_artifacts.Model),
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
        limits = [{"metric": "auc", "over_champion": -1.0, "over_heuristic": -1.0}]
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
            transform_graph=others["graph"].outputs["result"],
            promote="automatic",
            config="{}",
            config_hash="",
            code="1",
            git_commit="",
        )
        utils.NodeExecutionOptions
        push.node_execution_options = utils.NodeExecutionOptions()
        return pipeline.Pipeline(
            pipeline_name="small",
            pipeline_root=str(self.folder / "root"),
            components=[data, *others.values(), lookup, evaluator, push],
            enable_cache=True,
            metadata_connection_config=self.connection,
            beam_pipeline_args=["--runner=DirectRunner", "--direct_running_mode=in_memory"],
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))
