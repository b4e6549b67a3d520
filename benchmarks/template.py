"""TFX's own taxi template, from the installed package, with every component on.

Its work stays as it is. What is changed is what its comments tell a user to change, and one thing
that it leaves open:

- The lines `# components.append(...)` lose their comment signs, and a schema file is given, so that
  ImportSchemaGen and ExampleValidator are there (with its SchemaGen nothing is validated).
- Beam's runner is named: the one that Beam falls back to by default. Without a name Beam first
  tries to download another one (Prism), and the time would depend on the network.

TFX packs its own source for each Beam component of the template, about a second each: its default,
so it stays. TensorBoard has to be installed, or the template's Trainer fails.
"""

import contextlib
import importlib.resources
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measuring import BEAM, CONFIG, Timed, run_pipeline
from pipeline import loading

BATCH = 40
EXAMPLES_SEEN = 1000 * BATCH
"""Its number of steps by its batch size."""
LABEL = "tips_xf"
"""Of its transformed rows."""
_NAME = "taxi-template"
_SETTLED = 300
"""Batches after which everything is traced, opened and filled: more than one pass."""


def made_and_run(folder: Path, data: Path, all_features: bool = False) -> Timed:
    """Copies the template as `tfx template copy` does, switches everything on, and runs it.

    Args:
      folder: Where to; made.
      data: A folder with the rows.
      all_features: With the twelve features that it suggests, in place of the three that are on.
    """
    source = Path(str(importlib.resources.files("tfx"))) / "experimental/templates/taxi"
    for file in source.rglob("*.py"):
        copy = folder / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = file.read_text().replace("{{PIPELINE_NAME}}", _NAME)
        copy.write_text(text.replace("from tfx.experimental.templates.taxi.", "from "))
    (folder / "data").symlink_to(data)
    schema = loading.PROJECT / loading.load(CONFIG).schema_file
    _edit(folder / "pipeline/pipeline.py", r"# (?=components\.append\()", "")
    runner = folder / "local_runner.py"
    _edit(runner, "# schema_path=generated_schema_path", f"schema_path={str(schema)!r}")
    beam = f"beam_pipeline_args={BEAM[:2]}, "
    _edit(runner, "(?=metadata_connection_config=)", beam)
    if all_features:
        block = r"(?s)(?<=add more features to the model\n).*?(?=# Number of vocabulary terms)"
        _edit(folder / "models/features.py", block, lambda m: re.sub(r"(?m)^# ?", "", m[0]))
    metadata = folder / "tfx_metadata" / _NAME / "metadata.db"
    return run_pipeline(["local_runner.py"], metadata, folder)


def model(folder: Path) -> Path:
    """The SavedModel of a copy that has run."""
    return _output(folder, "Trainer/model/*/Format-Serving")


def transformed_examples(folder: Path) -> Path:
    """What the Trainer of a copy that has run reads: Split-train, Split-eval."""
    return _output(folder, "Transform/transformed_examples/*")


def input_and_fit(folder: Path, steps: int) -> Callable[[], float]:
    """Ready to call the copy's own `run_fn` up to its validation, and give examples/s.

    The time begins after 300 batches. A clock takes the place of `run_fn`'s TensorBoard callback,
    and is one.
    """
    import time

    import tensorflow as tf

    sys.path.insert(0, str(folder))
    from models.keras_model import model as template_model  # type: ignore[import-not-found]

    class Clock(tf.keras.callbacks.TensorBoard):
        began = ended = 0.0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            super().on_train_batch_end(batch, logs)
            if batch + 1 == _SETTLED:
                Clock.began = time.time()

        def on_test_begin(self, logs: Any = None) -> None:
            Clock.ended = time.time()
            raise StopIteration

    tf.keras.callbacks.TensorBoard = Clock

    def work() -> float:
        with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(StopIteration):
            template_model.run_fn(_arguments(folder, scratch, steps))
        return (steps - _SETTLED) * BATCH / (Clock.ended - Clock.began)

    return work


def _arguments(folder: Path, scratch: str, steps: int) -> Any:
    """What TFX's Trainer would give to `run_fn`."""
    from tfx.components.trainer.fn_args_utils import DataAccessor, FnArgs
    from tfx.components.util import tfxio_utils
    from tfx.types import standard_artifacts

    examples = standard_artifacts.Examples()
    rows = transformed_examples(folder)
    examples.uri, examples.split_names = str(rows), '["train", "eval"]'
    factories = DataAccessor(
        tf_dataset_factory=tfxio_utils.get_tf_dataset_factory_from_artifact([examples], []),
        record_batch_factory=tfxio_utils.get_record_batch_factory_from_artifact([examples], []),
        data_view_decode_fn=None,
    )
    return FnArgs(
        working_dir=scratch,
        train_files=[f"{rows}/Split-train/*"],
        eval_files=[f"{rows}/Split-eval/*"],
        train_steps=steps,
        eval_steps=1,
        model_run_dir=f"{scratch}/run",
        serving_model_dir=f"{scratch}/serving",
        transform_output=str(_output(folder, "Transform/transform_graph/*")),
        data_accessor=factories,
    )


def _output(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(f"tfx_pipeline_output/*/{pattern}")
    return found


def _edit(file: Path, pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> None:
    text, count = re.subn(pattern, replacement, file.read_text())
    if not count:
        raise ValueError(f"{file.name} of TFX's template no longer has: {pattern}")
    file.write_text(text)


def auc_of(models: dict[str, Path], examples: Path, label: str) -> Any:
    """Ready to give the AUC of each SavedModel on gzipped TFRecords of examples."""
    import numpy as np
    import tensorflow as tf
    from sklearn.metrics import roc_auc_score

    def work() -> dict[str, float]:
        files = sorted(str(file) for file in examples.iterdir())
        (batch,) = tf.data.TFRecordDataset(files, "GZIP").batch(10**9)
        spec = {label: tf.io.FixedLenFeature([], tf.int64)}
        labels = tf.io.parse_example(batch, spec)[label].numpy()
        found = {}
        for name, folder in models.items():
            predict = tf.saved_model.load(str(folder)).signatures["serving_default"]
            parts = np.array_split(batch.numpy(), 1 + len(labels) // 4096)
            answers = [predict(tf.constant(part)) for part in parts]
            scores = [next(iter(answer.values())).numpy()[:, 0] for answer in answers]
            found[name] = float(roc_auc_score(labels, np.concatenate(scores)))
        return found

    return work
