"""Everything that Kubeflow's part takes from TFX's inside still is as it was."""

import subprocess
import sys
from pathlib import Path

import pytest
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner
from tfx.types import standard_artifacts

from components.gate.component import GateReport
from pipeline import graph, loading
from pipeline.kubeflow import compiling, tfx_internals
from pipeline.kubeflow.settings import Target
from pipeline.workspace import Workspace


def in_a_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=loading.PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_step_imports_no_other_component():
    found = in_a_process(
        "import sys; from pipeline.kubeflow import tfx_internals as t\n"
        "t.import_no_more_than_needed()\n"
        "import tfx.components.trainer.executor\n"
        "print('tfx.components.pusher.component' in sys.modules)"
    )
    assert found == "False"


def test_a_name_of_the_package_brings_all_of_it():
    found = in_a_process(
        "from pipeline.kubeflow import tfx_internals as t\n"
        "t.import_no_more_than_needed()\n"
        "import tfx.components.trainer.executor\n"
        "from tfx.components import Evaluator, Trainer\n"
        "import tensorflow_model_analysis as tfma\n"
        "print(Trainer.__name__, hasattr(tfma, 'EvalConfig'))"
    )
    assert found == "Trainer True"


def test_artifacts_go_there_and_back():
    given = {
        "name": "81",
        "type": {"instanceSchema": ""},
        "uri": "minio://b/k",
        "metadata": {
            "custom:span": 3,
            "split_names": '["train"]',
            "rows_train": 17,
            "rate": 0.5,
            "spans": "[3]",
        },
    }
    artifact = tfx_internals.artifact(given, "tfx.types.standard_artifacts.Examples")
    assert isinstance(artifact, standard_artifacts.Examples)
    assert (artifact.id, artifact.uri, artifact.split_names) == (81, "minio://b/k", '["train"]')
    assert artifact.get_int_custom_property("rows_train") == 17
    assert artifact.get_float_custom_property("rate") == 0.5
    assert artifact.get_string_custom_property("spans") == "[3]"
    assert artifact.mlmd_artifact.custom_properties["rows_train"].int_value == 17
    assert tfx_internals.metadata(artifact) == given["metadata"]


def test_a_property_of_several_values_goes_there():
    """As TFX's DistributionValidator sets it."""
    artifact = standard_artifacts.ExampleAnomalies()
    artifact.set_json_value_custom_property("blessed", {"test_training": 1})
    assert tfx_internals.metadata(artifact) == {"blessed": {"test_training": 1.0}}
    stored = {"uri": "x", "metadata": {"blessed": {"struct": {"test_training": 1}}}}
    again = tfx_internals.artifact(stored, "tfx.types.standard_artifacts.ExampleAnomalies")
    assert again.get_json_value_custom_property("blessed") == {"struct": {"test_training": 1.0}}


def test_what_has_no_value_is_not_handed_over():
    artifact = standard_artifacts.ExampleAnomalies()
    artifact.split_names = '["train"]'
    artifact.mlmd_artifact.custom_properties["nothing"].CopyFrom(
        type(artifact.mlmd_artifact.custom_properties["nothing"])()
    )
    assert tfx_internals.metadata(artifact) == {"split_names": '["train"]'}


def test_a_type_of_ours():
    schema = tfx_internals.instance_schema(GateReport)
    assert schema == "title: tfx.GateReport\ntype: object\n"
    kind = f"{GateReport.__module__}.{GateReport.__name__}"
    assert isinstance(tfx_internals.artifact({"uri": "x"}, kind), GateReport)


@pytest.mark.filterwarnings("ignore")
def test_components_are_described_as_tfx_describes_them(monkeypatch):
    """TFX's own compiler, where it works, is the yardstick."""
    monkeypatch.setattr(GateReport, "TYPE_NAME", "gate.GateReport")  # TFX refuses our name
    config = loading.load("automated")
    pipeline = graph.create_pipeline(config, Workspace(Path("/mnt/workspace"), is_here=False))
    runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(
        kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
            default_image="x", use_pipeline_spec_2_1=True
        )
    )
    theirs = runner.run(pipeline, write_out=False)["pipelineSpec"]
    settings = Target.model_validate(
        {
            "image": "x",
            "pipeline_root": "minio://a/b",
            "workspace": {"claim": "w", "path": "/mnt/workspace"},
        }
    )
    ours = compiling.training(config, settings).spec
    for component, task in (
        ("StatisticsGen", "statistics-gen"),
        ("ExampleValidator", "example-validator"),
        ("Transform", "transform"),
        ("Evaluator", "evaluator"),
    ):
        expected, found = theirs["components"][component], ours["components"][f"comp-{task}"]
        assert found["inputDefinitions"] == expected["inputDefinitions"], component
        assert found["outputDefinitions"] == expected["outputDefinitions"], component
        for kind in ("parameters", "artifacts"):
            wanted = theirs["root"]["dag"]["tasks"][component]["inputs"].get(kind, {})
            given = ours["root"]["dag"]["tasks"][task]["inputs"].get(kind, {})
            assert given.keys() == wanted.keys(), component
