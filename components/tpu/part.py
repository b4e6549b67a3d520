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

    def check() -> int:
        with output_to(Path(os.devnull)) as console:  # TensorFlow's words on starting
            from components.tpu import check as check_
            from pipeline import loading

            found = loading.load(config, set_ or [])
            settings = found.model_dump(mode="json", include={"model", "training"})
            return check_.main(
                found.features, settings, lambda text: console.print(text, markup=False)
            )

    raise SystemExit(told(check))


def tpu_environment() -> None:
    """Make .venv-tpu, the environment that trains on a TPU (a download of about 1 GB)."""
    from components.tpu import environment

    def make() -> int:
        print(f"Ready: {environment.make()}")
        return 0

    raise SystemExit(told(make))
