"""Training on TPUs, in an environment of its own, and a check for it on CPUs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pipeline.command_line import ConfigName, Overrides, told

if TYPE_CHECKING:
    from pipeline.config import Training

PANEL = "Training"
TRAINERS = {"tpu": "components.tpu.run"}


def training() -> type["Training"]:
    """`training.tpu`: which TPU."""
    from components.tpu.settings import TpuTraining

    return TpuTraining


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(rich_help_panel=PANEL)(check_tpu)
    app.command(rich_help_panel=PANEL)(tpu_environment)


def check_tpu(config: ConfigName = "development", set_: Overrides = None) -> None:
    """Check on this CPU whether the configured training could run on a TPU."""
    from pipeline.console import output_to

    def compile_steps() -> int:
        with output_to(Path(os.devnull)) as console:  # TensorFlow's words on starting
            from components.tpu.check import check
            from pipeline import loading

            found = loading.load(config, set_ or [])
            check(found.features, found.model_dump(mode="json", include={"model", "training"}))
            console.print(
                "Both steps compile with XLA and static shapes: nothing speaks against "
                "training.strategy=tpu. This is a proxy on a CPU, not verified on hardware."
            )
            return 0

    raise SystemExit(told(compile_steps))


def tpu_environment() -> None:
    """Make .venv-tpu, the environment that trains on a TPU (a download of about 1 GB)."""
    from components.tpu import environment

    def make() -> int:
        environment.make()
        print(f"Ready: {environment.VENV}")
        return 0

    raise SystemExit(told(make))
