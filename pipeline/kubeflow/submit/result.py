"""The last words about a run: how it ended, and where to look if it failed."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.kubeflow.submit import steps
from pipeline.kubeflow.submit.compiled import Compiled
from pipeline.kubeflow.submit.connection import Connection
from pipeline.kubeflow.submit.following import rows

_DEFAULT_ROOT = "minio://mlpipeline/v2/artifacts"
"""Of an installation whose ConfigMap kfp-launcher doesn't say otherwise."""


def describe(
    run: Any, compiled: Compiled, connection: Connection, pipeline_root: str | None
) -> Iterator[str]:
    """Yields the lines for a run that has ended, its result last.

    The API gives no reason for a failure: that is in the step's log.
    """
    found = steps.read(rows(run), compiled.steps)
    failed = [name for name, step in found.items() if step.outcome == "failed"]
    if run.state == "FAILED":
        yield from _places(run.run_id, failed, found, compiled, connection, pipeline_root)
    cached = sum(step.outcome == "cached" for step in found.values())
    counted = f"{len(found)} of {len(compiled.steps)} steps, {cached} cached"
    reason = f" in {', '.join(failed)}" if failed else ""
    took = ""
    if run.finished_at and run.created_at:
        took = f" after {(run.finished_at - run.created_at).total_seconds():.0f} s"
    yield f"{run.state}{reason}{took} ({counted})"


def _places(
    run_id: str,
    failed: Sequence[str],
    found: dict[str, steps.Step],
    compiled: Compiled,
    connection: Connection,
    pipeline_root: str | None,
) -> Iterator[str]:
    namespace = connection.namespace or "kubeflow"
    yield "The reason is at the end of the log:"
    yield f"  {connection.ui(f'/runs/details/{run_id}')} (the step, then Logs)"
    pods = [step.pod for name in failed if (step := found[name]).pod]
    if not pods:
        yield (
            f"  kubectl get pods -n {namespace} -l pipeline/runid={run_id} "
            "--field-selector=status.phase=Failed"
        )
    for pod in pods or ["POD"]:
        yield f"  kubectl logs -n {namespace} {pod} -c main"
    root = (pipeline_root or _DEFAULT_ROOT).rstrip("/")
    for name in failed:
        yield f"  {root}/{compiled.name}/{run_id}/{name}/.../executor-logs"
