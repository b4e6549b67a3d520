"""This project's pipeline, run as `make run-local CONFIG=automated` runs it."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import processes
from pipeline import loading
from pipeline.workspace import Workspace

CONFIG = "automated"
_IMPORTED = "(loading TFX)"
"""The line that a run prints once everything is imported."""


class Model(NamedTuple):
    """A trained model."""

    folder: Path
    examples_seen: int
    training_seconds: float
    """Reading the rows, building the model, tracing, steps, evaluations on the eval split."""


def run(workspace: Path, data: Path, settings: list[str]) -> processes.Timed:
    """Runs the pipeline.

    Args:
      workspace: the folder it writes to.
      data: the folder of the rows.
      settings: overrides, `a.b=value` each.
    """
    overrides = [f"workspace={workspace}", f"data.path={data}", *settings]
    command = ["-m", "pipeline", "run", "--config", CONFIG]
    command += [part for override in overrides for part in ("--set", override)]
    metadata = Workspace(workspace).metadata
    return processes.run_pipeline(command, loading.PROJECT, metadata, marker=_IMPORTED)


def same_examples(rows: int, examples: int) -> list[str]:
    """The settings that train on at least so many examples, whole steps, without stopping early."""
    config = loading.load(CONFIG)
    epochs, rest = divmod(examples, round(rows * config.data.split.train))
    batch = config.training.global_batch_size
    steps = epochs * -(-round(rows * config.data.split.train) // batch) + -(-rest // batch)
    return [f"training.steps={steps}", "training.epochs=null", "training.early_stopping=null"]


def newest_model(workspace: Path) -> Model:
    """The model trained last."""
    trained = Workspace(workspace).pipeline_root.glob("*/Trainer/model/*/training.json")
    record_file = max(trained, key=lambda file: int(file.parent.name))
    record: dict[str, Any] = json.loads(record_file.read_text())
    batch = record["hyperparameters"]["training"]["global_batch_size"]
    epochs, steps = divmod(record["steps"], -(-record["rows"] // batch))
    seen = epochs * record["rows"] + steps * batch  # The last batch of an epoch is smaller.
    return Model(record_file.parent / "Format-Serving", seen, record["seconds"])


def examples(workspace: Path) -> Path:
    """The ExampleGen's output."""
    return next(Workspace(workspace).pipeline_root.glob("*/ExampleGen/examples/*"))
