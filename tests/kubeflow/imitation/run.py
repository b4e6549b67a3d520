"""Runs of packages: what a cluster with Kubeflow Pipelines would do with them."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from tests.kubeflow.imitation import api_server, importer, package, rewriting
from tests.kubeflow.imitation.cache import Cache, fingerprint
from tests.kubeflow.imitation.cluster import Cluster, RunningStep
from tests.kubeflow.imitation.condition import ConditionError
from tests.kubeflow.imitation.container import Image
from tests.kubeflow.imitation.driver import (
    DriverError,
    Outcome,
    PodPatch,
    RunContext,
    Scope,
    drive,
    resolve_inputs,
)
from tests.kubeflow.imitation.launcher import Launcher
from tests.kubeflow.imitation.metadata import Artifact, MetadataError, MetadataStore
from tests.kubeflow.imitation.package import Json
from tests.kubeflow.imitation.store import ObjectStore

PIPELINE_ROOT = "minio://mlpipeline/v2/artifacts"
"""Where runs go unless told otherwise; a package's own `defaultPipelineRoot` is ignored."""

PROJECT = Path(__file__).parents[3]

_GOOD = ("SUCCEEDED", "CACHED")


@dataclass
class Task:
    """A task of a run.

    Attributes:
        name: Its id in the package.
        state: SUCCEEDED, FAILED, CACHED, SKIPPED (its condition was false) or OMITTED (one before
            it did not succeed).
        patch: What the driver handed to its pod; None if it made none.
        command: The last attempt's, as started.
        log: What the step printed, over all attempts; lines of the driver and the launcher begin
            with `driver: ` and `launcher: `.
        exit_code: The last pod's. None if there was no process, or it was lost.
        attempts: Pods.
        outputs: Its artifacts, by output.
        parameters: Its output parameters.
    """

    name: str
    state: str = "OMITTED"
    patch: PodPatch | None = None
    command: list[str] = field(default_factory=list)
    log: str = ""
    exit_code: int | None = None
    attempts: int = 0
    outputs: dict[str, Artifact] = field(default_factory=dict)
    parameters: Json = field(default_factory=dict)

    @property
    def executor_input(self) -> Json:
        """The executor input that the driver made."""
        assert self.patch, f"{self.name} is {self.state}: {self.log}"
        return self.patch.executor_input

    def end(self, outcome: Outcome) -> None:
        """Ends well, with these outputs."""
        self.state = outcome.state
        self.outputs, self.parameters = outcome.artifacts, outcome.parameters


@dataclass
class Run:
    """A run that has ended.

    Attributes:
        id: Its UUID.
        root: What the URIs of all its artifacts begin with.
        state: SUCCEEDED or FAILED.
        tasks: By name, in the order in which they ended.
    """

    id: str
    root: str
    state: str = "SUCCEEDED"
    tasks: dict[str, Task] = field(default_factory=dict)

    def log(self) -> str:
        """All logs of what failed, for a test's message."""
        failed = [task for task in self.tasks.values() if task.state == "FAILED"]
        return "\n".join(f"--- {task.name}\n{task.log}" for task in failed)


class Backend:
    """A cluster with Kubeflow Pipelines.

    Attributes:
        cluster: Its object stores, ML Metadata and volume claims, which outlast the runs.
    """

    def __init__(
        self,
        root: Path,
        working_directory: Path = PROJECT,
        environment: Mapping[str, str] | None = None,
        uid: int | None = None,
        readonly: bool = False,
        stores: tuple[str, ...] = ("minio",),
        secrets: Mapping[str, Mapping[str, str]] | None = None,
        config_maps: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Makes one.

        Args:
            root: A folder for all that it keeps.
            working_directory: Where steps start; the project's folder.
            environment: The image's `ENV`.
            uid: The user of all steps, if the administrator set one.
            readonly: Whether steps can write to their volumes only.
            stores: The schemes that kfp-launcher has providers for.
            secrets: Values by key, by the secret's name.
            config_maps: Likewise.
        """
        self.cluster = Cluster(
            root=root,
            image=Image(working_directory, environment or {}, uid, readonly),
            store=ObjectStore(root / "objects", stores),
            metadata=MetadataStore(),
            secrets=secrets or {},
            config_maps=config_maps or {},
            on_start=lambda step: None,
        )
        self._cache = Cache()

    def make_claim(self, name: str) -> Path:
        """Makes a persistent volume claim, and returns its folder; a step can't use another."""
        folder = self.cluster.claim(name)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
        return folder

    def objects(self, uri: str) -> Path:
        """The file of an object, or the folder of those whose keys begin so."""
        return self.cluster.store.path(uri)

    def submit(
        self,
        path: Path,
        parameters: Mapping[str, Any] | None = None,
        pipeline_root: str = PIPELINE_ROOT,
        on_start: Callable[[RunningStep], None] = lambda step: None,
    ) -> Run:
        """Runs a package to its end.

        Args:
            path: The package.
            parameters: The run's arguments.
            pipeline_root: Where its artifacts go.
            on_start: Called when a step's process has started; it may kill it.

        Raises:
            Refused: If the API server creates no run.
        """
        compiled = package.read(path)
        api_server.check_graph(compiled)
        values = api_server.check_parameters(compiled, parameters or {})
        self.cluster.on_start = on_start
        run_id, name = str(uuid.uuid4()), f"{compiled.name}-{uuid.uuid4().hex[:5]}"
        workflow = {"name": name, "namespace": "kubeflow", "uid": run_id}
        root = f"{pipeline_root.rstrip('/')}/{compiled.name}/{run_id}"
        context = RunContext(
            rewriting.through_argo(compiled, workflow), run_id, name, f"{compiled.name} run", root
        )
        return _Walk(self.cluster, self._cache, context).walk(values)


class _Walk:
    """One run's way through its graph."""

    def __init__(self, cluster: Cluster, cache: Cache, context: RunContext) -> None:
        self._cluster, self._cache, self._context = cluster, cache, context
        self._run = Run(context.id, context.root)

    def walk(self, parameters: Json) -> Run:
        self._run.state = self._walk_dag(self._context.package.root, parameters)
        return self._run

    def _walk_dag(self, component: Json, parameters: Json) -> str:
        """Runs the tasks of a DAG, one after the other; returns the DAG's state."""
        specs: dict[str, Json] = component["dag"]["tasks"]
        before = api_server.dependencies(specs)
        outcomes: dict[str, Outcome] = {}
        sorter = TopologicalSorter({name: sorted(before[name]) for name in sorted(specs)})
        for name in sorter.static_order():
            task, spec = Task(name), specs[name]
            at_exit = spec.get("triggerPolicy", {}).get("strategy") == api_server.AFTER_ALL
            if at_exit or all(outcomes[one].state in _GOOD for one in before[name]):
                self._run_task(task, spec, Scope(parameters, outcomes))
            self._run.tasks[name] = task
            outcomes[name] = Outcome(task.state, task.outputs, task.parameters)
        failed = any(outcome.state == "FAILED" for outcome in outcomes.values())
        return "FAILED" if failed else "SUCCEEDED"

    def _run_task(self, task: Task, spec: Json, scope: Scope) -> None:
        component = self._context.package.components[spec["componentRef"]["name"]]
        try:
            if "dag" in component:
                inputs = resolve_inputs(self._context, task.name, spec, component, scope)
                task.state = self._walk_dag(component, inputs.get("parameterValues", {}))
            elif "importer" in self._context.package.executors[component["executorLabel"]]:
                imported = importer.imported(self._cluster, self._context, spec, scope)
                task.end(Outcome("SUCCEEDED", imported, {}))
            else:
                self._run_container(task, spec, scope)
        except (DriverError, ConditionError, MetadataError) as error:
            task.state = "FAILED"
            task.log += f"driver: {error}\n"

    def _run_container(self, task: Task, spec: Json, scope: Scope) -> None:
        task.patch = drive(self._context, task.name, spec, scope)
        if task.patch is None:
            task.state = "SKIPPED"
            return
        label = self._context.package.components[spec["componentRef"]["name"]]["executorLabel"]
        container = self._context.package.executors[label]["container"]
        key = fingerprint(self._context.package.name, container, task.patch)
        cached = bool(spec.get("cachingOptions", {}).get("enableCache"))
        if cached and (known := self._cache.find(key)):
            task.end(replace(known, state="CACHED"))
            return
        outcome = self._attempt(task, spec)
        if outcome is None:
            task.state = "FAILED"
            return
        task.end(outcome)
        if cached:
            self._cache.add(key, outcome)

    def _attempt(self, task: Task, spec: Json) -> Outcome | None:
        """Runs pods until one isn't lost, as often as a stock installation's Argo does."""
        policy = spec.get("retryPolicy", {})
        # Without a longest back-off Argo takes it for 0: "Max duration limit exceeded".
        retries = policy.get("maxRetryCount", 0) if "backoffMaxDuration" in policy else 0
        assert task.patch
        for number in range(retries + 1):
            attempt = Launcher(self._cluster, self._context, task.name, task.patch, number).launch()
            task.attempts += 1
            task.log += attempt.log
            task.command, task.exit_code = attempt.command, attempt.exit_code
            if not attempt.lost:
                return attempt.outcome
        return None
