"""Training in several processes, on one machine or many."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config import Training

TRAINERS = {"multi_worker": "components.multi_worker.run"}


def training() -> type["Training"]:
    """`training.workers` and `training.restarts`."""
    from components.multi_worker.settings import MultiWorkerTraining

    return MultiWorkerTraining


def take_part(folder: str, run: Callable[[], int], show: Callable[[str], None]) -> int:
    """Runs the pipeline in the chief of a cluster; the others wait for it and train with it."""
    from components.multi_worker import member

    return member.take_part(folder, run, show)
