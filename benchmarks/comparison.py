"""Both pipelines on the same rows: their times, and what their models are worth."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ingest, ours, processes, template
from pipeline import loading

Step = Callable[[str], AbstractContextManager[None]]
"""Says what runs now, and how long it took."""

_WARM_UP = "from tfx import v1; from pipeline import cli, graph, local, run, summary"


@dataclass(frozen=True)
class Training:
    """A training's examples, and the seconds that they took."""

    examples: int
    seconds: float

    @property
    def rate(self) -> float:
        """Examples a second."""
        return self.examples / self.seconds


@dataclass(frozen=True)
class Comparison:
    """All figures for one number of rows.

    The keys are `template` (as it is), `template_all` (with all the features it suggests), `ours` (on
    as many examples as the template) and `ours_configured` (as `configs/` has it).
    """

    rows: int
    runs: dict[str, processes.Timed]
    cached: processes.Timed
    trainings: dict[str, Training]
    quality: dict[str, dict[str, float]]
    """`auc` and `log_loss` on our test split, of `rule` and `boosting` too."""


def warm_up() -> None:
    """Reads all libraries once, so that the first program timed has no slower disk."""
    processes.run(["-c", _WARM_UP], loading.PROJECT)


def compare(rows: int, folder: Path, step: Step) -> Comparison:
    """Runs everything once.

    Args:
      rows: how many; those of the installed tfx package, over and over. A repeated row falls into
        the same split as the first in both pipelines, so none leaks from train to test.
      folder: an empty folder.
      step: says what runs now.
    """
    data = folder / "data"
    ingest.write_rows(data / "data.csv", rows)
    runs, trainings, models = {}, {}, {}
    for name, what in (("template", "as it is"), ("template_all", "with all its features")):
        with step(f"TFX's template, {what}"):
            copy = folder / name
            template.create(copy, data, _schema(), all_features=name == "template_all")
            runs[name], models[name] = template.run(copy), template.model(copy)
            seconds = template.training_seconds(copy)
            trainings[name] = Training(template.EXAMPLES_SEEN, seconds)
    workspace = folder / "workspace"
    settings = ours.same_examples(rows, template.EXAMPLES_SEEN)
    for name, what, changes in (
        ("ours", "as many examples as the template", settings),
        ("cached", "the same again", settings),
        ("ours_configured", "trained as configured", []),
    ):
        with step(f"ours, {what}"):
            runs[name] = ours.run(workspace, data, changes)
            models[name], *training = ours.newest_model(workspace)
            trainings[name] = Training(*training)
    del models["cached"], trainings["cached"]
    cached = runs.pop("cached")
    with step("quality of the models"):
        quality = _judge(ours.examples(workspace), models, folder)
    return Comparison(rows, runs, cached, trainings, quality)


def _schema() -> Path:
    return loading.PROJECT / loading.load(ours.CONFIG).schema_file


def _judge(examples: Path, models: dict[str, Path], folder: Path) -> dict[str, dict[str, float]]:
    result = folder / "quality.json"
    named = [f"{name}={model}" for name, model in models.items()]
    command = ["-m", "benchmarks.quality", str(examples), str(result), *named]
    processes.run(command, loading.PROJECT)
    found: dict[str, dict[str, float]] = json.loads(result.read_text())
    return found
