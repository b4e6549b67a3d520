"""What is to be submitted, and what can be checked about it before anything is sent."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.errors import PipelineStop
from pipeline.kubeflow.submit import compiled, connection, cron

_TIMES = 3


@dataclass(frozen=True)
class Submission:
    """A package, and how it is to run.

    Attributes:
      package: The compiled YAML.
      pipeline: The pipeline's name in the installation; versions of the package go there.
      parameters: JSON values by name; the package's defaults for the others.
      experiment: Made if it isn't there.
      run_name: Of the run; with a schedule, of the recurring run, which is found by it again.
      service_account: Of the steps' pods; None: the installation's.
      pipeline_root: Where artifacts go; None: the installation's.
      schedule: Six cron fields, for a recurring run in place of a run.
      timeout_seconds: How long the run is followed.
      dry_run: Only show what would be sent.
      follow: Whether to wait for the run's end.
    """

    package: Path
    pipeline: str
    parameters: dict[str, Any]
    experiment: str
    run_name: str
    service_account: str | None
    pipeline_root: str | None
    schedule: str | None
    timeout_seconds: float
    dry_run: bool
    follow: bool


@dataclass(frozen=True)
class Checked:
    """What the checks found."""

    compiled: compiled.Compiled
    schedule: cron.Schedule | None
    connection: connection.Connection


def check(request: Submission, environment: Mapping[str, str]) -> Checked:
    """Reads the package, the schedule and the environment.

    Raises:
        PipelineStop: For all mistakes at once.
    """
    problems: list[str] = []

    def tried(read: Callable[[], Any]) -> Any:
        try:
            return read()
        except PipelineStop as stop:
            problems.extend(str(stop).splitlines())

    package = tried(lambda: compiled.read(request.package))
    cron_text = request.schedule
    schedule = None if cron_text is None else tried(lambda: cron.read(cron_text))
    found = tried(lambda: connection.read(environment))
    problems.extend(_parameter_problems(request.parameters))
    if len(problems) == 1:
        raise PipelineStop(problems[0])
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise PipelineStop(f"Nothing was submitted, for {len(problems)} reasons:{lines}")
    return Checked(package, schedule, found)


def plan(request: Submission, checked: Checked) -> Iterator[str]:
    """Yields the lines of a dry run."""
    package, place = checked.compiled, checked.connection
    yield f"Host:             {place.where}"
    yield f"Credentials:      {place.credentials}"
    yield f"Namespace:        {place.namespace or 'none (an installation for one user)'}"
    yield f"Pipeline:         {request.pipeline}"
    version = package.version_name()
    yield f"Version:          {version}, unless one that ends in {package.digest} is there"
    yield f"Package:          {package.path} ({len(package.steps)} steps)"
    yield f"Experiment:       {request.experiment}"
    yield f"{'Recurring run:' if request.schedule else 'Run:':<17} {request.run_name}"
    yield f"Parameters:       {json.dumps(request.parameters, ensure_ascii=False)}"
    yield f"Pipeline root:    {request.pipeline_root or 'the default of the installation'}"
    yield f"Service account:  {request.service_account or 'the default of the installation'}"
    if checked.schedule:
        yield f"Schedule:         {checked.schedule.text}"
        yield next_times(checked.schedule)
    yield "Nothing was sent: this is a dry run."


def next_times(schedule: cron.Schedule) -> str:
    """A line with the times at which it fires next."""
    times = schedule.next_times(datetime.now(UTC), _TIMES)
    listed = ", ".join(f"{time:%Y-%m-%d %H:%M:%S}" for time in times)
    return f"  fires next at {listed} (UTC, unless the installation has another time zone)"


def _parameter_problems(parameters: Mapping[str, Any]) -> Iterator[str]:
    for name, value in parameters.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            kind = type(value).__name__
            yield f"The parameter '{name}' is {value!r} ({kind}), which JSON has no form for."
