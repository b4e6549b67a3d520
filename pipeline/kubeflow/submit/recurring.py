"""A recurring run: made, replaced by one with other settings, or left as it is.

The API can't change a recurring run. A new one is made beside the old, disabled; then the old is
disabled, the new enabled, and the old deleted. So two never fire. In between none does, for the
time of one request; what falls due in it is fired by the new one, which was there already.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kfp_server_api

from components.errors import PipelineStop
from pipeline.kubeflow.submit.client import Client
from pipeline.kubeflow.submit.compiled import Compiled
from pipeline.kubeflow.submit.runs import naming_parameters
from pipeline.kubeflow.submit.upload import matching


def put(
    client: Client,
    name: str,
    experiment_id: str,
    cron: str,
    what: dict[str, Any],
    compiled: Compiled,
) -> tuple[str, str]:
    """Makes sure that exactly one recurring run of this name is there, enabled, and as asked.

    Args:
        client: The connection.
        name: Its name; in one namespace it stands for one schedule.
        experiment_id: Where its runs go.
        cron: Six fields.
        what: What each run is made of, from `runs.contents`.
        compiled: The package.

    Returns:
        Its id, and what was done.

    Raises:
        PipelineStop: If the server refuses; the old one then fires on, or the message says not.
    """
    body = _body(name, experiment_id, cron, what)
    there = _find(client, name)
    same = [one for one in there if one.description == body.description]
    kept = next((one for one in same if one.status == "ENABLED"), next(iter(same), None))
    old = [one for one in there if one is not kept]
    if kept and kept.status == "ENABLED" and not old:
        return str(kept.recurring_run_id), "unchanged"
    with naming_parameters(compiled):
        new = kept or client.call(
            "create the recurring run",
            client.recurring_runs.recurring_run_service_create_recurring_run,
            recurring_run=body,
        )
    firing = [one for one in old if one.status == "ENABLED"]
    with _undone_on_failure(client, name, new, firing, made=kept is None):
        for one in firing:
            _set(client, one, "disable")
        _set(client, new, "enable")
    for one in old:
        _delete(client, one)
    return str(new.recurring_run_id), _done(old, made=kept is None)


def _body(name: str, experiment_id: str, cron: str, what: dict[str, Any]) -> Any:
    """Disabled; its description has a digest of all the rest, by which it is known again."""
    body = kfp_server_api.V2beta1RecurringRun(
        display_name=name,
        experiment_id=experiment_id,
        mode="DISABLE",
        trigger=kfp_server_api.V2beta1Trigger(
            cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=cron)
        ),
        max_concurrency="1",
        no_catchup=True,
        **what,
    )
    settings = json.dumps(body.to_dict(), sort_keys=True)
    digest = hashlib.sha256(settings.encode()).hexdigest()[:12]
    body.description = f"Made by make submit; settings {digest}"
    return body


def _find(client: Client, name: str) -> list[Any]:
    """In all experiments: one in another experiment would fire beside the new one."""
    pages = client.pages(
        "look up the recurring run",
        client.recurring_runs.recurring_run_service_list_recurring_runs,
        filter=matching("display_name", name),
        **client.in_namespace,
    )
    return [one for page in pages for one in page.recurring_runs or [] if one.display_name == name]


@contextmanager
def _undone_on_failure(
    client: Client, name: str, new: Any, firing: list[Any], *, made: bool
) -> Iterator[None]:
    """Leaves those firing that did before, if the exchange breaks off."""
    try:
        yield
    except BaseException as error:
        try:
            # First the new one: both must not fire, and its enabling may have succeeded unheard.
            _delete(client, new) if made else _set(client, new, "disable")
            for one in firing:
                _set(client, one, "enable")
        except PipelineStop:
            raise PipelineStop(
                f"{error} The recurring run '{name}' may be off now: submit again, or enable it "
                f"in the UI: {client.connection.ui('/recurringruns')}"
            ) from None
        raise


def _set(client: Client, one: Any, state: str) -> None:
    request = getattr(client.recurring_runs, f"recurring_run_service_{state}_recurring_run")
    client.call(
        f"{state} the recurring run {one.recurring_run_id}",
        request,
        recurring_run_id=one.recurring_run_id,
    )


def _delete(client: Client, one: Any) -> None:
    # Without ORPHAN, Kubernetes deletes the workflows that it started, a running one too.
    client.call(
        f"delete the recurring run {one.recurring_run_id}",
        client.recurring_runs.recurring_run_service_delete_recurring_run,
        recurring_run_id=one.recurring_run_id,
        propagation_policy="ORPHAN",
    )


def _done(old: list[Any], *, made: bool) -> str:
    gone = ", ".join(one.recurring_run_id for one in old)
    if not old:
        return "made" if made else "enabled"
    return f"made in place of {gone}" if made else f"enabled; {gone} deleted"
