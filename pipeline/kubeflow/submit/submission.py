"""Submits a package: what `make submit` does, in order.

Its exit codes: 0 the run SUCCEEDED (or isn't followed, or was a dry run), 1 it failed, 2 nothing
was submitted (bad input, or the installation can't be reached or refuses), 3 the time was over or
the contact was lost while following, 130 Ctrl-C while following.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from components.errors import PipelineStop
from pipeline.kubeflow.submit.request import Checked, Submission, check, next_times, plan

if TYPE_CHECKING:
    from pipeline.kubeflow.submit.client import Client

SUCCEEDED, FAILED, LOST, INTERRUPTED = 0, 1, 3, 130
"""2, for what never began, is PipelineStop's (`pipeline.command_line`)."""

Show = Callable[[str], None]


def submit(request: Submission, environment: Mapping[str, str], show: Show) -> int:
    """Uploads the package if it is new, and starts and follows a run, or makes a recurring one.

    Args:
        request: What is to run.
        environment: How the installation is reached; see `connection.read`.
        show: Is given lines of plain text.

    Returns:
        The exit code; see the module.

    Raises:
        PipelineStop: If nothing was submitted: bad input, no connection, a refusal.
    """
    checked = check(request, environment)
    if request.dry_run:
        for line in plan(request, checked):
            show(line)
        return SUCCEEDED
    from pipeline.kubeflow.submit.client import Client

    with warnings.catch_warnings():
        # kfp.Client's about its age, and urllib3's for each request with KFP_VERIFY_SSL=false.
        warnings.simplefilter("ignore")
        if not checked.connection.verify_ssl:
            show("KFP_VERIFY_SSL=false: the server's certificate is not checked.")
        return _submit(Client(checked.connection), request, checked, show)


def _submit(client: "Client", request: Submission, checked: Checked, show: Show) -> int:
    from pipeline.kubeflow.submit import recurring, runs, upload

    greet(client)
    version = upload.upload(client, request.pipeline, checked.compiled)
    done = "uploaded" if version.uploaded else "there already"
    show(f"Pipeline {request.pipeline}, version {version.name} ({done})")
    experiment = runs.experiment(client, request.experiment)
    what = runs.contents(
        version, request.parameters, request.pipeline_root, request.service_account
    )
    if checked.schedule:
        found, done = recurring.put(
            client, request.run_name, experiment, checked.schedule.text, what, checked.compiled
        )
        show(f"Recurring run {request.run_name}, {found}: {done}")
        show(f"  {checked.connection.ui(f'/recurringrun/details/{found}')}")
        show(next_times(checked.schedule))
        return SUCCEEDED
    run_id = runs.start(client, request.run_name, experiment, what, checked.compiled)
    page = f"/runs/details/{run_id}"
    show(f"Run {request.run_name}: {checked.connection.ui(page)}")
    show(f"  (where the UI has another address than the API: /#{page} there)")
    return _follow(client, run_id, request, checked, show) if request.follow else SUCCEEDED


def greet(client: "Client") -> None:
    """The first request: it finds out whether the API is there, and for whom.

    Raises:
        PipelineStop: If nobody answers, or it is for several users and no namespace is given.
    """
    health = client.call("ask how it is", client.healthzs.healthz_service_get_healthz)
    if health.multi_user and not client.connection.namespace:
        raise PipelineStop(
            f"{client.connection.where} serves several users: set KFP_NAMESPACE to your namespace."
        )


def _follow(
    client: "Client", run_id: str, request: Submission, checked: Checked, show: Show
) -> int:
    from pipeline.kubeflow.submit import following, result

    place = checked.connection
    page = place.ui(f"/runs/details/{run_id}")
    goes_on = (
        f"The run goes on. Follow it at {page}; terminate it there, or with POST "
        f"{place.host or ''}/apis/v2beta1/runs/{run_id}:terminate"
    )
    try:
        run = following.follow(
            client, run_id, checked.compiled.steps, request.timeout_seconds, show
        )
    except following.Lost as lost:
        show(str(lost))
        show(goes_on)
        return LOST
    except KeyboardInterrupt:
        show(f"No longer following. {goes_on}")
        return INTERRUPTED
    for line in result.describe(run, checked.compiled, place, request.pipeline_root):
        show(line)
    return SUCCEEDED if run.state == "SUCCEEDED" else FAILED
