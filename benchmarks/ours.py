"""This project's pipeline, run as `make run-local CONFIG=automated` runs it."""

import json
from pathlib import Path

from benchmarks import processes
from pipeline import loading
from pipeline.workspace import Workspace

CONFIG = "automated"
_IMPORTED = "(loading TFX)"
"""What a run prints once everything is imported."""


def run(workspace: Path, data: Path, settings: list[str]) -> processes.Timed:
    """Runs the pipeline.

    Args:
      workspace: the folder it writes to.
      data: the folder of the rows.
      settings: overrides, `a.b=value` each.
    """
    command = ["-m", "pipeline", "run", "--config", CONFIG]
    for override in (f"workspace={workspace}", f"data.path={data}", *settings):
        command += ["--set", override]
    metadata = Workspace(workspace).metadata
    try:
        return processes.run_pipeline(command, loading.PROJECT, metadata, marker=_IMPORTED)
    except processes.ChildFailed:
        for log in sorted(Workspace(workspace).logs.glob("*"))[-1:]:
            print(log.read_text())  # It would go with the workspace.
        raise


def same_examples(rows: int, examples: int) -> list[str]:
    """Settings to train on at least `examples` examples in whole steps, without stopping early."""
    config = loading.load(CONFIG)
    train_rows, batch = round(rows * config.data.split.train), config.training.global_batch_size
    epochs, rest = divmod(examples, train_rows)
    steps = epochs * -(-train_rows // batch) + -(-rest // batch)
    return [f"training.steps={steps}", "training.epochs=null", "training.early_stopping=null"]


def trained(workspace: Path) -> processes.Trained:
    """The model trained last, and the time from its first step to its last.

    Tracing and the evaluations on the eval split lie within it, reading the rows does not.
    """
    records = Workspace(workspace).pipeline_root.glob("*/Trainer/model/*/training.json")
    newest = max(records, key=lambda file: int(file.parent.name))
    record = json.loads(newest.read_text())
    batch = record["hyperparameters"]["training"]["global_batch_size"]
    epochs, steps = divmod(record["steps"], -(-record["rows"] // batch))
    examples = epochs * record["rows"] + steps * batch  # An epoch's last batch is smaller.
    return processes.Trained(newest.parent / "Format-Serving", examples, record["seconds"])


def examples(workspace: Path) -> Path:
    """The ExampleGen's output."""
    (found,) = Workspace(workspace).pipeline_root.glob("*/ExampleGen/examples/*")
    return found
