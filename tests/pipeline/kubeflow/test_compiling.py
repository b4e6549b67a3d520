"""What compiling writes, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.errors import PipelineStop
from pipeline import graph, loading
from pipeline.kubeflow import compiling, parameters, step
from pipeline.workspace import Workspace

ALL = {
    "image": "registry.example/x:1",
    "image_pull_policy": "Always",
    "image_pull_secrets": ["pull"],
    "pipeline_root": "s3://bucket/root",
    "service_account": "runner",
    "workspace": {"claim": "workspace", "path": "/mnt/workspace"},
    "defaults": {"cpu": "500m", "memory": "2Gi", "retry": {"count": 2}, "run_as_user": 12345},
    "steps": {
        "Trainer": {
            "image": "registry.example/gpu:1",
            "cpu_limit": "2",
            "memory_limit": "8Gi",
            "accelerator": {"type": "nvidia.com/gpu", "count": 2},
            "node_selector": {"disk": "ssd"},
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "volumes": [{"claim": "data", "path": "/mnt/data"}],
            "shared_memory": "1Gi",
            "env": {"LEVEL": "1"},
            "secrets": [{"name": "store", "keys": {"key": "STORE_KEY"}}],
            "labels": {"team": "a"},
            "annotations": {"note": "b"},
            "run_as_group": 7,
            "timeout_seconds": 86400,
            "retry": {"count": 5, "seconds": 30, "factor": 3, "max_seconds": 604800},
            "cache": False,
        }
    },
}


@pytest.fixture
def configs(tmp_path) -> Path:
    """A folder of settings, with `kubeflow.yaml` to be written."""
    for file in loading.CONFIGS.iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    return tmp_path


def target(configs: Path, text: str, name: str = "kubeflow"):
    (configs / f"{name}.yaml").write_text(text)
    return compiling.load_target(name, configs=configs)


@pytest.fixture(scope="module")
def trained():
    return compiling.training(parameters.load("automated"), compiling.load_target("kubeflow"))


@pytest.fixture(scope="module")
def spec(trained):
    return documents(trained)[0]


def documents(package):
    return list(yaml.load_all(package.content, yaml.CSafeLoader))


def test_every_setting_of_a_cluster_reaches_the_package(configs):
    package = compiling.training(parameters.load("automated"), target(configs, yaml.safe_dump(ALL)))
    spec, platform = documents(package)
    container = spec["deploymentSpec"]["executors"]["exec-trainer"]["container"]
    assert container["image"] == "registry.example/gpu:1"
    assert {"name": "LEVEL", "value": "1"} in container["env"]
    resources = container["resources"]
    assert resources["resourceCpuRequest"] == "500m"
    assert (resources["resourceCpuLimit"], resources["resourceMemoryLimit"]) == ("2", "8Gi")
    assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert resources["accelerator"]["resourceCount"] == "2"
    task = spec["root"]["dag"]["tasks"]["trainer"]
    assert task["cachingOptions"] == {}
    assert task["retryPolicy"] == {
        "maxRetryCount": 5,
        "backoffDuration": "30s",
        "backoffFactor": 3.0,
        "backoffMaxDuration": "604800s",
    }
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    pod = executors["exec-trainer"]
    mounts = {one["pvcNameParameter"]["runtimeValue"]["constant"]: one for one in pod["pvcMount"]}
    assert mounts["workspace"]["mountPath"] == "/mnt/workspace"
    assert mounts["data"]["mountPath"] == "/mnt/data"
    assert pod["nodeSelector"]["labels"] == {"disk": "ssd"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["secretAsEnv"][0]["keyToEnv"] == [{"secretKey": "key", "envVar": "STORE_KEY"}]
    assert pod["podMetadata"] == {"labels": {"team": "a"}, "annotations": {"note": "b"}}
    assert pod["activeDeadlineSeconds"] == "86400"
    assert pod["emptyDirMounts"][0]["mountPath"] == "/dev/shm"
    assert pod["imagePullPolicy"] == "Always"
    assert pod["imagePullSecret"][0]["secretName"] == "pull"
    assert pod["securityContext"] == {
        **{"runAsUser": "12345", "runAsGroup": "7", "runAsNonRoot": True}
    }
    assert "pvcMount" not in executors["exec-transform"]
    tasks = spec["root"]["dag"]["tasks"]
    assert tasks["transform"]["retryPolicy"]["backoffMaxDuration"] == "86400s"


def test_parameters_have_defaults_and_descriptions(spec):
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert parameters["learning_rate"]["parameterType"] == "NUMBER_DOUBLE"
    assert parameters["learning_rate"]["defaultValue"] == 0.001
    assert parameters["steps"]["defaultValue"] == 0
    assert parameters["warm_start"]["defaultValue"] == ""
    assert all(one["description"] and one["isOptional"] for one in parameters.values())


def default():
    return compiling.load_target("kubeflow")


def test_what_looks_at_the_registry_is_never_cached(spec):
    tasks = spec["root"]["dag"]["tasks"]
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert set(tasks) - cached == {"example-gen", "baseline-lookup", "registry-push"}
    ingested = compiling.training(parameters.load("automated"), default(), ingest_cached=True)
    again = ingested.made.pipeline_spec.root.dag.tasks
    assert again["example-gen"].caching_options.enable_cache


def keys(*overrides):
    config = parameters.load("automated", overrides)
    made = graph.create_pipeline(config, Workspace(Path("/mnt/w"), is_here=False))
    return {component.id: compiling.settings_hash(component) for component in made.components}


def test_a_changed_setting_changes_the_cache_key_of_the_steps_that_depend_on_it():
    before = keys()
    after = keys("training.learning_rate.initial=0.002")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"Trainer", "RegistryPush", "RunPage"}
    after = keys("features.columns.company.top_k=40")
    assert "Transform" in {name for name in before if before[name] != after[name]}
    assert after["ExampleGen"] == before["ExampleGen"]


def test_steps_of_the_package_make_the_same_components_again(trained):
    """With the settings that differ from the defaults, and in another folder."""
    config = parameters.load("automated")
    told = trained.steps
    expected = {
        c.id: compiling.settings_hash(c)
        for c in graph.create_pipeline(
            config, Workspace(Path("/mnt/workspace"), is_here=False)
        ).components
    }
    for name in ("ExampleGen", "Transform", "Trainer", "Evaluator", "RegistryPush"):
        found = step.make_component(told[name], {"run_id": "r", "learning_rate": 0.001})
        assert compiling.settings_hash(found) == expected[name], name
    pushed = step.make_component(told["RegistryPush"], {"run_id": "r", "learning_rate": 0.5})
    settings = json.loads(pushed.exec_properties["config"])
    assert settings["training"]["learning_rate"]["initial"] == 0.5
    assert pushed.exec_properties["run_id"] == "r"
    assert pushed.exec_properties["git_commit"] == told["RegistryPush"]["git_commit"]
    there = step.make_component(told["ExampleGen"], {"data_path": "gs://bucket/rows"})
    assert there.exec_properties["input_base"] == "gs://bucket/rows"


def test_a_step_of_the_package_makes_and_describes_its_output(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    told = trained.steps["CuratedSchema"]
    monkeypatch.setenv("PIPELINE_STEP", json.dumps(told))
    uri, file = "minio://bucket/run/schema", tmp_path / "minio" / "bucket" / "output.json"
    artifacts = {"schema": {"artifacts": [{"name": "schema", "uri": uri}]}}
    outputs = {"artifacts": artifacts, "outputFile": str(file)}
    given = json.dumps({"inputs": {}, "outputs": outputs})
    assert step.main(["CuratedSchema", given, "--stores", f"{tmp_path}/"]) == 0
    [made] = json.loads(file.read_text())["artifacts"]["schema"]["artifacts"]
    assert made["uri"] == uri
    assert list((tmp_path / "minio" / "bucket" / "run" / "schema").iterdir())
    monkeypatch.setenv("PIPELINE_STEP", json.dumps(told | {"code": "other"}))
    assert step.main(["CuratedSchema", given, "--stores", f"{tmp_path}/"]) == 1


def test_a_container_is_another_for_each_component(spec):
    """The backend files components by their containers."""
    containers = [one["container"] for one in spec["deploymentSpec"]["executors"].values()]
    assert len({json.dumps([c["command"], c["args"]]) for c in containers}) == len(containers)


_BYTES = """
from pipeline.kubeflow import compiling
targets = [compiling.load_target(name) for name in ("kubeflow", "vertex")]
print([made.digest for each in targets for made in compiling.packages("automated", [], each)])
"""


@pytest.mark.prove
def test_the_same_bytes_each_time():
    told = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", _BYTES],
            cwd=loading.PROJECT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    assert told[0] == told[1]


def test_continued_evaluation_decides_behind_a_condition_and_retrains_with_this_package(trained):
    pytest.importorskip("components.continued_evaluation")
    package = compiling.continued_evaluation("automated", [], default(), trained)
    spec, _ = documents(package)
    tasks = spec["root"]["dag"]["tasks"]
    assert "fresh']) == 1" in tasks["condition-1"]["triggerPolicy"]["condition"]
    behind = spec["components"]["comp-condition-1"]["dag"]["tasks"]
    assert {"evaluator", "decide"} == set(behind)
    assert spec["components"]["comp-judged-models"]["outputDefinitions"]["parameters"] == {
        "fresh": {"parameterType": "NUMBER_INTEGER"}
    }
    starter = json.loads(package.steps["Decide"]["more"]["starter"])
    assert starter["arguments"]["digest"] == trained.digest
    assert starter["arguments"]["pipeline"] == trained.name


def test_both_forms_of_continued_evaluation_compile(trained):
    pytest.importorskip("components.continued_evaluation")
    late = [
        "prediction_log={enabled: true}",
        "continued_evaluation.labels={path: data/labels, pattern: '{SPAN}.csv', key: k, label: l}",
    ]
    package = compiling.continued_evaluation("automated", late, default(), trained)
    assert {"labelled-log", "served-inputs", "served-statistics"} <= set(package.tasks)


def test_batch_prediction_is_the_command_in_a_container():
    pytest.importorskip("components.batch_prediction")
    setting = "gate.stop_on=error"
    spec, platform = documents(compiling.batch_prediction("automated", [setting], default()))
    container = spec["deploymentSpec"]["executors"]["exec-batch-predict"]["container"]
    assert container["command"] == ["python", "-m", "pipeline"]
    text = " ".join(container["args"])
    assert text.startswith(
        f"batch-predict --config automated --set workspace=/mnt/workspace --set {setting} --input"
    )
    run = "{{$.inputs.parameters['output']}}/{{$.inputs.parameters['run']}}"
    assert run in container["args"]
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors["exec-batch-predict"]["pvcMount"]


def test_vertex_gets_limits_and_no_kubernetes():
    package = compiling.training(parameters.load("automated"), compiling.load_target("vertex"))
    job = json.loads(package.content)
    assert job["runtimeConfig"]["gcsOutputDirectory"].startswith("gs://")
    executors = job["pipelineSpec"]["deploymentSpec"]["executors"]
    resources = executors["exec-trainer"]["container"]["resources"]
    assert (resources["cpuLimit"], resources["memoryLimit"]) == (8.0, 32.0)
    assert not {"cpuRequest", "memoryRequest"} & resources.keys()


WRONG = """\
image: x
pipeline_root: minio://a/b
workspace: {claim: my.workspace, path: /mnt/w}
defaults:
  cpu: "2"
  cpu_limit: "1"
  env:
    API_TOKEN: abc
    LEVEL: $(HOME)
steps:
  Trainer:
    volumes:
      - {claim: data, path: /minio/data}
    annotations: {note: "{{workflow.name}}"}
"""


def assert_told(stop, file, mistakes):
    """After its first line, an error names these lines, settings and problems, and no others."""
    told = str(stop).splitlines()[1:]
    for line, setting, problem in mistakes:
        place = f"  {file}:{line}: {setting}: "
        assert any(one.startswith(place) and problem in one for one in told), (place, told)
    assert len(told) == len(mistakes)


def test_what_a_cluster_would_refuse_lose_or_rewrite_is_refused_with_file_and_line(configs):
    with pytest.raises(PipelineStop) as caught:
        target(configs, WRONG)
    mistakes = (
        (3, "workspace.claim", "becomes a volume's name"),
        (5, "defaults.cpu", "2 is above cpu_limit, 1"),
        (8, "defaults.env.API_TOKEN", "looks like a secret"),
        (9, "defaults.env.LEVEL", "'$(HOME)', which Kubernetes rewrites"),
        (12, "steps.Trainer.volumes.0.path", "inside a folder of Kubeflow"),
        (14, "steps.Trainer.annotations.note", "Argo or Kubeflow Pipelines take"),
    )
    assert_told(caught.value, configs / "kubeflow.yaml", mistakes)


def test_what_vertex_lacks_is_refused_for_vertex(configs):
    text = "image: x\npipeline_root: s3://a/b\nworkspace: {claim: w, path: /gcs/b/w}\n"
    with pytest.raises(PipelineStop, match=r"Cloud Storage(.|\n)*no PersistentVolumeClaims"):
        target(configs, text + "defaults: {labels: {a: b}}\n", "vertex")


def test_settings_of_a_pipeline_that_no_package_can_hold_are_refused_with_file_and_line(configs):
    columns = "".join(f"    column_{n:05}: id\n" for n in range(6000))
    text = "extends: automated\ndata: {path: 'python:a:b$$c'}\nfeatures:\n  exclude:\n"
    (configs / "large.yaml").write_text(text + columns)
    with pytest.raises(PipelineStop) as caught:
        parameters.load("large", configs=configs)
    mistakes = (
        (2, "data.path", "fills a folder of this machine"),
        (2, "data.path", "has '$$', which Kubernetes rewrites"),
        (4, "features.exclude", "bytes, and a step takes 102400"),
    )
    assert_told(caught.value, configs / "large.yaml", mistakes)


def test_texts_of_a_pipelines_settings_arrive_as_they_are():
    """Also those that Kubernetes or Argo would rewrite."""
    config = parameters.load("automated", ["evaluation.heuristic=payment_type == '$$(A) {{b}}'"])
    package = compiling.training(config, default())
    [text] = {
        one["value"]
        for one in documents(package)[0]["deploymentSpec"]["executors"]["exec-evaluator"][
            "container"
        ]["env"]
    }
    assert not {"$", "{{"} & {text[i : i + n] for n in (1, 2) for i in range(len(text))}
    told = package.steps["Evaluator"]
    assert told["config"]["evaluation"]["heuristic"] == "payment_type == '$$(A) {{b}}'"


def test_a_step_that_the_pipeline_lacks(configs):
    text = "image: x\npipeline_root: s3://a/b\nworkspace: {claim: w, path: /mnt/w}\n"
    with pytest.raises(PipelineStop, match="name steps that the pipeline lacks: Trianer"):
        compiling.training(
            parameters.load("automated"), target(configs, text + "steps: {Trianer: {cpu: '1'}}\n")
        )
