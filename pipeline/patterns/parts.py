"""Which optional parts this fork still has."""

from pathlib import Path
from typing import Literal, get_args

from pipeline.loading import PROJECT

Part = Literal[
    "kubeflow",
    "serving",
    "batch_prediction",
    "continued_evaluation",
    "multi_worker",
    "tpu",
    "tuning",
]


def present(project: Path = PROJECT) -> frozenset[Part]:
    """The parts whose package is in the project, in `components/` or in `pipeline/`.

    A folder alone does not count: what Python has compiled stays behind when a package is removed.
    """
    homes = (project / "components", project / "pipeline")
    return frozenset(
        part
        for part in get_args(Part)
        if any((home / part / "__init__.py").is_file() for home in homes)
    )
