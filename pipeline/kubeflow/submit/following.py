"""Follows a run: a line for each step as it starts and as it ends."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import tenacity

from components.errors import PipelineStop
from pipeline.kubeflow.submit import steps
from pipeline.kubeflow.submit.answers import NoAnswer
from pipeline.kubeflow.submit.client import Client

ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
_FIRST_WAIT, _LONGEST_WAIT, _GROWTH = 0.1, 5.0, 1.5
_ANSWER_SECONDS = 60.0

Show = Callable[[str], None]


class Lost(PipelineStop):
    """The run couldn't be followed to its end."""


def follow(
    client: Client, run_id: str, names: Sequence[str], timeout_seconds: float, show: Show
) -> Any:
    """Waits until the run has ended, and returns it as the API has it.

    Args:
        client: The connection.
        run_id: The run.
        names: The package's steps.
        timeout_seconds: After that it gives up: a run whose workflow vanished never ends.
        show: Is given the lines.

    Raises:
        Lost: If the time is over, or the API won't tell any more.
    """
    deadline = time.monotonic() + timeout_seconds
    told: dict[str, steps.Outcome] = {}
    wait = _FIRST_WAIT
    while True:
        run = _ask(client, run_id, deadline, show)
        news = _tell(run, names, told, show)
        if run.state in ENDED:
            return run
        # Soon after something happened more may happen; otherwise there is no hurry.
        wait = _FIRST_WAIT if news else min(wait * _GROWTH, _LONGEST_WAIT)
        if time.monotonic() + wait > deadline:
            raise Lost(
                f"After {timeout_seconds:g} s the run is still {run.state or 'without a state'}."
            )
        time.sleep(wait)


def rows(run: Any) -> list[Any]:
    """The rows of the run's steps; none before the first."""
    return (run.run_details and run.run_details.task_details) or []


def _ask(client: Client, run_id: str, deadline: float, show: Show) -> Any:
    """The run; while nobody answers it asks again, less and less often."""

    def tell_once(attempt: tenacity.RetryCallState) -> None:
        if attempt.attempt_number == 1 and attempt.outcome:
            stop = attempt.outcome.exception()
            show(f"  {stop.what if isinstance(stop, NoAnswer) else stop} Asking again ...")

    left = max(0.0, deadline - time.monotonic())
    trying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(NoAnswer),
        wait=tenacity.wait_exponential(multiplier=0.2, max=60),
        stop=tenacity.stop_before_delay(left),
        before_sleep=tell_once,
        reraise=True,
    )
    try:
        return trying(
            client.call,
            "follow the run",
            client.runs.run_service_get_run,
            run_id=run_id,
            seconds=max(1.0, min(_ANSWER_SECONDS, left)),
        )
    except PipelineStop as stop:
        raise Lost(str(stop)) from None


def _tell(run: Any, names: Sequence[str], told: dict[str, steps.Outcome], show: Show) -> bool:
    """Says what is new since the last time; whether anything is."""
    found = steps.read(rows(run), names)
    news = {name: step for name, step in found.items() if told.get(name) != step.outcome}
    for name, step in news.items():
        took = "" if step.seconds is None else f"{step.seconds:9.0f} s"
        show(f"  {name:<24} {step.outcome:<7}{took}".rstrip())
        told[name] = step.outcome
    return bool(news)
