"""What `training` has besides for several processes."""

from collections.abc import Iterator

from pydantic import Field, NonNegativeInt, PositiveInt

from components.settings import Problem
from pipeline.config import Training


class MultiWorkerTraining(Training):
    """The training loop, with strategy: multi_worker in several processes."""

    workers: PositiveInt | None = Field(
        None, description="multi_worker without TF_CONFIG: so many processes on this machine."
    )
    restarts: NonNegativeInt = Field(
        3, description="How often those are started again after one of them died."
    )

    def problems(self) -> Iterator[Problem]:
        """Yields contradictions between the fields."""
        yield from super().problems()
        if self.workers is not None and self.strategy != "multi_worker":
            yield ("workers",), f"needs strategy: multi_worker; it is '{self.strategy}'"
        if self.workers and self.global_batch_size % self.workers:
            text = f"{self.global_batch_size} cannot be shared by {self.workers} workers evenly"
            yield ("global_batch_size",), text
