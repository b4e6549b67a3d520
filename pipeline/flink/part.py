"""The steps that run on Beam, on an Apache Flink cluster; and such a cluster here, for trying."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from pipeline.command_line import command
from pipeline.parts import PROJECT

if TYPE_CHECKING:
    from pipeline.config import BeamOptions, Config

RUNNER = "FlinkRunner"
_NEEDED = {"--job_endpoint": "Beam's job server for Flink", "--flink_master": "Flink's REST"}


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    command(app, "Flink")(flink_local)
    command(app, "Flink")(flink_stop)


def flink_local() -> int:
    """Start a Flink cluster on this machine, for trying; the first time it is downloaded."""
    from pipeline.flink import cluster

    cluster.start(print)
    print("Next:\n  make run-local CONFIG=flink    run on it\n  make flink-stop")
    return 0


def flink_stop() -> int:
    """Stop it, and remove what it wrote."""
    from pipeline.flink import cluster

    print("Stopped." if cluster.stop() else "It is not running.")
    return 0


def _flags(chosen: "BeamOptions") -> list[str]:
    """Beam's flags for Flink; what the settings' own options say comes last, and wins."""
    from pipeline.flink import runner  # Beam knows the options of what is imported

    boot = {"command": str(PROJECT / "pipeline" / "flink" / "boot")}
    return [
        f"--runner={runner.__name__}.FlinkRunner",
        f"--parallelism={chosen.workers}",
        "--environment_type=PROCESS",
        f"--environment_config={json.dumps(boot)}",
        # Between two stages of a job: a worker's imports take far longer than most stages.
        "--environment_cache_millis=30000",
        # Without an image's name TFX packs its own source, and workers install it over theirs.
        "--sdk_container_image=unused",
        "--no_pipeline_type_check",
        *chosen.options,
    ]


RUNNERS = {RUNNER: _flags}


def problems(config: "Config") -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields settings of Beam that mean nothing on Flink, and what is missing there."""
    chosen: list[tuple[tuple[str, ...], Any]] = [(("beam",), config.beam)]
    chosen += [(("beam", "components", name), own) for name, own in config.beam.components.items()]
    for path, options in chosen:
        if options.runner != RUNNER:
            continue
        if options.mode != "in_memory":
            yield (*path, "mode"), "is the FnApiRunner's, and means nothing on Flink: leave it out"
        for flag, whose in _NEEDED.items():
            if not any(option.startswith(f"{flag}=") for option in options.options):
                yield (*path, "options"), f"lacks {flag}=HOST:PORT, where {whose} listens"
