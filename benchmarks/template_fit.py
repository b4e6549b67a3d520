"""The template's input and fit, timed: `python -m benchmarks.template_fit COPY STEPS RESULT`.

It calls the `run_fn` of a copy that has run (`benchmarks.template`), on its transformed rows, up to
the validation. A clock takes the place of `run_fn`'s TensorBoard callback, and is one.
"""

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import tensorflow as tf
from tfx.components.trainer.fn_args_utils import DataAccessor, FnArgs
from tfx.components.util import tfxio_utils
from tfx.types import standard_artifacts

from benchmarks import template

SETTLED = 300
"""Batches after which everything is traced, opened and filled: more than one pass."""


class _Done(Exception):
    pass


class _Clock(tf.keras.callbacks.TensorBoard):
    """Notes batches, wall time and processor time: after one batch, when settled, at the end."""

    marks: ClassVar[list[tuple[int, float, float]]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_end(batch, logs)
        self._last = batch + 1
        if self._last in (1, SETTLED):
            self._mark(self._last)

    def on_test_begin(self, logs: Any = None) -> None:
        self._mark(self._last)
        raise _Done

    def _mark(self, batches: int) -> None:
        self.marks.append((batches, time.time(), time.process_time()))


def main(copy: Path, steps: int, result: Path) -> None:
    """Writes the marks as JSON, with the time before them all and the batch size."""
    sys.path.insert(0, str(copy))
    from models.keras_model import constants, model  # type: ignore[import-not-found]

    tf.keras.callbacks.TensorBoard = _Clock
    started = time.time()
    with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(_Done):
        model.run_fn(_arguments(copy, scratch, steps))
    found = {"started": started, "batch": constants.TRAIN_BATCH_SIZE, "marks": _Clock.marks}
    result.write_text(json.dumps(found))


def _arguments(copy: Path, scratch: str, steps: int) -> FnArgs:
    """What TFX's Trainer would give to `run_fn`."""
    examples = standard_artifacts.Examples()
    folder = template.transformed_examples(copy)
    examples.uri, examples.split_names = str(folder), '["train", "eval"]'
    factories = DataAccessor(
        tf_dataset_factory=tfxio_utils.get_tf_dataset_factory_from_artifact([examples], []),
        record_batch_factory=tfxio_utils.get_record_batch_factory_from_artifact([examples], []),
        data_view_decode_fn=None,
    )
    return FnArgs(
        working_dir=scratch,
        train_files=[f"{folder}/Split-train/*"],
        eval_files=[f"{folder}/Split-eval/*"],
        train_steps=steps,
        eval_steps=1,
        model_run_dir=f"{scratch}/run",
        serving_model_dir=f"{scratch}/serving",
        transform_output=str(template.transform_graph(copy)),
        data_accessor=factories,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
