"""Whether the configured training could run on a TPU, as far as a CPU can tell.

The steps of the training loop are compiled as a TPU needs them, with XLA and static shapes, and run
once on rows of zeros. It is a proxy: XLA compiles for this machine's CPU; no TPU was at hand.
"""

from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from components.errors import PipelineStop
from components.features.model_inputs import model_inputs
from components.features.table import FeatureTable, Vocabulary
from components.trainer.core.batches import Batch
from components.trainer.core.data import InMemory, Layout
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
    inputs = model_inputs(table, _sizes(table))
    options = settings["training"] | {"strategy": "one_device", "warm_start": None}
    layout, count = Layout.of(inputs), options["global_batch_size"]
    rows = layout.unpack(tf.constant(bytes(count * layout.row_bytes)))
    source = InMemory(rows)
    training = Training(source, source, inputs, settings | {"training": options})
    batch = Batch(*rows, tf.ones_like(rows.labels, tf.float32))
    _compile("training", lambda batch: training.train_step(batch, tf.constant(1.0)), batch)
    _compile("evaluation", training.evaluate_step, batch)


def _sizes(table: FeatureTable) -> Any:
    """What `model_inputs` asks of Transform's output: the sizes of vocabularies, by safe name."""
    safe = table.safe_names()
    sizes = {
        safe[name]: feature.top_k or _VOCABULARY
        for name, feature in table.columns.items()
        if isinstance(feature, Vocabulary)
    }
    return SimpleNamespace(vocabulary_size_by_name=sizes.__getitem__)


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
