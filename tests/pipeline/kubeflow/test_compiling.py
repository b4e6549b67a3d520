"""Packages from the graph: what must be in them, for every cluster's settings."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from components.errors import PipelineStop
from pipeline import loading
from pipeline.kubeflow import (
    batch,
    compiling,
    vertex,
)
from pipeline.kubeflow.settings import Target

TARGET = {
    "image": "registry.example.com/pipeline:1",
    "pipeline_root": "minio://mlpipeline/v2/artifacts",
    "workspace": {"claim": "workspace", "path": "/mnt/workspace"},
}


def target(**changes) -> Target:
    return Target.model_validate(TARGET | changes)


def training(*overrides: str, ingest_cached: bool = False, **changes):
    config = loading.load("automated", overrides)
    return compiling.training(config, target(**changes), ingest_cached)


def executor(package, task: str):
    return package.spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]


def task(package, name: str):
    return package.spec["root"]["dag"]["tasks"][name]


def test_the_command_writes_the_same_bytes_each_time(tmp_path):
    command = [sys.executable, "-m", "pipeline", "compile"]
    environment = {"PYTHONHASHSEED": "7", "PATH": "/usr/bin:/bin"}
    environment["PIPELINE_CONFIGS"] = os.environ["PIPELINE_CONFIGS"]  # the tests' own
    done = subprocess.run(
        command, cwd=loading.PROJECT, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "build/taxi-automated.yaml: 10 steps" in done.stdout
    assert "build/taxi-automated-continued-evaluation.yaml: 9 steps" in done.stdout
    settings = compiling.load_target("kubeflow")
    for made in compiling.compile_all("automated", [], settings, "kubeflow", tmp_path):
        first = (compiling.BUILD / made.path.name).read_bytes()
        assert made.path.read_bytes() == first
        spec, platform = yaml.safe_load_all(first)
        assert (spec, platform) == (made.package.spec, made.package.platform)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["tuning={trials: 2, search: {training.learning_rate.initial: {min: 0.001, max: 0.01}}}"],
        ["training.warm_start={version: champion}"],
        ["data.spans={count: 3}"],
        ["training.epochs=null", "training.steps=100"],
    ],
)
def test_every_configuration_passes_the_lint(overrides):
    package = training(*overrides)
    compiling.check([package], "kubeflow")
    compiling.check([package], "vertex")


def test_parameters_have_the_configuration_as_defaults():
    found = training().spec["root"]["inputDefinitions"]["parameters"]
    assert {name: each["defaultValue"] for name, each in found.items()} == {
        "data_path": "package:tfx/examples/chicago_taxi_pipeline/data/big_tipper_label",
        "span": "newest",
        "test_spans": "newest",
        "global_batch_size": 256,
        "steps": 0,
        "learning_rate": 0.001,
        "warm_start": "",
        "promote": "automatic",
        "data_fingerprint": "",
    }
    rolling = training("data.spans={count: 3}", "training.epochs=null", "training.steps=9").spec
    found = rolling["root"]["inputDefinitions"]["parameters"]
    assert json.loads(found["span"]["defaultValue"])["count"] == 3
    assert found["steps"]["defaultValue"] == 9


def test_what_looks_at_the_world_is_never_cached():
    def cached(package):
        tasks = package.spec["root"]["dag"]["tasks"].items()
        return {name for name, each in tasks if each["cachingOptions"].get("enableCache")}

    always = {"curated-schema", "statistics-gen", "example-validator", "gate", "transform"}
    always |= {"trainer", "evaluator"}
    assert cached(training()) == always
    assert cached(training(ingest_cached=True)) == always | {"example-gen"}
    assert cached(training("training.warm_start={version: 3}")) == always - {"trainer"}
    assert cached(training(steps={"Gate": {"cache": False}})) == always - {"gate"}
    named = compiling.training(loading.load("automated"), target(), trainer_cached=False)
    assert cached(named) == always - {"trainer"}


def test_what_a_step_needs_is_in_the_package():
    needs = {
        "image": "registry.example.com/gpu:1",
        "cpu": "500m",
        "memory": "2Gi",
        "memory_limit": "4Gi",
        "accelerator": {"type": "nvidia.com/gpu", "count": 2},
        "node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "volumes": [{"claim": "data", "path": "/mnt/data"}],
        "shared_memory": "1Gi",
        "env": {"TF_FORCE_GPU_ALLOW_GROWTH": "true"},
        "secrets": [{"name": "store", "keys": {"id": "AWS_ACCESS_KEY_ID"}}],
        "labels": {"team": "taxi"},
        "timeout_seconds": 60,
        "retry": {"count": 2},
    }
    package = training(steps={"Trainer": needs}, defaults={"cpu": "1", "cpu_limit": "2"})
    compiling.check([package], "kubeflow")
    container = executor(package, "trainer")
    assert container["image"] == "registry.example.com/gpu:1"
    assert container["env"] == [{"name": "TF_FORCE_GPU_ALLOW_GROWTH", "value": "true"}]
    assert container["resources"] == {
        "resourceCpuRequest": "500m",
        "resourceCpuLimit": "2",
        "resourceMemoryRequest": "2Gi",
        "resourceMemoryLimit": "4Gi",
        "accelerator": {"resourceType": "nvidia.com/gpu", "resourceCount": "2"},
    }
    assert executor(package, "gate")["resources"] == {
        "resourceCpuRequest": "1",
        "resourceCpuLimit": "2",
    }
    assert task(package, "trainer")["retryPolicy"]["backoffMaxDuration"] == "86400s"
    on_kubernetes = package.executors["exec-trainer"]
    assert [mount["mountPath"] for mount in on_kubernetes["pvcMount"]] == [
        "/mnt/data",
        "/mnt/workspace",
    ]
    assert on_kubernetes["secretAsEnv"][0]["keyToEnv"] == [
        {"secretKey": "id", "envVar": "AWS_ACCESS_KEY_ID"}
    ]
    assert on_kubernetes["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert on_kubernetes["tolerations"][0]["operator"] == "Exists"
    assert on_kubernetes["activeDeadlineSeconds"] == "60"
    assert on_kubernetes["emptyDirMounts"][0]["mountPath"] == "/dev/shm"
    assert "exec-gate" not in package.executors


def test_the_registry_is_mounted_where_it_is_used():
    mounted = {label for label, each in training().executors.items() if "pvcMount" in each}
    assert mounted == {"exec-trainer", "exec-baseline-lookup", "exec-registry-push"}


def evaluation(*overrides: str, on="kubeflow", **changes):
    return compiling.continued_evaluation("automated", [*overrides], target(**changes), on)


LOGGED = "prediction_log.enabled=true"
LATE_LABELS = (
    "continued_evaluation.labels={path: /mnt/labels, pattern: '{YYYY}-{MM}-{DD}.csv', "
    "key: id, label: big_tipper}"
)


@pytest.mark.parametrize("overrides", [[], [LOGGED], [LOGGED, LATE_LABELS]])
def test_continued_evaluation_is_one_graph_more(overrides):
    """What looks at the registry or the log has the workspace, and is never cached."""
    package = evaluation(*overrides, "data.spans={count: 4}")
    assert package.name == "taxi-automated-continued-evaluation"
    compiling.check([package], "kubeflow")
    looking = {"judged-models", "decide"}
    if overrides:
        looking |= {"served-inputs"}
    if LATE_LABELS in overrides:
        looking |= {"labelled-log"}
    mounted = {label for label, each in package.executors.items() if "pvcMount" in each}
    assert mounted == {f"exec-{name}" for name in looking}
    tasks = package.spec["root"]["dag"]["tasks"]
    uncached = {name for name, each in tasks.items() if not each["cachingOptions"]}
    assert uncached == looking | ({"example-gen"} & tasks.keys())
    found = package.spec["root"]["inputDefinitions"]["parameters"]
    assert {name: each["defaultValue"] for name, each in found.items()} == {
        "data_path": "package:tfx/examples/chicago_taxi_pipeline/data/big_tipper_label",
        "span": "newest",
    }


def test_the_decision_step_starts_a_retraining_on_kubeflow_alone():
    constants = task(evaluation(service_account="editor"), "decide")["inputs"]["parameters"]
    assert constants["run_id"] == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
    assert json.loads(constants["starter"]["runtimeValue"]["constant"]) == {
        "function": "pipeline.kubeflow.retraining:start",
        "arguments": {
            "pipeline": "taxi-automated",
            "experiment": "Default",
            "service_account": "editor",
            "pipeline_root": "minio://mlpipeline/v2/artifacts",
        },
    }
    on_vertex = evaluation(on="vertex")
    compiling.check([on_vertex], "vertex")
    assert "starter" not in task(on_vertex, "decide")["inputs"]["parameters"]


def test_with_nothing_fresh_the_steps_that_judge_are_left_out():
    package = evaluation(LOGGED)
    tasks = package.spec["root"]["dag"]["tasks"]
    conditions = {name for name, each in tasks.items() if "triggerPolicy" in each}
    assert conditions == {"drift-from-training", "drift-from-before", "evaluator", "skew", "decide"}


def test_batch_prediction_is_a_pipeline_of_one_step():
    config = loading.load("automated")
    package = batch.package(config, "automated", ["serving.port=8081"], target())
    compiling.check([package], "kubeflow")
    container = executor(package, "batch-predict")
    assert container["command"][-1] == "batch-predict"
    settings = ["workspace=/mnt/workspace", "serving.port=8081"]
    assert [container["args"][n + 1] for n, a in enumerate(container["args"]) if a == "--set"] == (
        settings
    )
    assert "pvcMount" in package.executors["exec-batch-predict"]


def test_vertex_gets_a_pipeline_job():
    needs = {"cpu": "500m", "memory": "2Gi", "accelerator": {"type": "NVIDIA_TESLA_T4", "count": 1}}
    settings = target(
        steps={"Trainer": needs},
        pipeline_root="gs://bucket/root",
        workspace={"claim": None, "path": "/gcs/bucket/workspace"},
    )
    package = compiling.training(loading.load("automated"), settings)
    job = json.loads(vertex.text(package, settings))
    json_format.ParseDict(job, pipeline_spec_pb2.PipelineJob())
    trainer = job["pipelineSpec"]["deploymentSpec"]["executors"]["exec-trainer"]["container"]
    assert trainer["resources"] == {
        "cpuLimit": 0.5,
        "memoryLimit": 2.147,
        "accelerator": {"type": "NVIDIA_TESLA_T4", "count": "1"},
    }
    assert job["runtimeConfig"]["gcsOutputDirectory"] == "gs://bucket/root"


def test_a_package_that_breaks_a_rule_is_not_written(tmp_path):
    settings = target(steps={"Gate": {"env": {"HINT": "costs $(TOO_MUCH)"}}})
    with pytest.raises(PipelineStop, match=r"taxi-automated: gate: [a-z-]+: .*\$\("):
        compiling.compile_all("automated", [], settings, "kubeflow", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_compiling_leaves_this_machine_alone(tmp_path):
    elsewhere = tmp_path / "nothing"
    training(workspace={"claim": "w", "path": str(elsewhere)})
    assert not elsewhere.exists()


def test_steps_that_the_pipeline_lacks():
    with pytest.raises(PipelineStop, match=r"lacks: Trianer\..*It has .*Trainer"):
        training(steps={"Trianer": {"cpu": "1"}})


def test_all_mistakes_of_the_settings_at_once(tmp_path):
    (tmp_path / "kubeflow.yaml").write_text(
        "image: x\npipeline_root: /tmp/here\nworkspace: {claim: w, path: mnt}\n"
        "steps:\n  Trainer: {cpu: lots, memry: 2Gi}\n"
    )
    with pytest.raises(PipelineStop) as caught:
        loading.load_as(Target, "kubeflow", [], tmp_path)
    text = str(caught.value)
    assert "has 4 mistakes" in text
    for place in ("kubeflow.yaml:2: pipeline_root", ":3: workspace.path", ":5: steps.Trainer.cpu"):
        assert place in text
    assert "did you mean 'memory'?" in text


def test_contradictions_of_the_settings(tmp_path):
    (tmp_path / "kubeflow.yaml").write_text(
        "image: x\npipeline_root: minio://a/b\nworkspace: {claim: w, path: /mnt/w}\n"
        "steps:\n  Trainer: {accelerator: {type: google.com/tpu, count: 4}, "
        "volumes: [{claim: d, path: /mnt/w}]}\n"
        "  Gate: {timeout_seconds: 60, retry: {count: 1, max_seconds: 50}}\n"
    )
    with pytest.raises(PipelineStop) as caught:
        loading.load_as(Target, "kubeflow", [], tmp_path)
    assert "gke-tpu-topology" in str(caught.value)
    assert "two volumes at /mnt/w" in str(caught.value)
    assert "must be above timeout_seconds, 60" in str(caught.value)
