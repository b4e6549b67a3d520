"""`python -m pipeline submit`: compiles, uploads, starts a run or a schedule, and follows a run.

Its exit codes: 0 the run SUCCEEDED (or isn't followed, or was a dry run), 1 it failed, 2 nothing
was submitted (bad input, or the installation can't be reached or refuses), 3 the time was over or
the contact was lost while following, 130 Ctrl-C while following.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from components.errors import PipelineStop
from pipeline import loading, parts
from pipeline.config import Config
from pipeline.kubeflow import client, compiling, parameters
from pipeline.kubeflow.settings import Target

SUCCEEDED, FAILED, LOST, INTERRUPTED = 0, 1, 3, 130
"""2, for what never began, is PipelineStop's."""
_ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
_CACHED_SECONDS = 2.0
"""A step that took no longer was cached: its pod takes longer."""
_REASON = re.compile(r"\b[A-Z]\w* failed: .*")
"""The step's last words; the launcher prints lines of its own after them."""
_OF_THE_LAUNCHER = re.compile(r"[IWEF]\d{4} |time=|\s*$")

Show = Callable[[str], None]
Which = Literal["training", "continued-evaluation", "batch-predict"]


def main(
    target: Target,
    show: Show,
    *,
    which: Which = "training",
    config: str = "automated",
    set_: list[str] | None = None,
    param: list[str] | None = None,
    schedule: str | None = None,
    run_name: str | None = None,
    experiment: str | None = None,
    timeout: float = 24.0,
    follow: bool = True,
    dry_run: bool = False,
) -> int:
    """Compiles and submits, as the command's options say (`part.submit`); the exit code comes back.

    `show` is given each line for the person. PipelineStop: nothing was submitted.
    """
    if schedule is not None and len(schedule.split()) != 6:
        raise PipelineStop(
            f"--schedule '{schedule}': six fields are wanted, seconds first, such as '0 0 6 * * "
            "*'. The server would take five, and read the first as seconds."
        )
    api = client.Api()
    packages, values = _made(which, config, set_ or [], param or [], bool(schedule), target)
    package = packages[-1]
    if which == "training" and not schedule and parameters.FINGERPRINT not in values:
        show(
            "ExampleGen will run, and all behind it: the data is not visible from here. If it is "
            f"what it was, say so: --param {parameters.FINGERPRINT}=ANY-NAME-FOR-IT."
        )
    name = package.name if schedule else f"{package.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    name, experiment = run_name or name, experiment or target.experiment
    what = target.model_dump(include={"pipeline_root", "service_account"}) | {"params": values}
    if dry_run:
        shown = {
            **{"host": api.where, "credentials": api.credentials, "namespace": api.namespace},
            **{"pipeline": package.name, "version": f"…-{package.digest}", "run": name},
            **{"steps": package.tasks, "experiment": experiment, "schedule": schedule, **what},
        }
        for label, value in shown.items():
            show(f"{label}: {value}")
        show("Nothing was sent: this is a dry run.")
        return SUCCEEDED
    if not api.is_verified:
        show("KFP_VERIFY_SSL=false: the server's certificate is not checked.")
    api.greet()
    for each in packages:  # the last one is what runs
        uploaded = _upload(api, each, show)
    if schedule:
        return _schedule(api, name, experiment, schedule, what | uploaded, show)
    run_id = api.start_run(name, experiment, **what, **uploaded)
    show(f"Run {name}: {api.host}/#/runs/details/{run_id}")
    show(f"  (where the UI has another address than the API: /#/runs/details/{run_id} there)")
    return _follow(api, run_id, package.tasks, timeout * 3600, show) if follow else SUCCEEDED


def _made(
    which: Which,
    config_name: str,
    overrides: list[str],
    param: list[str],
    is_scheduled: bool,
    target: Target,
) -> tuple[list[compiling.Package], dict[str, Any]]:
    """The package, behind those that have to be there first, and the run's parameters."""
    needed = f"components.{which.replace('-', '_').replace('predict', 'prediction')}"
    if which != "training" and needed not in parts.present():
        raise PipelineStop(f"--pipeline {which}: this project is without that part.")
    if which == "batch-predict":
        values = dict(text.partition("=")[::2] for text in param)
        compiling.check_texts(values)
        return [compiling.batch_prediction(config_name, overrides, target)], values
    config = parameters.load(config_name, overrides)
    if which == "continued-evaluation":
        values = parameters.read(param, config, parameters.OF_AN_EVALUATION)
        trained = compiling.training(config, target)
        package = compiling.continued_evaluation(config_name, overrides, target, trained)
        return [trained, package], values
    values = parameters.read(param, config)
    config_of_run = parameters.changed(config, values)
    start = config_of_run.training.warm_start
    trainer_cached = start is None or isinstance(start.version, int)  # a label may move
    if is_scheduled and parameters.FINGERPRINT in values:
        raise PipelineStop(
            f"--param {parameters.FINGERPRINT} can't be given with --schedule: every later run "
            "would take its data for the same. Leave it out; each run reads the data anew."
        )
    fingerprint = values.get(parameters.FINGERPRINT) or data_fingerprint(config_of_run)
    if fingerprint and not is_scheduled:
        values[parameters.FINGERPRINT] = fingerprint
    ingest_cached = parameters.FINGERPRINT in values
    return [compiling.training(config, target, ingest_cached, trainer_cached)], values


def data_fingerprint(config: Config) -> str | None:
    """Identifies the content of a run's data, if it is the image's own (`package:`)."""
    from components.ingest.spans import resolve

    data = config.data
    if not data.path.startswith("package:"):
        return None
    folder = loading.in_package("data_path", data.path)
    digest = hashlib.sha256()
    for file in sorted(resolve(str(folder), data.pattern, data.spans).files):
        digest.update(os.path.relpath(file, folder).encode() + b"\0")
        with open(file, "rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:32]


def _upload(api: client.Api, package: compiling.Package, show: Show) -> dict[str, Any]:
    """Uploads a package, unless its content is there; the pipeline's and the version's id."""
    path = package.write()
    pipeline_id = api.find_pipeline(package.name) or api.make_pipeline(package.name)
    version_id = api.find_version(pipeline_id, package.digest)
    shown = f"…-{package.digest} (there already)"
    if not version_id:
        version = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{package.digest}"
        made = api.client.upload_pipeline_version(str(path), version, pipeline_id=pipeline_id)
        version_id, shown = str(made.pipeline_version_id), f"{version} (uploaded)"
    show(f"Pipeline {package.name}, version {shown}")
    return {"pipeline_id": pipeline_id, "version_id": version_id}


def _schedule(
    api: client.Api, name: str, experiment: str, cron: str, what: dict[str, Any], show: Show
) -> int:
    """Makes a recurring run, and then deletes others of its name: there is never none."""
    listed = api.client.list_recurring_runs(page_size=100).recurring_runs or []
    old = [str(one.recurring_run_id) for one in listed if one.display_name == name]
    when = {"cron_expression": cron, "max_concurrency": 1, "no_catchup": True}
    made = api.client.create_experiment(experiment).experiment_id
    new = api.client.create_recurring_run(made, name, **when, **what).recurring_run_id
    for one in old:
        # Without ORPHAN, Kubernetes deletes the workflows that it started, a running one too.
        delete = api.client._recurring_run_api.recurring_run_service_delete_recurring_run
        delete(recurring_run_id=one, propagation_policy="ORPHAN")
    show(f"Recurring run {name}: {'in place of ' + ', '.join(old) if old else 'made'}")
    show(f"  {api.host}/#/recurringrun/details/{new}")
    return SUCCEEDED


def _follow(
    api: client.Api, run_id: str, steps: list[str], timeout_seconds: float, show: Show
) -> int:
    """Shows a line for each step as it begins and ends, until the run has ended.

    kfp.Client's own wait never ends for a run that was cancelled.
    """
    goes_on = (
        f"The run goes on. Follow it at {api.host}/#/runs/details/{run_id}; terminate it there, or "
        f"with POST {api.host}/apis/v2beta1/runs/{run_id}:terminate"
    )
    deadline, wait, told = time.monotonic() + timeout_seconds, 0.2, dict[str, str]()
    try:
        while True:
            left = max(0.0, deadline - time.monotonic())
            run = client.patiently(left, lambda: api.client.get_run(run_id))
            _tell(run, steps, told, show)
            if run.state in _ENDED:
                break
            wait = min(wait * 1.5, 5.0)
            if time.monotonic() + wait > deadline:
                raise PipelineStop(f"After {timeout_seconds:g} s the run is still {run.state}.")
            time.sleep(wait)
    except PipelineStop as stop:
        show(f"{stop} {goes_on}")
        return LOST
    except KeyboardInterrupt:
        show(f"No longer following. {goes_on}")
        return INTERRUPTED
    if run.state == "FAILED":
        _tell_reasons(api, run, show)
    show(f"{run.state} ({len(told)} of {len(steps)} steps)")
    return SUCCEEDED if run.state == "SUCCEEDED" else FAILED


def _tell(run: Any, steps: list[str], told: dict[str, str], show: Show) -> None:
    """Says what is new since the last time.

    The rows are Argo's nodes: a step `trainer` has `trainer-driver`, then `trainer`, and in that
    `executor`. Those of a run that SUCCEEDED may lag behind it.
    """
    rows = [row for row in _rows(run) if row.display_name in steps and row.state]
    for row in sorted(rows, key=lambda row: str(row.start_time)):
        state, took = row.state.lower(), ""
        if run.state == "SUCCEEDED" and state in ("running", "pending"):
            state = "succeeded"
        elif state in ("succeeded", "failed") and row.start_time and row.end_time:
            seconds = (row.end_time - row.start_time).total_seconds()
            took = f"{seconds:9.0f} s" if seconds > 0 else ""  # it is below 0 while it runs
            if state == "succeeded" and 0 <= seconds <= _CACHED_SECONDS:
                state, took = "cached", ""
        if told.get(row.display_name) != state:
            told[row.display_name] = state
            show(f"  {row.display_name:<24} {state:<10}{took}".rstrip())


def _rows(run: Any) -> list[Any]:
    return (run.run_details and run.run_details.task_details) or []


def _tell_reasons(api: client.Api, run: Any, show: Show) -> None:
    """Says why steps failed, from their logs, and how to read those.

    The failed row `executor` names a node; its pod is called otherwise.
    """
    names = [(row, row.display_name or "") for row in _rows(run) if row.state == "FAILED"]
    executors = [row for row, name in names if name.startswith("executor")]
    nodes = {child.pod_name for row in executors for child in row.child_tasks or []} - {None}
    namespace = api.namespace or "kubeflow"
    for node in sorted(nodes):
        show(_reason(api, run.run_id, node))
        workflow, _, number = node.rpartition("-")
        pod = f"{workflow}-retry-system-container-impl-{number}"
        show(f"  Its log: kubectl logs -n {namespace} {pod} -c main")
    if not nodes:
        show(
            "No step's own process failed, so there is no reason in a log: a driver, a deadline or "
            f"the cluster did. See {api.host}/#/runs/details/{run.run_id}, or: "
            f"kubectl describe workflow -n {namespace} -l pipeline/runid={run.run_id}"
        )


def _reason(api: client.Api, run_id: str, node: str) -> str:
    """The last words in a node's log."""
    call = api.client._run_api.api_client.call_api
    how = {"auth_settings": ["Bearer"], "_return_http_data_only": True, "_preload_content": False}
    path = f"/apis/v1alpha1/runs/{run_id}/nodes/{node}/log"
    try:
        answer = call(path, "GET", response_type="str", **how)
    except PipelineStop:
        return "A step failed; its log can't be read from here."
    log = bytes(answer.data).decode(errors="replace")
    if reasons := _REASON.findall(log):
        return str(reasons[-1]).strip()
    words = [line for line in log.splitlines() if not _OF_THE_LAUNCHER.match(line)]
    last = words[-1] if words else "none"
    return f"A step failed; if it was killed (no memory left?), without a reason. Its end: {last}"
