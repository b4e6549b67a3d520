"""How Beam runs, as the flags that it reads."""

from pipeline.config import BeamOptions, Config


def beam_flags(config: Config, component: str) -> list[str]:
    """Beam's flags for a component, the runner and its mode always among them."""
    options: BeamOptions = config.beam.components.get(component, config.beam)
    flags = [f"--runner={options.runner}"]
    if options.runner == "FnApiRunner":
        flags += [
            f"--direct_running_mode={options.mode}",
            f"--direct_num_workers={options.workers}",
            # Without an image's name TFX packs its own source for each component: a second a time.
            "--sdk_container_image=unused",
            # TFX's own transforms are typed right; to check them again takes a second a run.
            "--no_pipeline_type_check",
        ]
    return flags + options.options
