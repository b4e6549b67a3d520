"""Whether the configured training could run on a TPU, as far as a CPU can tell.

The steps of the training loop are compiled as a TPU needs them, with XLA and static shapes, and run
once on random rows. It is a proxy: XLA compiles for this machine's CPU, and nothing here has run on
a TPU.
"""

from typing import Any

import tensorflow as tf

from components.errors import PipelineStop
from components.features.model_inputs import model_inputs
from components.features.table import FeatureTable, Vocabulary
from components.trainer.core.batches import Batch
from components.trainer.core.data import InMemory, Rows
from components.trainer.core.loop import Training

_VOCABULARY = 100
"""Stands in for the size of a vocabulary without `top_k`."""


def check(table: FeatureTable, settings: dict[str, Any]) -> None:
    """Compiles and runs a step of training and one of evaluation.

    Args:
      table: the feature table.
      settings: `model` and `training` as in `configs/*.yaml`.

    Raises:
      PipelineStop: a step cannot be compiled, or has a shape that is known only when it runs.
    """
    inputs = model_inputs(table, _Vocabularies(table))
    options = settings["training"] | {"strategy": "one_device", "warm_start": None}
    rows = _random_rows(inputs, options["global_batch_size"])
    source = InMemory(rows)
    training = Training(source, source, inputs, settings | {"training": options})
    batch = Batch(*rows, tf.ones_like(rows.labels, tf.float32))
    count = tf.reduce_sum(batch.weights)
    _compile("training", lambda batch: training.train_step(batch, count), batch)
    _compile("evaluation", training.evaluate_step, batch)


def _compile(name: str, step: Any, batch: Batch) -> None:
    compiled = tf.function(step, autograph=False, jit_compile=True)
    graph = compiled.get_concrete_function(batch).graph
    shapeless = [
        f"{operation.type} ({operation.name})"
        for operation in graph.get_operations()
        if any(tensor.shape.rank and None in tensor.shape for tensor in operation.outputs)
    ]
    problem = f"shapes known only when it runs: {', '.join(shapeless[:5])}" if shapeless else ""
    if not problem:
        try:
            compiled(batch)
        except tf.errors.OpError as error:
            problem = " ".join(error.message.split())[:600]
    if problem:
        raise PipelineStop(
            f"As it is, the {name} step cannot run on a TPU: {problem}. Text and look-ups belong "
            "into the feature table, so that Transform does them; a step's results must have the "
            "same shape for all data. Without a TPU, set training.strategy=auto."
        )


class _Vocabularies:
    """What `model_inputs` asks of Transform's output: the sizes of vocabularies, by safe name."""

    def __init__(self, table: FeatureTable):
        safe = table.safe_names()
        self._sizes = {
            safe[name]: feature.top_k or _VOCABULARY
            for name, feature in table.columns.items()
            if isinstance(feature, Vocabulary)
        }

    def vocabulary_size_by_name(self, name: str) -> int:
        return self._sizes[name]


def _random_rows(inputs: dict[str, Any], count: int) -> Rows:
    sizes = [f["size"] for f in inputs["features"] if f["size"] is not None]
    numbers = tf.random.stateless_normal([count, len(inputs["features"]) - len(sizes)], [0, 0])
    ids = tf.random.stateless_uniform([count, len(sizes)], [0, 1]) * tf.constant(sizes, tf.float32)
    if inputs["problem"] == "multiclass":
        classes = inputs["num_classes"]
        labels = tf.random.stateless_uniform([count], [0, 2], maxval=classes, dtype=tf.int32)
    else:
        labels = tf.round(tf.random.stateless_uniform([count], [0, 2]))
    return Rows(numbers, tf.cast(ids, tf.int32), labels)
