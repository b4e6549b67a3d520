"""`python -m pipeline compile`: packages for a cluster, from the graph that also runs here.

Each TFX component becomes a container component of KFP's SDK with the same inputs and outputs. Its
container gets the configuration, and makes the same component from the same graph again (`step`);
KFP's cache key gets a hash of the component's properties. The configuration itself is in an
environment variable, which is not in that key: a changed learning rate runs the Trainer anew, not
Transform.
"""

import hashlib
import importlib
import inspect
import json
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from kfp import dsl, kubernetes
from kfp.compiler import Compiler
from kfp.dsl import structures
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.utils import name_utils, proto_utils

from components.errors import PipelineStop
from components.files import write_atomically
from pipeline import loading, parts
from pipeline.config import Config
from pipeline.kubeflow import parameters, retraining, step
from pipeline.kubeflow.settings import OnVertex, Platform, Step, Target, encoded, rewritten
from pipeline.workspace import Workspace

BUILD = loading.PROJECT / "build"
_TRAINING = "pipeline.graph"
_EVALUATION = "components.continued_evaluation.graph"
_NEVER_CACHED = frozenset(
    {"BaselineLookup", "RegistryPush", "JudgedModels", "Decide", "LabelledLog", "ServedInputs"}
)
"""They look at the registry or the prediction log, which KFP's cache key does not know."""
_BATCH = "BatchPredict"
_IN_WORKSPACE = {"Tuner", "Trainer", _BATCH, "RunPage", *_NEVER_CACHED}
"""Components that use the registry, checkpoints or prediction logs."""
_NOT_ALWAYS = (
    *("Tuner", "Decide", "JudgedModels", "LabelledLog", "ServedInputs", "ServedStatistics"),
    _BATCH,
)
"""Steps that the training pipeline may have, or other pipelines."""
_DECIDING = {"JudgedModels": "fresh"}
"""Components on whose output parameter it depends whether those behind them run: where it is 1."""
_OF_WAITING = ("image", "cache", "retry", "timeout_seconds")
"""What a step that waits for workers has of theirs."""
_NOT_IN_HASH = {"input_base", "git_commit", "run_id"}
"""Properties that a parameter stands for, or that change nothing that a component makes."""
_STEP = "PIPELINE_STEP"
"""The environment variable with what a step has to know, as JSON."""


class _Retries(structures.RetryPolicy):
    """KFP's own, but for the time over which a task is tried again: the SDK cuts it at an hour."""

    def to_proto(self) -> Any:
        proto = super().to_proto()
        proto.backoff_max_duration.FromJsonString(self.backoff_max_duration)
        return proto


@dataclass(frozen=True)
class Package:
    """A kfp pipeline that can be written.

    Attributes:
      made: what kfp.dsl made.
      target: where it is to run.
      tasks: the names of the tasks that run a container, those behind conditions too.
      steps: what each step is told, by component.
    """

    made: Any
    target: Target
    tasks: list[str]
    steps: dict[str, dict[str, Any]]

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return str(self.made.pipeline_spec.pipeline_info.name)

    @cached_property
    def content(self) -> str:
        """The file: the same text for the same settings and code."""
        if isinstance(self.target, OnVertex):
            job = {
                "displayName": self.name,
                "runtimeConfig": {"gcsOutputDirectory": self.target.pipeline_root},
                "pipelineSpec": json_format.MessageToDict(self.made.pipeline_spec),
            }
            return json.dumps(job, indent=1, sort_keys=True) + "\n"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "package.yaml")
            Compiler().compile(self.made, str(path))
            return path.read_text()

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that identify the content."""
        return hashlib.sha256(self.content.encode()).hexdigest()[:12]

    def write(self) -> Path:
        """Writes the file into `BUILD`, whole or not at all, and returns its path."""
        ending = "vertex.json" if isinstance(self.target, OnVertex) else "yaml"
        path = BUILD / f"{self.name}.{ending}"
        write_atomically(str(path), self.content)
        return path


def load_target(
    name: Platform, image: str | None = None, configs: Path = loading.CONFIGS
) -> Target:
    """Reads `configs/kubeflow.yaml` or `configs/vertex.yaml`, perhaps with another image."""
    kind = OnVertex if name == "vertex" else Target
    return loading.load_as(kind, name, [f"image={json.dumps(image)}"] if image else [], configs)


def packages(config_name: str, overrides: list[str], target: Target) -> list[Package]:
    """Compiles every pipeline there is; training is the first."""
    made = [training(parameters.load(config_name, overrides), target)]
    if "components.continued_evaluation" in parts.present():
        made.append(continued_evaluation(config_name, overrides, target, made[0]))
    if "components.batch_prediction" in parts.present():
        made.append(batch_prediction(config_name, overrides, target))
    return made


def training(
    config: Config, target: Target, ingest_cached: bool = False, trainer_cached: bool = True
) -> Package:
    """The package of the training pipeline.

    ExampleGen may be cached only if a fingerprint of the data comes with each run, and the Trainer
    not if a run's `warm_start` is a label.
    """
    uncached = set() if ingest_cached else {"ExampleGen"}
    if config.training.warm_start or not trainer_cached:
        uncached.add("Trainer")  # it looks at the registry, too
    return _package(_TRAINING, config, target, uncached, parameters.OF_A_TRAINING)


def continued_evaluation(
    config_name: str, overrides: list[str], target: Target, trained: Package
) -> Package:
    """The package `<pipeline>-continued-evaluation`.

    Its decision step starts a run of the training package, which `submit` uploads beside it; on
    Vertex AI it starts nothing.
    """
    config = parameters.load(config_name, [*overrides, "data.spans=newest"])
    starter = None
    if not isinstance(target, OnVertex):
        starter = retraining.described(trained.name, trained.digest, target)
    # ExampleGen looks which data is new, which KFP's cache key does not know.
    offered = parameters.OF_AN_EVALUATION
    return _package(_EVALUATION, config, target, {"ExampleGen"}, offered, starter=starter)


def batch_prediction(config_name: str, overrides: list[str], target: Target) -> Package:
    """The package `<pipeline>-batch-predict`, of one step: the command in a container.

    The command reads the configuration in the image, with the same overrides.
    """
    config, chosen = parameters.load(config_name, overrides), target.step(_BATCH)
    rows = re.sub(r"\{\w+\}", "*", f"{config.data.path}/{config.data.pattern}")
    output = f"{target.workspace.path}/predicted"
    values = {"input": rows, "output": output, "version": "champion"}
    texts = {
        "input": "Files to predict, CSV or Parquet, a pattern.",
        "output": "Gets a folder for each run.",
        "version": "A version's number or label.",
    }
    check_texts({f"--set {setting}": setting for setting in overrides})

    def made(input: str, output: str, version: str, run: str) -> dsl.ContainerSpec:
        arguments: list[Any] = ["batch-predict", "--config", config_name]
        for setting in [f"workspace={target.workspace.path}", *overrides]:
            arguments += ["--set", setting]
        # A folder for each run, in which a retried pod goes on.
        folder = "{{$.inputs.parameters['output']}}/{{$.inputs.parameters['run']}}"
        arguments += ["--input", input, "--output", folder, "--version", version]
        return dsl.ContainerSpec(chosen.image, ["python", "-m", "pipeline"], arguments)

    def wire(**given: Any) -> list[Any]:
        component = _container_component(_BATCH, made, dict.fromkeys([*given, "run"], str))
        task = component(**given, run=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
        _place(task, _BATCH, chosen, target)
        return [task.set_caching_options(False)]

    return _pipeline(f"{config.name}-batch-predict", wire, values, texts, target, {})


def _package(
    graph: str,
    config: Config,
    target: Target,
    uncached: set[str],
    offered: dict[str, parameters.Parameter],
    **more: Any,
) -> Package:
    """The package of a graph, a module; components `uncached` always run."""
    workspace = Workspace(Path(target.workspace.path), is_here=False)
    made = importlib.import_module(graph).create_pipeline(config, workspace, **more)
    components = {component.id: component for component in made.components}  # in their order
    commits = [each.exec_properties.get("git_commit") for each in components.values()]
    told = {
        "graph": graph,
        "config": config.model_dump(mode="json", exclude_unset=True),
        "workspace": target.workspace.path,
        "git_commit": next(filter(None, commits), ""),
        **step.image_of(graph, config),
        "more": more,
    }
    steps = {name: told | {"component": name} for name in components}
    places = {name: target.step(name) for name in components}
    if graph == _TRAINING:
        _check_steps(target, [*components, *_NOT_ALWAYS])
        if config.training.strategy == "multi_worker":
            from pipeline.kubeflow.train_job import job

            steps["Trainer"]["train_job"] = job.described(config, target)
            kept = {name: getattr(places["Trainer"], name) for name in _OF_WAITING}
            places["Trainer"] = target.defaults.model_copy(update=kept)
    used = {name: p for name, p in offered.items() if {*p.steps} & {*components}}
    defaults = parameters.defaults(config, used)
    behind = _behind_a_decision(list(components.values()))

    def wire(**values: Any) -> list[Any]:
        tasks: dict[str, Any] = {}

        def add(name: str) -> None:
            given = {n: (type(defaults[n]), v) for n, v in values.items() if name in used[n].steps}
            task = tasks[name] = _task(components[name], tasks, places[name], given)
            task.set_env_variable(_STEP, encoded(steps[name]))
            _place(task, name, places[name], target)
            is_cached = places[name].cache is not False and name not in _NEVER_CACHED | uncached
            task.set_caching_options(is_cached)

        for name in components:
            if name not in behind:
                add(name)
        for producer in set(behind.values()):
            with dsl.If(tasks[producer].outputs[_DECIDING[producer]] == 1):
                for name in behind:
                    add(name)
        return list(tasks.values())

    texts = {name: parameter.description for name, parameter in used.items()}
    return _pipeline(made.id, wire, defaults, texts, target, steps)


def _check_steps(target: Target, known: list[str]) -> None:
    if unknown := sorted(target.steps.keys() - {*known}):
        raise PipelineStop(
            f"The cluster's settings name steps that the pipeline lacks: {', '.join(unknown)}. It "
            f"has {', '.join(dict.fromkeys(known))}."
        )


def _behind_a_decision(components: list[BaseComponent]) -> dict[str, str]:
    """What reads a deciding component's outputs, and all behind it: that component."""
    found: dict[str, str] = {}
    for component in components:
        before = {channel.producer_component_id for channel in component.inputs.values()}
        for producer in before | {node.id for node in component.upstream_nodes}:
            if producer in _DECIDING or producer in found:
                found[component.id] = found.get(producer, producer)
    return found


def _task(
    component: BaseComponent,
    tasks: dict[str, Any],
    own: Step,
    given: dict[str, tuple[type, Any]],
) -> Any:
    """The task of a component, behind those that it depends on.

    It has the component's inputs and outputs, the run's parameters in `given` (types and values),
    and a hash of the component's properties for KFP's cache.
    """
    name, before = component.id, component.inputs.items()
    constants = {"settings": settings_hash(component)}
    if "run_id" in component.exec_properties:
        constants["run_id"] = dsl.PIPELINE_JOB_ID_PLACEHOLDER

    def made(*_: Any) -> dsl.ContainerSpec:
        # The name makes each container another: the backend files components by their containers.
        arguments = [name, dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER]
        return dsl.ContainerSpec(own.image, ["python", "-m", "pipeline.kubeflow.step"], arguments)

    kinds: dict[str, Any] = {n: dsl.Input[_kind(c.type)] for n, c in before}
    kinds |= dict.fromkeys(constants, str) | {n: kind for n, (kind, _) in given.items()}
    kinds |= {n: dsl.Output[_kind(c.type)] for n, c in component.outputs.items()}
    if name in _DECIDING:
        kinds[_DECIDING[name]] = dsl.OutputPath(int)
    inputs = {n: tasks[c.producer_component_id].outputs[c.output_key] for n, c in before}
    values = {n: value for n, (_, value) in given.items()}
    task = _container_component(name, made, kinds)(**inputs, **constants, **values)
    return task.after(*(tasks[node.id] for node in component.upstream_nodes))


def _kind(artifact: Any) -> type:
    """The class of an artifact for KFP, whose titles are `system.*` or `google.*`."""
    title = {"schema_title": f"system.{artifact.TYPE_NAME}", "schema_version": "0.0.1"}
    return type(artifact.TYPE_NAME, (dsl.Artifact,), title)


def _container_component(name: str, made: Callable[..., Any], kinds: dict[str, Any]) -> Any:
    """A container component. `ExampleGen` is named so that its task is `example-gen`."""
    made.__name__ = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    _sign(made, kinds, {})
    return dsl.container_component(made)


def _pipeline(
    name: str,
    wire: Callable[..., list[Any]],
    values: dict[str, Any],
    texts: dict[str, str],
    target: Target,
    steps: dict[str, Any],
) -> Package:
    """The package of a pipeline whose tasks `wire` makes from its parameters, and returns.

    These have the default `values`, whose types are theirs, and `texts` that describe them.
    """
    tasks: list[str] = []

    def function(*given: Any) -> None:
        tasks.extend(task.name for task in wire(**dict(zip(values, given, strict=True))))

    _sign(function, {name: type(value) for name, value in values.items()}, values)
    lines = [f"    {name}: {text}" for name, text in texts.items()]
    function.__doc__ = "\n".join(["Made by make compile.", "", "Args:", *lines])
    return Package(dsl.pipeline(name=name)(function), target, tasks, steps)


def _sign(function: Any, kinds: dict[str, Any], values: dict[str, Any]) -> None:
    """Gives a function the parameters from which KFP reads a signature."""
    form, none = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
    function.__signature__ = inspect.Signature(
        [
            inspect.Parameter(name, form, annotation=kind, default=values.get(name, none))
            for name, kind in kinds.items()
        ]
    )


def settings_hash(component: BaseComponent) -> str:
    """Identifies what a component does: its executor, its properties, the code's fingerprint there.

    The same wherever the project and its packages lie.
    """
    properties = {
        name: proto_utils.proto_to_json(value) if isinstance(value, Message) else value
        for name, value in component.exec_properties.items()
        if value is not None and name not in _NOT_IN_HASH
    }
    executor = name_utils.get_full_name(component.executor_spec.executor_class)
    text = json.dumps([executor, properties], sort_keys=True)
    text = text.replace(sys.prefix, "").replace(str(loading.PROJECT), "")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_texts(texts: dict[str, Any]) -> None:
    """Checks texts that go into a package.

    Raises:
      PipelineStop: Kubernetes, Argo or KFP would put something else in place of a part of them.
    """
    if problems := [f"  {n}: {p}" for n, t in texts.items() if (p := rewritten(str(t)))]:
        raise PipelineStop("This would not reach a step as it is:\n" + "\n".join(problems))


def _place(task: Any, component: str, own: Step, target: Target) -> None:
    """Puts what the cluster's settings say of the step into its task."""
    for put, value in (
        (dsl.PipelineTask.set_cpu_request, own.cpu),
        (dsl.PipelineTask.set_cpu_limit, own.cpu_limit),
        (dsl.PipelineTask.set_memory_request, own.memory),
        (dsl.PipelineTask.set_memory_limit, own.memory_limit),
        (kubernetes.set_timeout, own.timeout_seconds),
        (kubernetes.set_image_pull_policy, target.image_pull_policy),
        (kubernetes.set_image_pull_secrets, target.image_pull_secrets),
    ):
        if value:
            put(task, value)
    for put, values in (
        (dsl.PipelineTask.set_env_variable, own.env),
        (kubernetes.add_node_selector, own.node_selector),
        (kubernetes.add_pod_label, own.labels),
        (kubernetes.add_pod_annotation, own.annotations),
    ):
        for name in sorted(values):
            put(task, name, values[name])
    for taint in own.tolerations:
        kubernetes.add_toleration(task, **dict(taint))
    for secret in own.secrets:
        kubernetes.use_secret_as_env(task, secret.name, secret.keys)
    volumes = [(volume.claim, volume.path) for volume in own.volumes]
    if component in _IN_WORKSPACE and target.workspace.claim:
        volumes.append((target.workspace.claim, target.workspace.path))
    for claim, path in volumes:
        kubernetes.mount_pvc(task, claim, path)
    if own.accelerator:
        task.set_accelerator_type(own.accelerator.type)
        task.set_accelerator_limit(own.accelerator.count)
    if (retry := own.retry) and retry.count:
        waits = f"{retry.seconds}s", float(retry.factor), f"{retry.max_seconds}s"
        task._task_spec.retry_policy = _Retries(retry.count, *waits)
    if own.shared_memory:  # KFP accepts `enabledSharedMemory`, and ignores it
        kubernetes.empty_dir_mount(task, "dshm", "/dev/shm", "Memory", own.shared_memory)
    if (user := own.run_as_user) is not None:
        kubernetes.set_security_context(task, user, own.run_as_group, run_as_non_root=user != 0)
