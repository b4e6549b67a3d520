"""Runs the graph on this machine: TFX's launcher, node by node, told to a console."""

import gc
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.dsl.compiler import compiler, constants
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.pipeline import Pipeline
from tfx.orchestration.portable import launcher, runtime_parameter_utils
from tfx.proto.orchestration import pipeline_pb2
from tfx.proto.orchestration.executable_spec_pb2 import BeamExecutableSpec

from components.errors import NothingToDo
from components.ingest import batches
from pipeline.loading import PROJECT
from pipeline.telling import Outcome


class Listener(Protocol):
    """Hears what happens to each component."""

    def started(self, name: str) -> None:
        """The component begins."""

    def ended(self, name: str, outcome: Outcome, seconds: float) -> None:
        """The component is through."""


@dataclass
class Run:
    """What a run has done so far."""

    run_id: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    """Folders by component and output."""


class ComponentFailed(Exception):
    """A component raised; `__cause__` is what it raised."""

    def __init__(self, component: str, run: Run):
        """Takes the component's name and the run up to it."""
        super().__init__(component)
        self.component, self.run = component, run


def run_pipeline(pipeline: Pipeline, uncached: frozenset[str], listener: Listener) -> Run:
    """Runs every node in order.

    Args:
      pipeline: the graph.
      uncached: nodes that always run.
      listener: is told of each node.

    Raises:
      ComponentFailed: a component raised; those behind it were not started.
    """
    # Beam's worker processes start elsewhere, and import the components from the project.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")])
    )
    batches.install()
    ir = compiler.Compiler().compile(pipeline)
    run = Run(datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f"))
    runtime_parameter_utils.substitute_runtime_parameter(
        ir, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run.run_id}
    )
    connection = pipeline.metadata_connection_config
    store = MetadataStore(connection)
    _forget_lost_outputs(store)
    root = Path(ir.runtime_spec.pipeline_root.field_value.string_value)
    _sweep_after_killed(store, root.parent)
    nodes = [node.pipeline_node for node in ir.nodes]
    with _remembered_interrupts() as interrupts:
        for node in nodes:
            _run_node(ir, node, connection, store, run, listener, uncached)
            if interrupts:
                raise KeyboardInterrupt
    return run


@contextmanager
def _remembered_interrupts() -> Iterator[list[int]]:
    """Notes SIGINT and SIGTERM beside raising: in a destructor Python drops what is raised."""
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    handled = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is signal.default_int_handler
    ]
    for number in handled:
        signal.signal(number, note)
    try:
        yield came
    finally:
        for number in handled:
            signal.signal(number, signal.default_int_handler)


def _run_node(
    ir: pipeline_pb2.Pipeline,
    node: pipeline_pb2.PipelineNode,
    connection: mlmd.ConnectionConfig,
    store: MetadataStore,
    run: Run,
    listener: Listener,
    uncached: frozenset[str],
) -> None:
    name = node.node_info.id
    node.execution_options.caching_options.enable_cache = name not in uncached
    listener.started(name)
    started = time.monotonic()
    outcome: Outcome = "failed"
    try:
        info = _launcher(ir, node, connection).launch()
        if info is None or info.execution_id is None:
            outcome = "skipped"
            return
        outcome = _outcome(store, info.execution_id)
        run.outputs[name] = _output_folders(store, info.execution_id)
        for folder in run.outputs[name].values():
            for left in [*Path(folder).rglob("beam-temp-*")]:  # by workers that were lost
                shutil.rmtree(left)
    except Exception as error:
        if isinstance(error, NothingToDo):
            outcome = "skipped"
        raise ComponentFailed(name, run) from error
    finally:
        run.outcomes[name] = outcome
        run.seconds[name] = time.monotonic() - started
        gc.collect()
        gc.freeze()  # What stays need not be looked through again; see `pipeline.run`.
        listener.ended(name, outcome, run.seconds[name])


def _launcher(
    ir: pipeline_pb2.Pipeline, node: pipeline_pb2.PipelineNode, connection: mlmd.ConnectionConfig
) -> launcher.Launcher:
    deployment = runner_utils.extract_local_deployment_config(ir)
    name = node.node_info.id
    made = launcher.Launcher(
        pipeline_node=node,
        mlmd_connection=metadata.Metadata(connection),
        pipeline_info=ir.pipeline_info,
        pipeline_runtime_spec=ir.runtime_spec,
        executor_spec=runner_utils.extract_executor_spec(deployment, name),
        custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, name),
    )
    if isinstance(made._executor_spec, BeamExecutableSpec):
        # The operator has it. What is left goes into the cache's key: where it runs does not.
        made._executor_spec = BeamExecutableSpec(
            python_executor_spec=made._executor_spec.python_executor_spec
        )
    return made


def _outcome(store: MetadataStore, execution_id: int) -> Outcome:
    (execution,) = store.get_executions_by_id([execution_id])
    cached = execution.last_known_state == mlmd.Execution.CACHED
    return "cached" if cached else "done"


def _output_folders(store: MetadataStore, execution_id: int) -> dict[str, str]:
    events = [
        event
        for event in store.get_events_by_execution_ids([execution_id])
        if event.type == mlmd.Event.OUTPUT
    ]
    artifacts = {a.id: a.uri for a in store.get_artifacts_by_id([e.artifact_id for e in events])}
    return {event.path.steps[0].key: artifacts[event.artifact_id] for event in events}


def _forget_lost_outputs(store: MetadataStore) -> None:
    """Marks artifacts whose folders are gone, so that the cache makes them again."""
    lost = [
        artifact
        for artifact in store.get_artifacts()
        if artifact.state == mlmd.Artifact.LIVE and not os.path.exists(artifact.uri)
    ]
    for artifact in lost:
        artifact.state = mlmd.Artifact.DELETED
    if lost:
        store.put_artifacts(lost)


def _sweep_after_killed(store: MetadataStore, roots: Path) -> None:
    """Removes what killed components left, of any pipeline of the workspace.

    This run has the workspace's lock, so they are dead.
    """
    killed = [
        execution
        for execution in store.get_executions()
        if execution.last_known_state in (mlmd.Execution.NEW, mlmd.Execution.RUNNING)
    ]
    for execution in killed:
        for folder in roots.glob(f"*/*/*/{execution.id}"):
            shutil.rmtree(folder)
        for folder in roots.glob(f"*/*/.system/*/{execution.id}"):
            shutil.rmtree(folder)
        execution.last_known_state = mlmd.Execution.CANCELED
    if killed:
        store.put_executions(killed)
