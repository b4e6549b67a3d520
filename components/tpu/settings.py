"""What `training` has besides for a TPU."""

from collections.abc import Iterator

from pydantic import Field

from components.settings import Problem, Strict
from pipeline.config import Training


class Tpu(Strict):
    """Which TPU."""

    name: str = Field("local", description="Its name, or `local` on a TPU VM.")
    zone: str | None = None
    project: str | None = None


class TpuTraining(Training):
    """The training loop, with strategy: tpu in an environment of its own."""

    tpu: Tpu | None = None

    def problems(self) -> Iterator[Problem]:
        """Yields contradictions between the fields."""
        yield from super().problems()
        if self.tpu is not None and self.strategy != "tpu":
            yield ("tpu",), f"needs strategy: tpu; it is '{self.strategy}'"
