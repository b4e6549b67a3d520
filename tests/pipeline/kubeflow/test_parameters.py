"""Parameters of a run, and how a step works them into its executor's properties."""

import json
from pathlib import Path

import pytest

from components.errors import PipelineStop
from components.ingest.executor import read_settings
from pipeline import graph, loading
from pipeline.kubeflow import parameters
from pipeline.workspace import Workspace


@pytest.fixture(scope="module")
def components():
    config = loading.load("automated")
    made = graph.create_pipeline(config, Workspace(Path("/mnt/workspace"), is_here=False))
    return {component.id: dict(component.exec_properties) for component in made.components}


def values(**changes):
    config = loading.load("automated")
    given = {name: each.default(config) for name, each in parameters.PARAMETERS.items()}
    return given | changes


def worked_in(components, name, **changes):
    used = {k: v for k, v in values(**changes).items() if name in parameters.PARAMETERS[k].steps}
    properties = components[name] | used | {parameters.FINGERPRINT: "x"}
    parameters.work_in(name, properties)
    assert parameters.FINGERPRINT not in properties
    return properties


def test_example_gen_reads_another_folder_and_span(components):
    found = worked_in(components, "ExampleGen", data_path="/mnt/data", span='{"count": 2}')
    assert found["input_base"] == "/mnt/data"
    assert read_settings(found).spans.count == 2
    assert read_settings(worked_in(components, "ExampleGen", span="7")).spans == 7
    assert worked_in(components, "ExampleGen", data_path="gs://b/x")["input_base"] == "gs://b/x"


def test_defaults_change_nothing(components):
    for name in ("ExampleGen", "Trainer", "RegistryPush"):
        found = worked_in(components, name)
        assert found.keys() - {"promote"} == components[name].keys() - {"promote"}
        for key, value in components[name].items():
            same = json.loads(value) if key in ("custom_config", "config") else value
            now = json.loads(found[key]) if key in ("custom_config", "config") else found[key]
            assert now == same, (name, key)


def test_training_with_other_hyperparameters(components):
    changed = {"steps": 50, "global_batch_size": 64, "learning_rate": 0.5}
    found = json.loads(worked_in(components, "Trainer", **changed)["custom_config"])
    training = found["settings"]["training"]
    assert (training["steps"], training["epochs"]) == (50, None)
    assert (training["global_batch_size"], training["learning_rate"]["initial"]) == (64, 0.5)
    pushed = worked_in(components, "RegistryPush", promote="manual", **changed)
    config = json.loads(pushed["config"])
    assert config["training"] == training | config["training"]
    assert (pushed["promote"], config["registry"]["promote"]) == ("manual", "manual")
    assert pushed["config_hash"] != components["RegistryPush"]["config_hash"]


def test_zero_steps_without_epochs():
    properties = {"custom_config": json.dumps({"settings": {"training": {"epochs": None}}})}
    properties |= {"steps": 0}
    with pytest.raises(PipelineStop, match="there is none"):
        parameters.work_in("Trainer", properties)


def test_every_wrong_value_at_once():
    wrong = {"steps": -1, "learning_rate": "fast", "span": "next", "promote": "maybe", "lr": 1}
    with pytest.raises(PipelineStop) as caught:
        parameters.check(wrong)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + len(wrong)
    assert "  lr: no such parameter; there are data_path" in lines[-1]
    for name, value in list(wrong.items())[:-1]:
        assert any(line.startswith(f"  {name}: ") and repr(value) in line for line in lines), name
