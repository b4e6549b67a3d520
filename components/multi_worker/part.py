"""Training in several processes, on one machine or many."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.settings import Problem
    from pipeline.config import Training

TRAINERS = {"multi_worker": "components.multi_worker.run"}


def training() -> type["Training"]:
    """`training.workers`, `training.restarts` and `training.hang_seconds`."""
    from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

    from pipeline.config import Training

    class MultiWorkerTraining(Training):
        """The training loop, with strategy: multi_worker in several processes."""

        workers: PositiveInt | None = Field(
            None, description="multi_worker without TF_CONFIG: so many processes on this machine."
        )
        restarts: NonNegativeInt = Field(
            3, description="How often those are started again after one of them died or hung."
        )
        hang_seconds: PositiveFloat = Field(
            600, description="A worker that comes no further for so long counts as dead."
        )

        def problems(self) -> Iterator["Problem"]:
            """Yields contradictions between the fields."""
            yield from super().problems()
            if self.workers is not None and self.strategy != "multi_worker":
                yield ("workers",), f"needs strategy: multi_worker; it is '{self.strategy}'"
            if self.workers and self.global_batch_size % self.workers:
                text = f"{self.global_batch_size} cannot be shared by {self.workers} workers evenly"
                yield ("global_batch_size",), text

    return MultiWorkerTraining


def take_part(folder: str, run: Callable[[], int], show: Callable[[str], None]) -> int:
    """Runs the pipeline in the chief of a cluster; the others wait for it and train with it."""
    from components.multi_worker import member

    return member.take_part(folder, run, show)
