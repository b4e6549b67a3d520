"""Runs a project's pipeline until its Trainer starts, and compiles it: `python transforming.py`.

It runs in a project's folder, with that folder as PYTHONPATH.
"""

import contextlib
from pathlib import Path

from pipeline import graph, loading, local
from pipeline.kubeflow import compiling
from pipeline.workspace import Workspace


class Enough(Exception):
    """The data is transformed."""


class UntilTrainer:
    """Stops the run."""

    def started(self, name: str) -> None:
        if name == "Trainer":
            raise Enough

    def ended(self, name: str, outcome: str, seconds: float) -> None: ...


def main() -> None:
    workspace = Workspace(Path("workspace").resolve())
    workspace.make()
    pipeline = graph.create_pipeline(loading.load("small"), workspace)
    with contextlib.suppress(Enough):
        local.run_pipeline(pipeline, frozenset(), UntilTrainer())
    compiling.compile_all("small", [], compiling.load_target("kubeflow"), "kubeflow")


if __name__ == "__main__":
    main()
