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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from kfp import dsl, kubernetes
from kfp.dsl import structures
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.utils import name_utils, proto_utils

from components.errors import PipelineStop
from pipeline.config import Config
from pipeline.kubeflow.parameters import Parameter, defaults
from pipeline.kubeflow.settings import Step, Target, rewritten
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
STEP = "PIPELINE_STEP"
"""The environment variable with what a step has to know, as JSON."""
_LARGEST = 100 * 1024
"""Bytes. The backend passes a container as one argument of a command; Linux takes 128 KiB."""


class _Retries(structures.RetryPolicy):
    """KFP's own, but for the time over which a task is tried again: the SDK cuts it at an hour."""

    def to_proto(self) -> Any:
        proto = super().to_proto()
        proto.backoff_max_duration.FromJsonString(self.backoff_max_duration)
        return proto


@dataclass(frozen=True)
class Plan:
    """What a package is made from."""

    name: str
    components: list[BaseComponent]
    """Of the graph, in topological order."""
    config: Config
    target: Target
    told: dict[str, Any]
    """What every step has to know; `component` is added."""
    uncached: set[str]
    """Components that always run, beside `NEVER_CACHED`."""
    parameters: dict[str, Parameter]
    """Those that a run may set."""
    train_job: dict[str, Any]
    """For the Trainer's step, if it makes a TrainJob; see `train_job.job.described`."""

    def build(self) -> Any:
        """The kfp pipeline of the graph.

        Raises:
          PipelineStop: a text or the settings as a whole don't reach a step as they are.
        """
        there = {component.id for component in self.components}
        used = {name: p for name, p in self.parameters.items() if there & {*p.steps}}
        values = defaults(self.config, used)
        check_texts({used[name].setting: value for name, value in values.items()})
        described = {name: parameter.description for name, parameter in used.items()}
        return pipeline(self.name, self._wire, values, described)

    def _wire(self, **values: Any) -> None:
        tasks: dict[str, Any] = {}
        behind = self._behind_a_decision()
        for component in self.components:
            if component.id not in behind:
                self._add(component, values, tasks)
        for producer in set(behind.values()):
            with dsl.If(tasks[producer].outputs[_DECIDING[producer]] == 1):
                for component in self.components:
                    if component.id in behind:
                        self._add(component, values, tasks)

    def _behind_a_decision(self) -> dict[str, str]:
        """What reads a deciding component's outputs, and all behind it: that component."""
        found: dict[str, str] = {}
        for component in self.components:
            before = {channel.producer_component_id for channel in component.inputs.values()}
            for producer in before | {node.id for node in component.upstream_nodes}:
                if producer in _DECIDING or producer in found:
                    found[component.id] = found.get(producer, producer)
        return found

    def _add(self, component: BaseComponent, values: dict[str, Any], tasks: dict[str, Any]) -> None:
        """Makes the task of a component, behind those that it depends on."""
        name, step = component.id, self.target.step(component.id)
        constants = {"settings": settings_hash(component)}
        if "run_id" in component.exec_properties:
            constants["run_id"] = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        used = {n: value for n, value in values.items() if name in self.parameters[n].steps}
        inputs = {
            key: tasks[channel.producer_component_id].outputs[channel.output_key]
            for key, channel in component.inputs.items()
        }
        image, told = step.image or self.target.image, {**self.told, "component": name}
        kinds = {key: type(value) for key, value in defaults(self.config, used).items()}
        made = _container(component, image, dict.fromkeys(constants, str) | kinds)
        task = made(**inputs, **constants, **used)
        if name == "Trainer" and self.train_job:
            told["train_job"], step = self.train_job, _waiting_step(self.target)
        task.set_env_variable(STEP, _encoded(told))
        place(task, name, step, self.target)
        is_cached = name not in NEVER_CACHED | self.uncached and step.cache is not False
        task.set_caching_options(is_cached)
        task.after(*(tasks[node.id] for node in component.upstream_nodes))
        tasks[name] = task


def pipeline(
    name: str, wire: Callable[..., None], values: dict[str, Any], texts: dict[str, str]
) -> Any:
    """A kfp pipeline, whose tasks `wire` makes from its parameters.

    These have the default `values`, whose types are theirs, and `texts` that describe them.
    """

    def function(*given: Any) -> None:
        wire(**dict(zip(values, given, strict=True)))

    _sign(function, {name: type(value) for name, value in values.items()}, values)
    lines = [f"    {name}: {text}" for name, text in texts.items()]
    function.__doc__ = "\n".join(["Made by make compile.", "", "Args:", *lines])
    return dsl.pipeline(name=name)(function)


def _sign(function: Any, kinds: dict[str, Any], values: dict[str, Any]) -> None:
    """Gives a function the parameters from which KFP reads a signature."""
    function.__signature__ = inspect.Signature(
        [
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                annotation=kind,
                default=values.get(name, inspect.Parameter.empty),
            )
            for name, kind in kinds.items()
        ]
    )


def check_texts(texts: dict[str, Any]) -> None:
    """Checks texts that go into a package.

    Raises:
      PipelineStop: Kubernetes, Argo or KFP would put something else in place of a part of them.
    """
    if problems := [f"  {n}: {p}" for n, t in texts.items() if (p := rewritten(str(t)))]:
        raise PipelineStop("This would not reach a step as it is:\n" + "\n".join(problems))


def _container(component: BaseComponent, image: str, parameters: dict[str, Any]) -> Any:
    """A container component with the signature of a TFX component."""

    def made(*_: Any) -> dsl.ContainerSpec:
        # The name makes each container another: the backend files components by their containers.
        arguments = [component.id, dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER]
        return dsl.ContainerSpec(image, ["python", "-m", "pipeline.kubeflow.step"], arguments)

    kinds: dict[str, Any] = {n: dsl.Input[_kind(c.type)] for n, c in component.inputs.items()}
    kinds |= parameters | {name: dsl.Output[_kind(c.type)] for name, c in component.outputs.items()}
    if component.id in _DECIDING:
        kinds[_DECIDING[component.id]] = dsl.OutputPath(int)
    return container_component(component.id, made, kinds)


def container_component(name: str, made: Callable[..., Any], kinds: dict[str, Any]) -> Any:
    """A container component. `ExampleGen` is named so that its task is `example-gen`."""
    made.__name__ = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    _sign(made, kinds, {})
    return dsl.container_component(made)


def _kind(artifact: Any) -> type:
    """The class of an artifact for KFP, whose titles are `system.*` or `google.*`."""
    title = {"schema_title": f"system.{artifact.TYPE_NAME}", "schema_version": "0.0.1"}
    return type(artifact.TYPE_NAME, (dsl.Artifact,), title)


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
    text = text.replace(sys.prefix, "").replace(str(PROJECT), "")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _encoded(told: dict[str, Any]) -> str:
    """JSON without the dollar signs and double braces that Kubernetes, Argo and KFP replace."""
    text = json.dumps(told, separators=(",", ":"))  # in the order of columns
    text = text.replace("$", "\\u0024").replace("{{", "\\u007b{")
    if len(text) > _LARGEST:
        sizes = {name: len(json.dumps(value)) for name, value in told["config"].items()}
        largest = max(sizes, key=sizes.__getitem__)
        raise PipelineStop(
            f"The settings take {len(text)} bytes in a step, of {_LARGEST} that the backend takes; "
            f"the largest are '{largest}', {sizes[largest]} bytes. Leave out columns that the "
            "model does not need."
        )
    return text


def place(task: Any, component: str, step: Step, target: Target) -> None:
    """Puts what the cluster's settings say of the step into its task."""
    for setting in ("cpu_request", "cpu_limit", "memory_request", "memory_limit"):
        if value := getattr(step, setting.removesuffix("_request")):
            getattr(task, f"set_{setting}")(value)
    if step.accelerator:
        task.set_accelerator_type(step.accelerator.type)
        task.set_accelerator_limit(step.accelerator.count)
    if (retry := step.retry) and retry.count:
        waits = f"{retry.seconds}s", float(retry.factor), f"{retry.max_seconds}s"
        task._task_spec.retry_policy = _Retries(retry.count, *waits)
    for name, value in sorted(step.env.items()):
        task.set_env_variable(name, value)
    _place_on_nodes(task, step, target)
    for secret in step.secrets:
        kubernetes.use_secret_as_env(task, secret.name, secret.keys)
    for volume in step.volumes:
        kubernetes.mount_pvc(task, volume.claim, volume.path)
    if component in _IN_WORKSPACE and target.workspace.claim:
        kubernetes.mount_pvc(task, target.workspace.claim, target.workspace.path)
    if step.shared_memory:  # KFP accepts `enabledSharedMemory`, and ignores it
        kubernetes.empty_dir_mount(task, "dshm", "/dev/shm", "Memory", step.shared_memory)


def _place_on_nodes(task: Any, step: Step, target: Target) -> None:
    for label, value in step.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for taint in step.tolerations:
        kubernetes.add_toleration(task, **dict(taint))
    for label, value in step.labels.items():
        kubernetes.add_pod_label(task, label, value)
    for name, value in step.annotations.items():
        kubernetes.add_pod_annotation(task, name, value)
    if step.timeout_seconds:
        kubernetes.set_timeout(task, step.timeout_seconds)
    if target.image_pull_policy:
        kubernetes.set_image_pull_policy(task, target.image_pull_policy)
    if target.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, target.image_pull_secrets)
    if (user := step.run_as_user) is not None:
        kubernetes.set_security_context(task, user, step.run_as_group, run_as_non_root=user != 0)


def _waiting_step(target: Target) -> Step:
    """The settings for the pod that waits for a TrainJob: the defaults; workers have Trainer's."""
    own = target.steps.get("Trainer", Step())
    kept = own.model_fields_set & {"cache", "retry", "timeout_seconds"}
    return target.defaults.model_copy(update={name: getattr(own, name) for name in kept})


def tasks_of(made: Any) -> list[str]:
    """The names of all tasks that run a container, those behind conditions too."""
    spec = made.pipeline_spec
    dags = [spec.root.dag, *(each.dag for each in spec.components.values())]
    tasks = [(name, task.component_ref.name) for dag in dags for name, task in dag.tasks.items()]
    return [name for name, used in tasks if not spec.components[used].HasField("dag")]
