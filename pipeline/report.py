"""The run's documentation: what went in, what was judged, and how it came out, as Markdown."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.evaluation.results import describe
from components.evaluation.slices import OVERALL
from components.features.table import FeatureTable
from pipeline.config import Config


def write_report(
    folder: Path,
    run_id: str,
    config: Config,
    evaluation: dict[str, Any],
    push: dict[str, Any],
    bad: dict[str, Any] | None,
) -> Path:
    """Writes `<name>-<run id>.md`, by rename, and returns its path.

    Args:
      folder: where.
      run_id: of the run.
      config: its settings.
      evaluation: what the Evaluator found.
      push: what the RegistryPush did.
      bad: what `counts.json` says of rows in quarantine; None where bad rows stop the run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{config.name}-{run_id}.md"
    temporary = path.with_suffix(".tmp")
    temporary.write_text("\n".join(_lines(run_id, config, evaluation, push, bad)) + "\n", "utf-8")
    os.replace(temporary, path)
    return path


def _lines(
    run_id: str,
    config: Config,
    evaluation: dict[str, Any],
    push: dict[str, Any],
    bad: dict[str, Any] | None,
) -> Iterator[str]:
    version = f"version {push['version']}" if push["version"] else "no version"
    yield f"# {config.name}, run {run_id}: {version}\n"
    yield f"{push['reason'].capitalize()}. Data: `{config.data.path}`, `{config.data.pattern}`.\n"
    if bad is not None:
        yield from _quarantine(bad)
    yield from _features(config.features)
    yield "\n## Metrics on the test split\n"
    yield from _metrics(evaluation)
    yield "\n## Limits\n"
    for threshold in config.evaluation.thresholds:
        limits = threshold.model_dump(exclude_none=True)
        yield "- " + ", ".join(f"{name} {value}" for name, value in limits.items())
    for failure in evaluation["failures"]:
        yield f"- **not held:** {describe(failure)}"


def _quarantine(bad: dict[str, Any]) -> Iterator[str]:
    yield f"In quarantine: {bad['rows']:,} of {bad['of']:,} rows.\n"
    for reason, count in bad["reasons"].items():
        yield f"- {count:,} x {reason}"
    if bad["reasons"]:
        yield ""


def _features(table: FeatureTable) -> Iterator[str]:
    yield f"## Features ({table.problem}; label: {_cell(table.label.column)})\n"
    yield "| feature | column | kind | settings |\n| --- | --- | --- | --- |"
    for name, feature in table.columns.items():
        settings = feature.model_dump(exclude_none=True, exclude={"kind", "column"})
        yield _row(name, table.column_of(name), feature.kind, _listed(settings))
    for name, cross in table.crosses.items():
        settings = cross.model_dump(exclude_none=True, exclude={"of"})
        yield _row(name, " x ".join(cross.of), "cross", _listed(settings))
    for column, why in table.exclude.items():
        yield _row("", column, "excluded", why)


def _row(*cells: str) -> str:
    return "".join(f"| {_cell(cell)} " if cell else "| " for cell in cells) + "|"


def _cell(text: str) -> str:
    """Text that stays within its cell, and is neither code, HTML nor a link."""
    return re.sub(r"([\\`*|<\[])", r"\\\1", " ".join(text.split()))


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in settings.items())


def _metrics(evaluation: dict[str, Any]) -> Iterator[str]:
    """A row for each slice and model."""
    models = evaluation["metrics"]
    names = list(models["candidate"][OVERALL])
    yield _row("slice", "rows", "model", *names)
    yield "| --- " * (len(names) + 3) + "|"
    for place in sorted(models["candidate"], key=lambda name: (name != OVERALL, name)):
        for model, by_slice in models.items():
            values = (by_slice.get(place, {}).get(name) for name in names)
            shown = ["" if value is None else f"{value:.4f}" for value in values]
            yield _row(place, f"{evaluation['rows'][place]:,}", model, *shown)
