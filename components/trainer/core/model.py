"""The wide-and-deep network (Cheng et al. 2016, arxiv.org/abs/1606.07792) of a feature spec.

With several members the hidden layers are a cheap ensemble (book pattern: Ensembles): the members
share the kernels and have signs, biases and a last layer of their own (BatchEnsemble, Wen et al.
2020, arxiv.org/abs/2002.06715; TabM, Gorishniy et al. 2024, arxiv.org/abs/2410.24210).
"""

import random
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import keras

from components.trainer.core.data import grouped, width

MOST_WIDE = 64
"""With several members, features of more ids are left out of the wide part: they would be learned
by heart."""


def build(inputs: dict[str, Any], settings: dict[str, Any], seed: int) -> keras.Model:
    """Builds the network.

    Args:
      inputs: the feature spec (`components.features.model_inputs`).
      settings: `model` as in `configs/*.yaml`.
      seed: of the dropout masks and the members.

    Returns:
      A model from `data.by_kind`'s inputs, "numbers" and "pixels" in float32, "ids" and "tokens" in
      int32, to logits float32 [n, outputs], or [n, members, outputs] with several members (a
      standardised value for regression).
    """
    plain, images, categorical, texts = grouped(inputs["features"])
    numbers = keras.Input([len(plain)], name="numbers")
    ids = keras.Input([len(categorical)], name="ids", dtype="int32")
    given = {"numbers": numbers, "ids": ids}
    if images:
        given["pixels"] = keras.Input([sum(map(width, images))], name="pixels")
    if texts:
        given["tokens"] = keras.Input([sum(map(width, texts))], name="tokens", dtype="int32")
    unfolded = _unfolded(numbers, [f.get("bins") for f in plain])
    one_hots = [
        _block(f["name"], keras.ops.one_hot(ids[:, i], f["size"]))
        for i, f in enumerate(categorical)
        if not f["embed"]
    ]
    embedded = [
        _block(f["name"], _embedding(f)(ids[:, i])) for i, f in enumerate(categorical) if f["embed"]
    ]
    words = [_block(f["name"], _pooled(p, f)) for p, f in _parts(given.get("tokens"), texts)]
    pictures = [_block(f["name"], _convolved(p, f)) for p, f in _parts(given.get("pixels"), images)]
    unfolded = _block("numbers", unfolded)
    deep = _joined([unfolded, *one_hots, *embedded, *words, *pictures])
    for layer, units in enumerate(settings["hidden"]):
        deep = _hidden_layer(deep, layer, units, settings, seed + layer)
    outputs, members = settings["buckets"] or max(1, inputs["num_classes"]), settings["members"]
    if members == 1:
        logits = keras.layers.Dense(outputs, name="deep", dtype="float32")(deep)
    else:
        logits = keras.layers.EinsumDense(  # a last layer for each member
            "nmu,muo->nmo",
            (members, outputs),
            bias_axes="mo",
            kernel_initializer=_uniform(deep.shape[-1], seed),
            name="deep",
            dtype="float32",
        )(deep)
    if settings["wide"]:
        most = None if members == 1 else MOST_WIDE
        wide = _wide(unfolded, ids, [f["size"] for f in categorical], outputs, most)
        logits += wide if members == 1 else wide[:, None, :]
    return keras.Model(given, logits, name="wide_and_deep")


def _block(name: str, values: Any) -> Any:
    """What the network reads of one feature, or of all numbers: a layer that can be found again."""
    return keras.layers.Identity(name=f"block_{name}")(values)


def _embedding(feature: dict[str, Any]) -> keras.layers.Layer:
    return keras.layers.Embedding(
        feature["size"], feature["embed"], name=f"embedding_{feature['name']}"
    )


def _parts(columns: Any, features: list[dict[str, Any]]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yields the columns of each feature."""
    start = 0
    for feature in features:
        end = start + width(feature)
        yield columns[:, start:end], feature
        start = end


def _pooled(tokens: Any, feature: dict[str, Any]) -> Any:
    """The mean embedding of a text's words, [n, embed]; zeros of a text without any."""
    table = _embedding(feature)
    there = keras.ops.cast(keras.ops.expand_dims(tokens > 0, -1), table.compute_dtype)
    total = keras.ops.sum(table(tokens) * there, axis=1)
    return total / keras.ops.maximum(keras.ops.sum(there, axis=1), 1)


def _pretrained(feature: dict[str, Any]) -> keras.layers.Layer:
    """Layers of the user's file, called `pretrained_<feature>`."""
    source, name = feature["pretrained"], f"pretrained_{feature['name']}"
    if not source["file"].endswith(".keras"):
        return keras.layers.TFSMLayer(source["file"], "serving_default", name=name)
    loaded = keras.saving.load_model(source["file"], compile=False)
    layers = keras.Model(loaded.inputs, loaded.outputs[0], name=name)
    layers.trainable = not source["freeze"]
    return layers


def _convolved(pixels: Any, feature: dict[str, Any]) -> Any:
    """What a few convolutions, each but for small pictures halved, see in a picture, [n, units]."""
    image = keras.layers.Reshape(feature["pixels"])(pixels)
    if "pretrained" in feature:
        return keras.layers.Flatten()(_pretrained(feature)(image))
    for number, filters in enumerate(feature["filters"]):
        name = f"convolution_{feature['name']}_{number}"
        image = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)(image)
        if min(image.shape[1:3]) >= 4:
            image = keras.layers.MaxPooling2D()(image)
    return keras.layers.Flatten()(image)


@keras.saving.register_keras_serializable("pipeline")
class Members(keras.layers.Layer):
    """[n, units] -> [n, members, units]: each member has its own sign and bias of a unit."""

    def __init__(self, members: int, seed: int, **kwargs: Any):
        """Takes how many there are, and the seed of their signs and first biases."""
        super().__init__(**kwargs)
        self.members, self.seed = members, seed

    def build(self, shape: Any) -> None:
        """Makes the weights."""
        size = (self.members, shape[-1])
        chance = random.Random(self.seed)
        signs = [[chance.choice([-1.0, 1.0]) for _ in range(size[1])] for _ in range(size[0])]
        self.scale = self.add_weight(shape=size, initializer="ones", name="scale")
        self.scale.assign(signs)
        self.bias = self.add_weight(
            shape=size, initializer=_uniform(shape[-1], self.seed), name="bias"
        )

    def call(self, units: Any) -> Any:
        """Copies the units for each member."""
        return units[:, None, :] * self.scale + self.bias


def _uniform(units: int, seed: int) -> keras.initializers.Initializer:
    return keras.initializers.RandomUniform(-(units**-0.5), units**-0.5, seed)


def owners(bins: list[int | None]) -> list[int]:
    """To which number each column of `_unfolded` belongs."""
    by_position = [(i, count) for i, count in enumerate(bins) if count is not None]
    plain = [i for i, count in enumerate(bins) if count is None]
    of_bins = [i for i, count in by_position for _ in range(count)]
    return [*plain, *of_bins, *(i for i, _ in by_position)]


def _unfolded(numbers: Any, bins: list[int | None]) -> Any:
    """Numbers as they are; positions as 0 to 1 in each bin, and 1 behind them if it is missing.

    The model is so a piecewise linear function of the number, with a knot at each edge.
    """
    plain = [i for i, count in enumerate(bins) if count is None]
    by_position = [(i, count) for i, count in enumerate(bins) if count is not None]
    if not by_position:
        return numbers
    parts = [_taken(numbers, plain)] if plain else []
    bin_of = [(i, float(number)) for i, count in by_position for number in range(count)]
    starts = keras.ops.array([number for _, number in bin_of], "float32")
    parts.append(keras.ops.clip(_taken(numbers, [i for i, _ in bin_of]) - starts, 0.0, 1.0))
    places = _taken(numbers, [i for i, _ in by_position])
    parts.append(keras.ops.cast(places < 0, places.dtype))
    return keras.ops.concatenate(parts, axis=-1)


def _taken(columns: Any, indices: list[int]) -> Any:
    return keras.ops.take(columns, keras.ops.array(indices, "int32"), axis=1)


def _hidden_layer(deep: Any, number: int, units: int, settings: dict[str, Any], seed: int) -> Any:
    penalty = keras.regularizers.L2(settings["l2"]) if settings["l2"] else None
    split = number == 0 and settings["members"] > 1
    dense = keras.layers.Dense(
        units, use_bias=not split, kernel_regularizer=penalty, name=f"hidden_{number}"
    )
    deep = dense(deep)
    if split:
        deep = Members(settings["members"], seed, name="members")(deep)
    if settings["batch_norm"]:
        # Over the whole global batch, so that the number of replicas does not matter.
        name = f"batch_norm_{number}"
        deep = keras.layers.BatchNormalization(synchronized=True, name=name)(deep)
    deep = keras.layers.Activation("relu")(deep)
    if settings["dropout"]:
        deep = keras.layers.Dropout(settings["dropout"], seed=seed, name=f"dropout_{number}")(deep)
    return deep


def _wide(numbers: Any, ids: Any, sizes: list[int], outputs: int, most: int | None) -> Any:
    """A linear model over the numbers and the one-hots: a weight for each number and each id.

    All start with zero. The ids of all features of at most `most` ids are in one table.
    """
    parts = []
    if numbers.shape[-1]:
        linear = keras.layers.Dense(
            outputs, use_bias=False, kernel_initializer="zeros", name="linear", dtype="float32"
        )
        parts.append(linear(numbers))
    kept = [i for i, size in enumerate(sizes) if most is None or size <= most]
    if kept:
        *starts, count = accumulate((sizes[i] for i in kept), initial=0)
        table = keras.layers.Embedding(
            count,
            outputs,
            embeddings_initializer="zeros",
            name="wide",
            dtype="float32",
        )
        chosen = ids if len(kept) == len(sizes) else _taken(ids, kept)
        weights = table(chosen + keras.ops.array([starts], "int32"))
        parts.append(keras.ops.sum(weights, axis=1))
    return sum(parts[1:], parts[0]) if parts else keras.ops.zeros_like(numbers[:, :1])


def _joined(parts: list[Any]) -> Any:
    parts = [part for part in parts if part.shape[-1]]
    return keras.ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
