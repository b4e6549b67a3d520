"""`python -m pipeline submit`: compiles, uploads, starts a run or a schedule, and follows a run.

Its exit codes: 0 the run SUCCEEDED (or isn't followed, or was a dry run), 1 it failed, 2 nothing
was submitted (bad input, or the installation can't be reached or refuses), 3 the time was over or
the contact was lost while following, 130 Ctrl-C while following.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from components.errors import PipelineStop
from pipeline import loading, parts
from pipeline.config import Config
from pipeline.kubeflow import building, client, compiling, parameters
from pipeline.kubeflow.settings import Target

SUCCEEDED, FAILED, LOST, INTERRUPTED = 0, 1, 3, 130
"""2, for what never began, is PipelineStop's."""
_ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 5.0
_AT_ONCE = timedelta(seconds=2)
"""A cached step's row ends in the moment it begins; a pod takes longer than that."""
_REASON = re.compile(r"\b[A-Z]\w* failed: .*")
"""The step's last words; the launcher prints lines of its own after them."""
_LONGEST_LOG = 1 << 24

Show = Callable[[str], None]


class Which(StrEnum):
    """The pipelines that can be submitted."""

    TRAINING = "training"
    CONTINUED_EVALUATION = "continued-evaluation"
    BATCH_PREDICT = "batch-predict"


@dataclass(frozen=True)
class Wish:
    """What a person wants to be run.

    Attributes:
      config: the pipeline's configuration.
      overrides: of it.
      which: the pipeline.
      values: parameters of the run, `name=value` each.
      schedule: six cron fields, for a recurring run.
      run_name: None for a name with the time.
      experiment: None for the settings'.
      timeout_seconds: how long the run is followed.
      follow: whether it is.
      dry_run: whether nothing is sent.
    """

    config: str
    overrides: list[str]
    which: Which
    values: list[str]
    schedule: str | None
    run_name: str | None
    experiment: str | None
    timeout_seconds: float
    follow: bool
    dry_run: bool


def main(wish: Wish, target: Target, show: Show) -> int:
    """Compiles and submits; the exit code comes back.

    Raises:
      PipelineStop: nothing was submitted.
    """
    if wish.schedule is not None and len(wish.schedule.split()) != 6:
        raise PipelineStop(
            f"--schedule '{wish.schedule}': six fields are wanted, seconds first, such as "
            "'0 0 6 * * *'. The server would take five, and read the first as seconds."
        )
    reached = client.connection(os.environ)
    package, values, others = _packages(wish, target, show)
    name = package.name if wish.schedule else f"{package.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    name, experiment = wish.run_name or name, wish.experiment or target.experiment
    building.check_texts(values)
    if wish.dry_run:
        for line in _plan(wish, target, reached, package, values, name, experiment):
            show(line)
        return SUCCEEDED
    if not reached.verify_ssl:
        show("KFP_VERIFY_SSL=false: the server's certificate is not checked.")
    api = client.connect(reached)
    for other in others:
        _upload(api, other, show)
    pipeline_id, version_id = _upload(api, package, show)
    what = {
        "pipeline_id": pipeline_id,
        "version_id": version_id,
        "params": values,
        "pipeline_root": target.pipeline_root,
        "service_account": target.service_account,
    }
    with _naming_parameters(package):
        if wish.schedule:
            return _schedule(api, name, experiment, wish.schedule, what, show)
        run_id = client.start_run(api, name, experiment, **what)
    page = f"/runs/details/{run_id}"
    show(f"Run {name}: {reached.page(page)}")
    show(f"  (where the UI has another address than the API: /#{page} there)")
    return _follow(api, run_id, package.tasks, wish.timeout_seconds, show) if wish.follow else 0


def _packages(
    wish: Wish, target: Target, show: Show
) -> tuple[compiling.Package, dict[str, Any], list[compiling.Package]]:
    """The package, the run's parameters, and packages that have to be there for it."""
    values = parameters.read(wish.values)
    if wish.which == Which.CONTINUED_EVALUATION:
        parameters.check_evaluation(values)
        _need("components.continued_evaluation", wish.which)
        trained = compiling.training(loading.load(wish.config, wish.overrides), target)
        package = compiling.continued_evaluation(wish.config, wish.overrides, target, trained)
        return package, values, [trained]
    if wish.which == Which.BATCH_PREDICT:
        _need("components.batch_prediction", wish.which)
        return compiling.batch_prediction(wish.config, wish.overrides, target), values, []
    parameters.check(values)
    package, values = _training(loading.load(wish.config, wish.overrides), target, values, wish)
    if not wish.schedule and parameters.FINGERPRINT not in values:
        show(
            "ExampleGen will run, and all behind it: the data is not visible from here. If it is "
            f"what it was, say so: --param {parameters.FINGERPRINT}=ANY-NAME-FOR-IT."
        )
    return package, values, []


def _need(part: str, which: Which) -> None:
    if part not in parts.present():
        raise PipelineStop(f"--pipeline {which.value}: this project is without that part.")


def _training(
    config: Config, target: Target, values: dict[str, Any], wish: Wish
) -> tuple[compiling.Package, dict[str, Any]]:
    """The package, in which is cached what the values identify: data, version to start from."""
    start = parameters.PARAMETERS["warm_start"].read(values.get("warm_start", ""))
    trainer_cached = not isinstance(start, str)  # a label may move
    if wish.schedule:
        if parameters.FINGERPRINT in values:
            raise PipelineStop(
                f"--param {parameters.FINGERPRINT} can't be given with --schedule: every later run "
                "would take its data for the same. Leave it out; each run reads the data anew."
            )
        return compiling.training(config, target, trainer_cached=trainer_cached), values
    fingerprint = values.get(parameters.FINGERPRINT) or data_fingerprint(config, values)
    if fingerprint is None:
        return compiling.training(config, target, trainer_cached=trainer_cached), values
    package = compiling.training(config, target, "kubeflow", True, trainer_cached)
    return package, {**values, parameters.FINGERPRINT: str(fingerprint)}


def data_fingerprint(config: Config, values: dict[str, Any]) -> str | None:
    """Identifies the content of the data, if it is the image's own (`package:`): the same there.

    Args:
      config: the pipeline's configuration.
      values: the run's parameters.
    """
    from components.ingest.spans import resolve

    path = str(values.get("data_path", config.data.path))
    if not path.startswith("package:"):
        return None
    chosen: dict[str, Any] = {n: values[n] for n in ("data_path", "span") if n in values}
    data = parameters.changed(config, chosen).data
    folder = loading.in_package("data_path", path)
    digest = hashlib.sha256()
    for file in sorted(resolve(str(folder), data.pattern, data.spans).files):
        digest.update(os.path.relpath(file, folder).encode() + b"\0")
        with open(file, "rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:32]


def _plan(
    wish: Wish,
    target: Target,
    reached: client.Connection,
    package: compiling.Package,
    values: dict[str, Any],
    name: str,
    experiment: str,
) -> Iterator[str]:
    """Yields the lines of a dry run."""
    yield f"Host:             {reached.where}"
    yield f"Credentials:      {reached.credentials}"
    yield f"Namespace:        {reached.namespace or 'none (an installation for one user)'}"
    yield f"Pipeline:         {package.name} ({len(package.tasks)} steps)"
    yield f"Version:          one whose name ends with {package.digest}"
    yield f"Experiment:       {experiment}"
    yield f"{'Recurring run:' if wish.schedule else 'Run:':<17} {name}"
    yield f"Parameters:       {json.dumps(values, ensure_ascii=False)}"
    yield f"Pipeline root:    {target.pipeline_root}"
    yield f"Service account:  {target.service_account or 'the default of the installation'}"
    if wish.schedule:
        yield f"Schedule:         {wish.schedule}"
    yield "Nothing was sent: this is a dry run."


def _upload(api: client.Api, package: compiling.Package, show: Show) -> tuple[str, str]:
    """Uploads a package, unless its content is there; the pipeline's and the version's id."""
    path = package.write(compiling.BUILD)
    pipeline_id = client.find_pipeline(api, package.name)
    if pipeline_id and (known := client.find_version(api, pipeline_id, package.digest)):
        show(f"Pipeline {package.name}, version …-{package.digest} (there already)")
        return pipeline_id, known
    if not pipeline_id:
        # Made empty: `upload_pipeline` would name the first version after the pipeline.
        pipeline_id = _make_pipeline(api, package.name)
    version = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{package.digest}"
    upload = api.client.upload_pipeline_version
    doing = f"upload {path.name}"
    made = api.ask(doing, upload, str(path), version, pipeline_id=pipeline_id)
    show(f"Pipeline {package.name}, version {version} (uploaded)")
    return pipeline_id, str(made.pipeline_version_id)


def _make_pipeline(api: client.Api, name: str) -> str:
    import kfp_server_api

    namespace = api.connection.namespace
    body = kfp_server_api.V2beta1Pipeline(
        display_name=name, **({"namespace": namespace} if namespace else {})
    )
    create = api.client._pipelines_api.pipeline_service_create_pipeline
    return str(api.ask(f"make the pipeline '{name}'", create, pipeline=body).pipeline_id)


class _naming_parameters:
    """Adds to a refusal that speaks of parameters which ones the package takes."""

    def __init__(self, package: compiling.Package):
        self._package = package

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, stop: Any, _: Any) -> None:
        if isinstance(stop, client.NoAnswer):
            raise PipelineStop(
                f"{stop} Before you submit again, look whether the run began all the same."
            ) from None
        if isinstance(stop, PipelineStop) and "parameter" in str(stop):
            taken = self._package.made.pipeline_spec.root.input_definitions.parameters
            raise PipelineStop(f"{stop} The package takes: {', '.join(sorted(taken))}.") from None


def _schedule(
    api: client.Api, name: str, experiment: str, cron: str, what: dict[str, Any], show: Show
) -> int:
    """Makes a recurring run, in place of those of its name.

    The new one is made first, disabled: if it is refused, the old ones go on, and two never fire.
    """
    listed = api.ask(
        "look up the recurring run", api.client.list_recurring_runs, page_size=100
    ).recurring_runs
    old = [str(one.recurring_run_id) for one in listed or [] if one.display_name == name]
    made = api.ask(f"make the experiment '{experiment}'", api.client.create_experiment, experiment)
    new = api.ask(
        "create the recurring run",
        api.client.create_recurring_run,
        made.experiment_id,
        name,
        cron_expression=cron,
        max_concurrency=1,
        no_catchup=True,
        enabled=False,
        **what,
    ).recurring_run_id
    service = api.client._recurring_run_api
    for one in old:
        # Without ORPHAN, Kubernetes deletes the workflows that it started, a running one too.
        api.ask(
            f"delete the recurring run {one}; the new one, {new}, is still off",
            service.recurring_run_service_delete_recurring_run,
            recurring_run_id=one,
            propagation_policy="ORPHAN",
        )
    api.ask(f"enable the recurring run {new}", api.client.enable_recurring_run, new)
    show(f"Recurring run {name}: {'in place of ' + ', '.join(old) if old else 'made'}")
    show(f"  {api.connection.page(f'/recurringrun/details/{new}')}")
    return SUCCEEDED


def _follow(
    api: client.Api, run_id: str, steps: list[str], timeout_seconds: float, show: Show
) -> int:
    """Shows a line for each step as it begins and ends, until the run has ended.

    kfp.Client's own wait never ends for a run that was cancelled.
    """
    page = api.connection.page(f"/runs/details/{run_id}")
    goes_on = (
        f"The run goes on. Follow it at {page}; terminate it there, or with POST "
        f"{api.connection.host}/apis/v2beta1/runs/{run_id}:terminate"
    )
    deadline, wait, told = time.monotonic() + timeout_seconds, _FIRST_WAIT, dict[str, str]()
    try:
        while True:
            left = max(0.0, deadline - time.monotonic())
            run = client.patiently(
                left, lambda: api.ask("follow the run", api.client.get_run, run_id)
            )
            news = _tell(run, steps, told, show)
            if run.state in _ENDED:
                break
            wait = _FIRST_WAIT if news else min(wait * 1.5, _LONGEST_WAIT)
            if time.monotonic() + wait > deadline:
                show(f"After {timeout_seconds:g} s the run is still {run.state or 'pending'}.")
                show(goes_on)
                return LOST
            time.sleep(wait)
    except PipelineStop as stop:
        show(str(stop))
        show(goes_on)
        return LOST
    except KeyboardInterrupt:
        show(f"No longer following. {goes_on}")
        return INTERRUPTED
    if run.state == "FAILED":
        for line in _reasons(api, run):
            show(line)
    took = ""
    if run.finished_at and run.created_at:
        took = f" after {(run.finished_at - run.created_at).total_seconds():.0f} s"
    show(f"{run.state}{took} ({len(told)} of {len(steps)} steps)")
    return SUCCEEDED if run.state == "SUCCEEDED" else FAILED


def _rows(run: Any) -> list[Any]:
    return (run.run_details and run.run_details.task_details) or []


def _tell(run: Any, steps: list[str], told: dict[str, str], show: Show) -> bool:
    """Says what is new since the last time; whether anything is.

    The rows are Argo's nodes: a step `trainer` has `trainer-driver`, then `trainer`, and in that
    `executor`. Those of a run that SUCCEEDED may lag behind it.
    """
    rows = {row.display_name: row for row in _rows(run) if row.display_name in steps and row.state}
    idle = [row for row in _rows(run) if row.display_name == "executor" and row.state == "SKIPPED"]
    news = False
    for name, row in sorted(rows.items(), key=lambda one: str(one[1].start_time)):
        state = row.state.lower()
        if run.state == "SUCCEEDED" and state in ("running", "pending"):
            state = "succeeded"
        if state == "succeeded" and _was_cached(row, idle):
            state = "cached"
        if told.get(name) != state:
            news, told[name] = True, state
            seconds = _seconds(row) if state in ("succeeded", "failed") else None
            took = "" if seconds is None else f"{seconds:9.0f} s"
            show(f"  {name:<24} {state:<10}{took}".rstrip())
    return news


def _was_cached(row: Any, idle: list[Any]) -> bool:
    """No row says to which it belongs: one that was skipped at the same moment is the step's."""
    return bool(
        row.start_time
        and row.end_time
        and row.end_time - row.start_time <= _AT_ONCE
        and any(one.start_time and abs(one.start_time - row.start_time) <= _AT_ONCE for one in idle)
    )


def _seconds(row: Any) -> float | None:
    if not row.start_time or not row.end_time or row.end_time < row.start_time:
        return None
    return float((row.end_time - row.start_time).total_seconds())


def _reasons(api: client.Api, run: Any) -> Iterator[str]:
    """Why steps failed, from their logs, and how to read those.

    The failed row `executor` names a node; its pod is called otherwise.
    """
    failed = [row for row in _rows(run) if (row.display_name or "").startswith("executor")]
    nodes = [
        child.pod_name
        for row in failed
        if row.state == "FAILED"
        for child in row.child_tasks or []
        if child.pod_name
    ]
    nodes = list(dict.fromkeys(nodes))
    namespace = api.connection.namespace or "kubeflow"
    for node in nodes:
        yield _reason(_log(api, run.run_id, node))
        workflow, _, number = node.rpartition("-")
        pod = f"{workflow}-retry-system-container-impl-{number}"
        yield f"  Its log: kubectl logs -n {namespace} {pod} -c main"
    if not nodes:
        yield (
            "No step's own process failed, so there is no reason in a log: a driver, a deadline or "
            f"the cluster did. See {api.connection.page(f'/runs/details/{run.run_id}')}, or: "
            f"kubectl describe workflow -n {namespace} -l pipeline/runid={run.run_id}"
        )


def _reason(log: str | None) -> str:
    if log is None:
        return "A step failed; its log can't be read from here."
    if found := _REASON.findall(log):
        return str(found[-1]).strip()
    return "A step failed, and its log has no reason: its process was killed (no memory left?)."


def _log(api: client.Api, run_id: str, node: str) -> str | None:
    """A node's log, its last 16 MB; None if the server doesn't have it."""
    rest = api.client._run_api.api_client

    def get() -> Any:
        return rest.call_api(
            "/apis/v1alpha1/runs/{run}/nodes/{node}/log",
            "GET",
            {"run": run_id, "node": node},
            response_type="str",
            auth_settings=["Bearer"],
            _return_http_data_only=True,
            _preload_content=False,
        )

    try:
        answer = api.ask("read a step's log", get)
    except PipelineStop:
        return None
    return bytes(answer.data)[-_LONGEST_LOG:].decode(errors="replace")


def write_manifests(folder: Path, config: Config, target: Target) -> Path | None:
    """Writes what the cluster needs for training on several machines; None if it needs nothing."""
    if config.training.strategy != "multi_worker":
        return None
    from pipeline.kubeflow.train_job import job

    path = folder / job.manifests_file(config.name)
    compiling.write(path, job.manifests(config, target).encode())
    return path
