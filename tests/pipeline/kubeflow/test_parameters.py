"""Parameters of a run, and how a step works them into its executor's properties."""

import json
from pathlib import Path

import pytest

from components.errors import PipelineStop
from components.ingest.component import read_settings
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


@pytest.mark.parametrize("text", ['{"count": 4, "last": 17}', "{count: 4, last: 17, start: 0}"])
def test_a_window_is_written_as_in_the_configuration(components, text):
    found = worked_in(components, "ExampleGen", span=text, test_spans="newest")
    settings = read_settings(found)
    assert (settings.spans.count, settings.spans.last) == (4, 17)
    assert settings.test_spans == "newest"
    data = json.loads(worked_in(components, "RegistryPush", span=text)["config"])["data"]
    assert data["spans"] == {"count": 4, "skip": 0, "last": 17, "start": 0}


def test_training_from_another_versions_weights(components):
    registry = "/mnt/workspace/registry/taxi"
    for text, version in (("3", 3), ("champion", "champion"), ("", None)):
        found = json.loads(worked_in(components, "Trainer", warm_start=text)["custom_config"])
        assert found["warm_start"] == {"folder": registry, "version": version}
        config = json.loads(worked_in(components, "RegistryPush", warm_start=text)["config"])
        recorded = config["training"]["warm_start"]
        assert recorded == found["settings"]["training"]["warm_start"]
        assert recorded == (version and {"version": version, "layers": ["*"], "freeze": False})


def test_the_layers_that_the_configuration_names_stay():
    config = loading.load(
        "automated", ["training.warm_start={version: 1, layers: [hidden_*], freeze: true}"]
    )
    workspace = Workspace(Path("/mnt/workspace"), is_here=False)
    made = {
        c.id: dict(c.exec_properties) for c in graph.create_pipeline(config, workspace).components
    }
    found = json.loads(worked_in(made, "Trainer", warm_start="2")["custom_config"])
    wanted = {"version": 2, "layers": ["hidden_*"], "freeze": True}
    assert found["settings"]["training"]["warm_start"] == wanted


def test_the_steps_of_continued_evaluation_read_theirs_themselves():
    for name, given in (("Decide", {"data_path": "/mnt/x"}), ("LabelledLog", {"span": "7"})):
        properties = dict(given)
        parameters.work_in(name, properties)
        assert properties == given
    with pytest.raises(PipelineStop, match=r"span: The spans to read.*Got 'next'"):
        parameters.work_in("LabelledLog", {"span": "next"})


def test_continued_evaluation_judges_one_span():
    parameters.check_evaluation({"data_path": "/mnt/data", "span": "17"})
    with pytest.raises(PipelineStop, match="judges one span"):
        parameters.check_evaluation({"span": "{count: 4}"})
    with pytest.raises(PipelineStop, match="steps: no such parameter; there are data_path, span"):
        parameters.check_evaluation({"steps": 3})


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
