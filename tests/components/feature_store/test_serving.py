"""A request that sends the entity's key is answered as one that sends its features."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf

from components.errors import PipelineStop
from components.feature_store.store import KeyedRows, Service
from components.registry import store
from pipeline import predict

COLUMNS = {"lat": "FLOAT", "long": "FLOAT", "wind": "INT", "status": "BYTES"}
SIGNATURE: dict[str, Any] = {
    "inputs": {name: {"type": kind, "required": False} for name, kind in COLUMNS.items()},
    "ignored": ["storm"],
    "problem": "regression",
    "classes": None,
}
TENSORS = {"FLOAT": tf.float32, "INT": tf.int64, "BYTES": tf.string}
BY_KEY = {"storm": "Katrina 2005"}


class Model(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = tf.Variable(10.0)

    @tf.function(input_signature=[tf.TensorSpec([None], TENSORS[k], n) for n, k in COLUMNS.items()])
    def raw(self, lat: Any, long: Any, wind: Any, status: Any) -> dict[str, Any]:
        length = tf.cast(tf.strings.length(status), tf.float32)
        value = lat + self.slope * long + 1000 * tf.cast(wind, tf.float32) + length / 64
        return {"predictions": value[:, None]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a model with one version, whose prediction depends on every feature."""
    saved = tmp_path_factory.mktemp("saved")
    made = Model()
    tf.saved_model.save(made, str(saved), signatures={"raw": made.raw})
    folder = saved.parent / "registry" / "storms"
    store.add_version(
        str(folder), str(saved), {"fingerprint": "1", "signature": SIGNATURE, "config": {}}
    )
    return str(folder)


@pytest.fixture
def answer(model: str, service: Service) -> Callable[..., Any]:
    """Predicts rows as `python -m pipeline predict` does."""

    def predicted(*rows: Any) -> Any:
        text = predict._answer(model, "1", KeyedRows(service), [*rows], "")
        return json.loads(text)["predictions"]

    return predicted


@pytest.fixture
def full(service: Service) -> dict[str, Any]:
    """Katrina's features, as the online store has them."""
    [features] = service.latest([BY_KEY])
    assert features["status"] and features["wind"]
    return features


def test_a_key_is_predicted_as_its_features(
    answer: Callable[..., Any], full: dict[str, Any]
) -> None:
    mine = {**full, "wind": 1}
    by_key, by_features, in_part, own = answer(
        BY_KEY, full, {**BY_KEY, "lat": full["lat"]}, {**BY_KEY, "wind": 1}
    )
    assert by_key == by_features == in_part != own
    assert [own] == answer(mine)
    [keyed] = answer({**BY_KEY, "key": 7})
    assert keyed == {"key": 7, "predictions": by_key}


def test_what_cannot_be_looked_up_is_told(answer: Callable[..., Any]) -> None:
    with pytest.raises(PipelineStop, match="row 1: the online store has no features of storm 'No"):
        answer(BY_KEY, {"storm": "Nobody 2005"})
    with pytest.raises(PipelineStop, match="cannot look up these rows"):
        answer({"storm": [1]})
    with pytest.raises(PipelineStop, match="row 0 has no column that the model reads"):
        answer({"strom": "Katrina 2005"})
    with pytest.raises(PipelineStop, match="row 0 must be an object"):
        answer("Katrina 2005")


def test_the_server_answers_as_predict_does(
    model: str, service: Service, answer: Callable[..., Any], full: dict[str, Any]
) -> None:
    pytest.importorskip("components.serving.part")
    from starlette.exceptions import HTTPException

    from components.inference.model import LoadedVersion, choose
    from components.serving.served import ServedVersion
    from components.serving.settings import Serving

    loaded = LoadedVersion(choose(model, "1"))
    served = ServedVersion("storms", loaded, Serving(), None, KeyedRows(service))

    async def both() -> list[Any]:
        rows = [{"instances": [row] * 20} for row in (BY_KEY, full)]
        return await asyncio.gather(*(served.predict(body) for body in rows * 10))

    expected = answer(BY_KEY)[0]
    for found in asyncio.run(both()):
        assert found["predictions"].ravel().tolist() == pytest.approx(expected * 20)
    with pytest.raises(HTTPException, match="Nobody") as refused:
        asyncio.run(served.predict({"instances": [{"storm": "Nobody 2005"}]}))
    assert refused.value.status_code == 400
