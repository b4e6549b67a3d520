"""Programs in fresh processes, and where their time went."""

import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd


class ChildFailed(Exception):
    """A program ended with an error; what it printed went to this process's output."""


@dataclass(frozen=True)
class Timed:
    """A program's run, in seconds."""

    wall: float
    processor: float
    """Of all its threads and children: steadier than `wall` on a busy machine."""
    until_marker: float = 0.0
    """From its start to the line that it was watched for."""
    components: dict[str, float] = field(default_factory=dict)
    """By pipeline node, as ML Metadata has them: from registering an execution to its end."""
    start: float = 0.0
    """From its start to its first component: imports, settings, the graph."""

    @property
    def beyond_marker(self) -> float:
        """From the line that it was watched for to its end."""
        return self.wall - self.until_marker


@dataclass(frozen=True)
class Trained:
    """A trained model."""

    folder: Path
    examples: int
    """How many it saw, repetitions counted."""
    seconds: float
    """That it took to see them."""


def run(command: list[str], folder: Path, marker: str | None = None) -> Timed:
    """Runs a Python program and passes its output on.

    Args:
      command: what follows `python`.
      folder: the working folder.
      marker: part of an output line whose time is wanted.

    Raises:
      ChildFailed: it did not end well.
    """
    # Off Google's machines the template's configs.py would wait for their metadata server.
    environment = os.environ | {"NO_GCE_CHECK": "true"}
    used, began, marked = _processor_seconds(), time.time(), 0.0
    with subprocess.Popen(
        [sys.executable, *command], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if marker and marker in line:
                marked = time.time() - began
            print(line, end="", flush=True)
    if child.returncode:
        raise ChildFailed(f"python {' '.join(command)} ended with code {child.returncode}.")
    return Timed(time.time() - began, _processor_seconds() - used, marked)


def run_pipeline(
    command: list[str], folder: Path, metadata: Path, marker: str | None = None
) -> Timed:
    """Runs a program that runs a pipeline, and adds its components' times.

    Args:
      command: what follows `python`.
      folder: the working folder.
      metadata: the ML Metadata database that the pipeline writes.
      marker: as in `run`.

    Raises:
      ChildFailed: it did not end well.
    """
    began = time.time()
    timed = run(command, folder, marker)
    nodes = _executions(metadata, began)
    first = min(execution.create_time_since_epoch for execution in nodes.values())
    seconds = {
        name: (e.last_update_time_since_epoch - e.create_time_since_epoch) / 1000
        for name, e in nodes.items()
    }
    return Timed(timed.wall, timed.processor, timed.until_marker, seconds, first / 1000 - began)


def _executions(metadata: Path, since: float) -> dict[str, mlmd.Execution]:
    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = str(metadata)
    store = MetadataStore(config)
    return {
        context.name.rpartition(".")[2]: execution
        for context in store.get_contexts_by_type("node")
        for execution in store.get_executions_by_context(context.id)
        if execution.create_time_since_epoch >= since * 1000
    }


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
