"""Parameters of a run, and the configuration with them in it."""

import pytest

from components.errors import PipelineStop
from pipeline import loading
from pipeline.kubeflow import parameters


@pytest.fixture(scope="module")
def config():
    return loading.load("automated")


def test_defaults_change_nothing(config):
    defaults = {name: each.default(config) for name, each in parameters.PARAMETERS.items()}
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
    with pytest.raises(PipelineStop, match="there is none"):
        parameters.changed(config, {"steps": 0})


def test_every_wrong_value_at_once():
    wrong = {"steps": -1, "learning_rate": "fast", "span": "next", "promote": "maybe", "lr": 1}
    with pytest.raises(PipelineStop) as caught:
        parameters.check(wrong)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + len(wrong)
    assert "  lr: no such parameter; there are data_path" in lines[-1]
    for name, value in list(wrong.items())[:-1]:
        assert any(line.startswith(f"  {name}: ") and repr(value) in line for line in lines), name


def test_values_of_the_command_line():
    given = ["steps=5", "learning_rate=1e-3", "data_path=/mnt/a=b", "span=7"]
    assert parameters.read(given) == {
        **{"steps": 5, "learning_rate": 0.001, "data_path": "/mnt/a=b", "span": "7"}
    }
    with pytest.raises(PipelineStop, match="'fast' is no float"):
        parameters.read(["learning_rate=fast"])
    with pytest.raises(PipelineStop, match="expected NAME=VALUE"):
        parameters.read(["steps"])


def test_continued_evaluation_judges_one_span():
    parameters.check_evaluation({"data_path": "/mnt/data", "span": "17"})
    with pytest.raises(PipelineStop, match="judges one span"):
        parameters.check_evaluation({"span": "{count: 4}"})
    with pytest.raises(PipelineStop, match="steps: no such parameter; there are data_path, span"):
        parameters.check_evaluation({"steps": 3})
