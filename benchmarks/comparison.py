"""Both pipelines on the same rows: their times, and what their models are worth."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ingest, ours, processes, template
from benchmarks.processes import Timed, Trained
from pipeline import loading

Step = Callable[[str], AbstractContextManager[None]]
"""Says what runs now, and how long it took."""

_WARM_UP = "from tfx import v1; from pipeline import cli, graph, local, run, summary"


@dataclass(frozen=True)
class Comparison:
    """All figures for one number of rows.

    The keys are `template` (as it is), `template_all` (with all the features that it suggests),
    `ours` (on as many examples as the template), `cached` (the same again) and `configured` (ours,
    trained as `configs/` has it).
    """

    rows: int
    runs: dict[str, Timed]
    models: dict[str, Trained]
    quality: dict[str, dict[str, float]]
    """`auc` and `log_loss` on our test split, of `rule` and `boosting` too."""


def write_rows(rows: int, folder: Path) -> None:
    """Writes `folder/data`: the rows of the installed tfx package, over and over.

    A repeated row falls into the same split as the first in both pipelines: no leak into the test.
    """
    ingest.write_rows(folder / "data" / "rows.csv", rows)


def measure_ingest(rows: int, folder: Path, step: Step) -> list[ingest.Measured]:
    """Reads `folder/data` as our ExampleGen does, and as TFX's if that can be waited for."""
    executors = {"ArrowExampleGen": ingest.arrow_example_gen}
    if rows <= ingest.COMPARED_UP_TO:
        executors["CsvExampleGen"] = ingest.csv_example_gen
    found = []
    for name, executor in executors.items():
        with step(f"ingest alone, {name}"):
            found.append(ingest.measure(name, executor, str(folder)))
    return found


def warm_up() -> None:
    """Reads all libraries once, so that the first program timed has no slower disk."""
    processes.run(["-c", _WARM_UP], loading.PROJECT)


def compare(rows: int, folder: Path, step: Step) -> Comparison:
    """Runs everything once.

    Args:
      rows: how many rows `folder/data` has.
      folder: for everything that is written.
      step: says what runs now.
    """
    data, workspace = folder / "data", folder / "workspace"
    runs: dict[str, Timed] = {}
    models: dict[str, Trained] = {}
    for name, what in (("template", "as it is"), ("template_all", "with all its features")):
        with step(f"TFX's template, {what}"):
            copy = folder / name
            template.create(copy, data, schema(), all_features=name == "template_all")
            runs[name], models[name] = template.run(copy), template.trained(copy)
    settings = ours.same_examples(rows, template.EXAMPLES_SEEN)
    with step("ours, as many examples as the template"):
        runs["ours"], models["ours"] = ours.run(workspace, data, settings), ours.trained(workspace)
    with step("ours, the same again"):
        runs["cached"] = ours.run(workspace, data, settings)
    with step("ours, trained as configured"):
        runs["configured"] = ours.run(workspace, data, [])
        models["configured"] = ours.trained(workspace)
    with step("quality of the models"):
        quality = _judge(ours.examples(workspace), models, folder / "quality.json")
    return Comparison(rows, runs, models, quality)


def schema() -> Path:
    """The taxi schema file."""
    return loading.PROJECT / loading.load(ours.CONFIG).schema_file


def _judge(examples: Path, models: dict[str, Trained], result: Path) -> dict[str, dict[str, float]]:
    named = [f"{name}={model.folder}" for name, model in models.items()]
    command = ["-m", "benchmarks.taxi_quality", str(examples), str(result), *named]
    processes.run(command, loading.PROJECT)
    found: dict[str, dict[str, float]] = json.loads(result.read_text())
    return found
