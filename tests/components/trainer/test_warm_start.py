"""A start from an earlier version's weights: whole or by layers, frozen or not, or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.trainer.core import warm_start as core
from components.trainer.core.loop import Training, TrainingError
from components.trainer.core.warm_start import warm_start, weights_by_name
from tests.components.trainer import small_training as small


def _training(model: dict[str, Any] | None = None, **settings: Any) -> Training:
    chosen = small.settings(model, **settings)
    return Training(small.source(300), small.source(100), small.INPUTS, chosen)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """A trained model's variables as the export has them, and as it had them at first."""
    training = _training()
    training.run(lambda _: None)
    variables = training.model.variables
    sources = {}
    for how in ("by name", "by number"):
        module, names = tf.Module(), [variable.path for variable in variables]
        if how == "by name":
            module.weights, names = weights_by_name(training.model), []
        else:
            module._weights = [variable.value for variable in variables]
        module._network = training.model
        folder = tmp_path_factory.mktemp("version") / "7"
        tf.saved_model.save(module, str(folder))
        sources[how] = {
            "version": 7,
            "variables": str(folder / "variables" / "variables"),
            "names": names,
            "values": {variable.path: variable.numpy() for variable in variables},
        }
    return sources


@pytest.fixture(scope="module")
def earlier(both: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return both["by name"]


def _started(earlier: dict[str, Any], model: dict[str, Any] | None = None, **how: Any) -> Training:
    training = _training(model, seed=99, warm_start={"version": 7, **how})
    warm_start(training, earlier)
    return training


def _same(training: Training, earlier: dict[str, Any]) -> set[str]:
    return {
        weight.path
        for weight in training.model.weights
        if np.array_equal(weight.numpy(), earlier["values"].get(weight.path))
        and np.any(weight.numpy())
    }


@pytest.mark.parametrize("how", ["by name", "by number"])
def test_whole_model_starts_with_all_weights(both: dict[str, dict[str, Any]], how: str) -> None:
    training = _started(both[how])
    assert _same(training, both[how]) == {w.path for w in training.model.weights}
    training.run(lambda _: None)
    assert "hidden_0/kernel" not in _same(training, both[how])


def test_chosen_layers_only_and_frozen(earlier: dict[str, Any]) -> None:
    training = _started(earlier, layers=["hidden_*", "embedding_b"], freeze=True)
    loaded = {"hidden_0/kernel", "hidden_0/bias", "embedding_b/embeddings"}
    assert _same(training, earlier) == loaded
    training.run(lambda _: None)
    assert _same(training, earlier) == loaded, "frozen layers stay, and the others learn"


def test_what_does_not_fit_is_refused_with_both_shapes(earlier: dict[str, Any]) -> None:
    shapes = r"from version 7.*\n.*hidden_0/kernel: its shape is \(8, 16\) there and \(8, 8\) here"
    with pytest.raises(TrainingError, match=rf"(?s){shapes}.*training\.warm_start\.layers"):
        _started(earlier, {"hidden": [8]})
    with pytest.raises(TrainingError, match="hidden_1/kernel: the version has no such weights"):
        _started(earlier, {"hidden": [16, 4]})
    with pytest.raises(TrainingError, match=r"'hiden_\*', but no layer .* There are: .*hidden_0"):
        _started(earlier, layers=["hiden_*"])


def test_names_with_dots_are_found_again(tmp_path: Path) -> None:
    """TensorFlow writes a dot, and the stroke between a layer and its weight, in another way."""
    names = ["embedding_a.b/embeddings", "embedding_a..S/b", "x"]
    module = tf.Module()
    module.weights = {name: tf.Variable(float(i)) for i, name in enumerate(names)}
    tf.saved_model.save(module, str(tmp_path))
    reader = tf.train.load_checkpoint(str(tmp_path / "variables" / "variables"))
    keys = core._keys(reader.get_variable_to_shape_map(), [])
    assert {name: reader.get_tensor(key) for name, key in keys.items()} == {
        name: i for i, name in enumerate(names)
    }
