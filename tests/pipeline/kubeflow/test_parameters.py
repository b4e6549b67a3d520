"""Parameters of a run, and the configuration with them in it."""

import pytest

from components.errors import PipelineStop
from pipeline import loading
from pipeline.kubeflow import parameters


@pytest.fixture(scope="module")
def config():
    return loading.load("automated")


def test_defaults_change_nothing(config):
    defaults = parameters.defaults(config, parameters.OF_A_TRAINING)
    assert parameters.changed(config, defaults | {parameters.FINGERPRINT: "x"}) == config


@pytest.mark.parametrize("text", ['{"count": 4, "last": 17}', "{count: 4, last: 17, start: 0}"])
def test_a_window_is_written_as_in_the_configuration(config, text):
    data = parameters.changed(
        config.model_copy(update={"data": config.data.model_copy(update={"pattern": "{SPAN}"})}),
        {"span": text, "test_spans": "newest"},
    ).data
    assert (data.spans.count, data.spans.last, data.test_spans) == (4, 17, "newest")


def test_training_with_other_hyperparameters(config):
    given = {"steps": 50, "global_batch_size": 64, "learning_rate": 0.5, "promote": "manual"}
    found = parameters.changed(config, given)
    assert (found.training.steps, found.training.epochs) == (50, None)
    assert (found.training.global_batch_size, found.training.learning_rate.initial) == (64, 0.5)
    assert found.registry.promote == "manual"


def test_warm_start_is_a_number_a_label_or_none_and_its_layers_stay():
    config = loading.load(
        "automated", ["training.warm_start={version: 1, layers: [hidden_*], freeze: true}"]
    )
    for text, version in (("3", 3), ("champion", "champion")):
        found = parameters.changed(config, {"warm_start": text}).training.warm_start
        assert (found.version, found.layers, found.freeze) == (version, ["hidden_*"], True)
    assert parameters.changed(config, {"warm_start": ""}).training.warm_start is None


def test_zero_steps_without_epochs():
    config = loading.load("automated", ["training.epochs=null", "training.steps=10"])
    with pytest.raises(PipelineStop, match="set either 'epochs' or 'steps'"):
        parameters.changed(config, {"steps": 0})


def test_every_wrong_value_at_once(config):
    wrong = ["steps=-1", "learning_rate=0", "span=next", "promote=maybe"]
    with pytest.raises(PipelineStop) as caught:
        parameters.read(wrong, config)
    lines = str(caught.value).splitlines()
    for text in wrong:
        name, _, value = text.partition("=")
        assert any(line.startswith(f"  --param {name}: ") and value in line for line in lines), name
    with pytest.raises(PipelineStop) as caught:
        parameters.read(["lr=1", "steps=many", "steps"], config)
    told = str(caught.value)
    assert "  lr: no such parameter; there are data_path" in told
    assert "  steps: 'many' is no int" in told
    assert "  steps: expected NAME=VALUE" in told


def test_values_of_the_command_line(config):
    given = ["steps=5", "learning_rate=1e-3", "data_path=/mnt/a=b", "span=7"]
    assert parameters.read(given, config) == {
        **{"steps": 5, "learning_rate": 0.001, "data_path": "/mnt/a=b", "span": "7"}
    }


def test_continued_evaluation_judges_one_span(config):
    offered = parameters.OF_AN_EVALUATION
    assert parameters.read(["data_path=/mnt/data", "span=17"], config, offered)
    with pytest.raises(PipelineStop, match="judges one span"):
        parameters.read(["span={count: 4}"], config, offered)
    with pytest.raises(PipelineStop, match="steps: no such parameter; there are data_path, span"):
        parameters.read(["steps=3"], config, offered)
