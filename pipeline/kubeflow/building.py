"""From a graph of TFX components to a pipeline of KFP's own SDK.

Each TFX component becomes a container component with the same inputs and outputs. Its container
gets the configuration, and makes the same component from the same graph again (`step`); KFP's cache
key gets a hash of the component's properties. The configuration itself is in an environment
variable, which is not in that key: a changed learning rate runs the Trainer anew, not Transform.
"""

import hashlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from kfp import dsl, kubernetes
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.utils import name_utils, proto_utils

from components.errors import PipelineStop
from pipeline.config import Config
from pipeline.kubeflow.parameters import FINGERPRINT, OF_A_TRAINING, PARAMETERS
from pipeline.kubeflow.settings import Platform, Step, Target, rewritten
from pipeline.loading import PROJECT

NEVER_CACHED = frozenset(
    {"BaselineLookup", "RegistryPush", "JudgedModels", "Decide", "LabelledLog", "ServedInputs"}
)
"""They look at the registry or the prediction log, which KFP's cache key does not know."""
BATCH = "BatchPredict"
_IN_WORKSPACE = {"Tuner", "Trainer", BATCH, *NEVER_CACHED}
"""Components that use the registry, checkpoints or prediction logs."""
_DECIDING = {"JudgedModels": "fresh"}
"""Components on whose output parameter it depends whether those behind them run: where it is 1."""
_NOT_IN_HASH = {"input_base", "git_commit", "run_id"}
"""Properties that a parameter stands for, or that change nothing that a component makes."""
_COMMAND = ["python", "-m", "pipeline.kubeflow.step"]
STEP = "PIPELINE_STEP"
"""The environment variable with what a step has to know, as JSON."""
_LARGEST = 100 * 1024
"""Bytes. The backend passes a container as one argument of a command; Linux takes 128 KiB."""
_DESCRIPTION = "Identifies the data, so that ExampleGen may be cached; make submit computes it."
_ONLY = inspect.Parameter.POSITIONAL_OR_KEYWORD


@dataclass(frozen=True)
class Plan:
    """What a package is made from.

    Attributes:
      name: the pipeline's.
      components: of the graph, in topological order.
      config: the pipeline's configuration.
      target: the cluster's settings.
      platform: where it is to run.
      told: what every step has to know; `component` is added.
      uncached: components that always run, beside `NEVER_CACHED`.
      offered: the parameters that a run may set.
      train_job: for the Trainer's step, if it makes a TrainJob; see `train_job.job.described`.
    """

    name: str
    components: list[BaseComponent]
    config: Config
    target: Target
    platform: Platform
    told: dict[str, Any]
    uncached: frozenset[str] = frozenset()
    offered: Collection[str] = OF_A_TRAINING
    train_job: dict[str, Any] = field(default_factory=dict)

    def parameters_of(self, component: str) -> list[str]:
        """The run's parameters that a component depends on."""
        return [name for name in self.offered if component in _users(name)]

    def parameters(self) -> list[str]:
        """The run's parameters."""
        there = {component.id for component in self.components}
        return [name for name in self.offered if there & set(_users(name))]


def _users(parameter: str) -> tuple[str, ...]:
    return ("ExampleGen",) if parameter == FINGERPRINT else PARAMETERS[parameter].steps


def build(plan: Plan) -> Any:
    """The kfp pipeline of a graph.

    Raises:
      PipelineStop: a text or the settings as a whole don't reach a step as they are.
    """
    left_out = _conditional(plan.components)

    def wired(**given: Any) -> None:
        tasks: dict[str, Any] = {}
        for component in plan.components:
            if component.id not in left_out:
                _add(component, plan, given, tasks)
        for producer, decision in left_out.values():
            with dsl.If(tasks[producer].outputs[decision] == 1):
                for component in plan.components:
                    if component.id in left_out:
                        _add(component, plan, given, tasks)
            break

    names = plan.parameters()
    defaults = {
        name: "" if name == FINGERPRINT else PARAMETERS[name].default(plan.config) for name in names
    }
    check_texts({f"{'.'.join(PARAMETERS[n].setting)}": v for n, v in defaults.items() if v})
    texts = {n: _DESCRIPTION if n == FINGERPRINT else PARAMETERS[n].description for n in names}
    return pipeline(plan.name, wired, defaults, texts, plan.target)


def pipeline(
    name: str,
    wired: Callable[..., None],
    defaults: dict[str, Any],
    descriptions: dict[str, str],
    target: Target,
) -> Any:
    """A kfp pipeline.

    Args:
      name: its name.
      wired: makes the tasks; is called with the parameters, by name.
      defaults: of the parameters, which give their types too.
      descriptions: of them.
      target: says how tasks are tried again.
    """
    parameters = [
        inspect.Parameter(name, _ONLY, annotation=type(value), default=value)
        for name, value in defaults.items()
    ]

    def function(*values: Any) -> None:
        wired(**dict(zip(defaults, values, strict=True)))

    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    lines = [f"    {name}: {text}" for name, text in descriptions.items()]
    function.__doc__ = "\n".join(["Made by make compile.", "", "Args:", *lines])
    made = dsl.pipeline(name=name)(function)
    _wait_as_long_as_asked(made.pipeline_spec, target)
    return made


def check_texts(texts: dict[str, Any]) -> None:
    """Checks texts that go into a package.

    Raises:
      PipelineStop: Kubernetes, Argo or KFP would put something else in place of a part of them.
    """
    if problems := [f"  {n}: {p}" for n, t in texts.items() if (p := rewritten(str(t)))]:
        raise PipelineStop("This would not reach a step as it is:\n" + "\n".join(problems))


def _conditional(components: list[BaseComponent]) -> dict[str, tuple[str, str]]:
    """What reads the deciding component's outputs and all behind it: that component, its output."""
    found: dict[str, tuple[str, str]] = {}
    for component in components:
        before = {channel.producer_component_id for channel in component.inputs.values()}
        before |= {node.id for node in component.upstream_nodes}
        for producer in sorted(before):
            if producer in _DECIDING:
                found[component.id] = producer, _DECIDING[producer]
            elif producer in found:
                found[component.id] = found[producer]
    return found


def _add(
    component: BaseComponent, plan: Plan, given: dict[str, Any], tasks: dict[str, Any]
) -> None:
    """Makes the task of a component, behind those that it depends on."""
    used = plan.parameters_of(component.id)
    constants = {"settings": settings_hash(component)}
    if "run_id" in component.exec_properties:
        constants["run_id"] = dsl.PIPELINE_JOB_ID_PLACEHOLDER
    inputs = {
        name: tasks[channel.producer_component_id].outputs[channel.output_key]
        for name, channel in component.inputs.items()
    }
    parameters = {name: given[name] for name in used}
    task = _container_component(component, plan, constants, used)(
        **inputs, **constants, **parameters
    )
    told = {**plan.told, "component": component.id}
    step = plan.target.step(component.id)
    if component.id == "Trainer" and plan.train_job:
        told["train_job"] = plan.train_job
        step = waiting_step(plan.target)
    task.set_env_variable(STEP, _encoded(told))
    place(task, component.id, step, plan.target, plan.platform)
    never = component.id in NEVER_CACHED | plan.uncached
    task.set_caching_options(not never and step.cache is not False)
    task.after(*(tasks[node.id] for node in component.upstream_nodes))
    tasks[component.id] = task


def _container_component(
    component: BaseComponent, plan: Plan, constants: dict[str, Any], used: list[str]
) -> Any:
    """A container component with the signature of a TFX component."""
    image = plan.target.step(component.id).image or plan.target.image

    def made(*_: Any) -> dsl.ContainerSpec:
        # The name makes each container another: the backend files components by their containers.
        return dsl.ContainerSpec(
            image=image,
            command=_COMMAND,
            args=[component.id, dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER],
        )

    kinds: dict[str, Any] = {n: dsl.Input[_kind(c.type)] for n, c in component.inputs.items()}
    kinds |= {name: type(value) for name, value in constants.items()}
    kinds |= {name: str if name == FINGERPRINT else PARAMETERS[name].kind for name in used}
    kinds |= {name: dsl.Output[_kind(c.type)] for name, c in component.outputs.items()}
    if component.id in _DECIDING:
        kinds[_DECIDING[component.id]] = dsl.OutputPath(int)
    return container_component(component.id, made, kinds)


def container_component(name: str, made: Callable[..., Any], kinds: dict[str, Any]) -> Any:
    """A container component. `ExampleGen` is named so that its task is `example-gen`."""
    made.__name__ = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    parameters = [inspect.Parameter(n, _ONLY, annotation=k) for n, k in kinds.items()]
    made.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return dsl.container_component(made)


def _kind(artifact: Any) -> type:
    """The class of an artifact for KFP, whose titles are `system.*` or `google.*`."""
    title = {"schema_title": f"system.{artifact.TYPE_NAME}", "schema_version": "0.0.1"}
    return type(artifact.TYPE_NAME, (dsl.Artifact,), title)


def settings_hash(component: BaseComponent) -> str:
    """Identifies what a component does: its executor, its properties, the code's fingerprint there.

    The same wherever the project and its packages lie.
    """
    given = {
        name: proto_utils.proto_to_json(value) if isinstance(value, Message) else value
        for name, value in component.exec_properties.items()
        if value is not None and name not in _NOT_IN_HASH
    }
    executor = name_utils.get_full_name(component.executor_spec.executor_class)
    text = json.dumps([executor, given], sort_keys=True)
    for place in (sys.prefix, str(PROJECT)):
        text = text.replace(place, "")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _encoded(told: dict[str, Any]) -> str:
    """JSON without the dollar signs and double braces that Kubernetes, Argo and KFP replace."""
    text = json.dumps(told, separators=(",", ":"))  # in the order of columns
    text = text.replace("$", "\\u0024").replace("{{", "\\u007b{")
    if len(text) > _LARGEST:
        config = told["config"]
        largest = max(config, key=lambda name: len(json.dumps(config[name])))
        raise PipelineStop(
            f"The settings take {len(text)} bytes in a step, of {_LARGEST} that the backend takes; "
            f"the largest are '{largest}', {len(json.dumps(config[largest]))} bytes. Leave out "
            "columns that the model does not need."
        )
    return text


def place(task: Any, component: str, step: Step, target: Target, platform: Platform) -> None:
    """Resources, volumes, secrets, retries: what the cluster's settings say of a step."""
    requests = (step.cpu, task.set_cpu_request), (step.memory, task.set_memory_request)
    limits = (step.cpu_limit, task.set_cpu_limit), (step.memory_limit, task.set_memory_limit)
    if platform == "vertex":  # it knows limits alone, and picks a machine by them
        limits = (
            (step.cpu_limit or step.cpu, task.set_cpu_limit),
            (step.memory_limit or step.memory, task.set_memory_limit),
        )
    for value, put in limits if platform == "vertex" else (*requests, *limits):
        if value:
            put(value)
    if step.accelerator:
        task.set_accelerator_type(step.accelerator.type)
        task.set_accelerator_limit(step.accelerator.count)
    if (retry := step.retry) and retry.count:
        task.set_retry(retry.count, f"{retry.seconds}s", retry.factor, f"{retry.max_seconds}s")
    for name, value in sorted(step.env.items()):
        task.set_env_variable(name, value)
    if platform == "kubeflow":
        _place_on_kubernetes(task, component, step, target)


def _place_on_kubernetes(task: Any, component: str, step: Step, target: Target) -> None:
    for secret in step.secrets:
        kubernetes.use_secret_as_env(task, secret.name, secret.keys)
    for volume in step.volumes:
        kubernetes.mount_pvc(task, volume.claim, volume.path)
    if component in _IN_WORKSPACE and target.workspace.claim:
        kubernetes.mount_pvc(task, target.workspace.claim, target.workspace.path)
    for label, value in step.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for each in step.tolerations:
        kubernetes.add_toleration(task, each.key, each.operator, each.value, each.effect)
    for label, value in step.labels.items():
        kubernetes.add_pod_label(task, label, value)
    for name, value in step.annotations.items():
        kubernetes.add_pod_annotation(task, name, value)
    if step.timeout_seconds:
        kubernetes.set_timeout(task, step.timeout_seconds)
    if step.shared_memory:  # KFP accepts `enabledSharedMemory`, and ignores it
        kubernetes.empty_dir_mount(task, "dshm", "/dev/shm", "Memory", step.shared_memory)
    if target.image_pull_policy:
        kubernetes.set_image_pull_policy(task, target.image_pull_policy)
    if target.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, target.image_pull_secrets)
    if step.run_as_user is not None:
        kubernetes.set_security_context(
            task, step.run_as_user, step.run_as_group, run_as_non_root=step.run_as_user != 0
        )


def waiting_step(target: Target) -> Step:
    """The settings for the pod that waits for a TrainJob: the defaults; workers have Trainer's."""
    own = target.steps.get("Trainer", Step())
    kept: dict[str, Any] = {
        name: getattr(own, name)
        for name in ("cache", "retry", "timeout_seconds")
        if name in own.model_fields_set
    }
    return target.defaults.model_copy(update=kept)


def _wait_as_long_as_asked(spec: Any, target: Target) -> None:
    """Sets how long a task is tried again, which `set_retry` cuts at an hour."""
    longest = {name.lower(): target.step(name).retry for name in target.steps}
    for dag in _dags(spec):
        for name, task in dag.tasks.items():
            retry = longest.get(name.replace("-", ""), target.defaults.retry)
            if task.HasField("retry_policy") and retry:
                task.retry_policy.backoff_max_duration.seconds = retry.max_seconds


def _dags(spec: Any) -> Iterator[Any]:
    yield spec.root.dag
    yield from (each.dag for each in spec.components.values() if each.HasField("dag"))


def tasks(made: Any) -> list[str]:
    """The names of all tasks that run a container, those behind conditions too."""
    spec = made.pipeline_spec
    return [
        name
        for dag in _dags(spec)
        for name, task in dag.tasks.items()
        if not spec.components[task.component_ref.name].HasField("dag")
    ]
