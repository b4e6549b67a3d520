"""Training on TPUs, in an environment of its own, and a check for it on CPUs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from pipeline.command_line import ConfigName, Overrides, command

if TYPE_CHECKING:
    from components.settings import Problem
    from pipeline.config import Training

PANEL = "Training"
TRAINERS = {"tpu": "components.tpu.run"}


def training() -> type["Training"]:
    """`training.tpu`: which TPU."""
    from pydantic import Field

    from components.settings import Strict
    from pipeline.config import Training

    class Tpu(Strict):
        """Which TPU."""

        name: str = Field("local", description="Its name, or `local` on a TPU VM.")
        zone: str | None = None
        project: str | None = None

    class TpuTraining(Training):
        """The training loop, with strategy: tpu in an environment of its own."""

        tpu: Tpu | None = None

        def problems(self) -> Iterator["Problem"]:
            """Yields contradictions between the fields."""
            yield from super().problems()
            if self.tpu is not None and self.strategy != "tpu":
                yield ("tpu",), f"needs strategy: tpu; it is '{self.strategy}'"

    return TpuTraining


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    command(app, PANEL)(check_tpu)
    command(app, PANEL)(tpu_environment)


def check_tpu(config: ConfigName = "development", set_: Overrides = None) -> int:
    """Check on this CPU whether the configured training could run on a TPU."""
    from pipeline.telling import output_to

    with output_to() as console:  # TensorFlow's words on starting
        from components.tpu.check import check
        from pipeline import loading

        found = loading.load(config, set_ or [])
        check(found.features, found.model_dump(mode="json", include={"model", "training"}))
        console.print(
            "Both steps compile with XLA and static shapes: nothing speaks against "
            "training.strategy=tpu. This is a proxy on a CPU, not verified on hardware."
        )
    return 0


def tpu_environment() -> int:
    """Make .venv-tpu, the environment that trains on a TPU (a download of about 1 GB)."""
    from components.tpu import environment

    environment.make()
    print(f"Ready: {environment.VENV}")
    return 0
