"""The package as KFP's own messages, with what the rules look up in it.

https://github.com/kubeflow/pipelines/blob/2.17.0/api/v2alpha1/pipeline_spec.proto and
https://github.com/kubeflow/pipelines/blob/2.17.0/kubernetes_platform/proto/
kubernetes_executor_config.proto.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes
from kfp.pipeline_spec import pipeline_spec_pb2 as pipelines

Message = Any
"""A protobuf message."""


@dataclass(frozen=True)
class Dag:
    """The tasks of the root, or of a component that is made of tasks."""

    owner: Message
    is_root: bool

    @property
    def tasks(self) -> Mapping[str, Message]:
        """The PipelineTaskSpecs by id."""
        found: Mapping[str, Message] = self.owner.dag.tasks
        return found


@dataclass(frozen=True)
class Task:
    """A task, its component if that is there, and the DAG it belongs to."""

    id: str
    spec: Message
    component: Message | None
    dag: Dag


@dataclass(frozen=True)
class Package:
    """A package that has the shape of its messages.

    Attributes:
      spec: the PipelineSpec.
      executors: the ExecutorSpecs by label.
      platform: the PlatformSpec; None without a platform document.
      configs: the KubernetesExecutorConfigs by label.
    """

    spec: Message
    executors: Mapping[str, Message]
    platform: Message | None
    configs: Mapping[str, Message]

    @cached_property
    def dags(self) -> list[Dag]:
        """The root, then the components that are made of tasks."""
        nested = [c for c in self.spec.components.values() if c.HasField("dag")]
        return [Dag(self.spec.root, True), *(Dag(component, False) for component in nested)]

    @cached_property
    def tasks(self) -> list[Task]:
        """All tasks, in all DAGs."""
        return [
            Task(name, task, self.spec.components.get(task.component_ref.name), dag)
            for dag in self.dags
            for name, task in sorted(dag.tasks.items())
        ]

    def executor(self, task: Task) -> Message | None:
        """The ExecutorSpec of a task, if it has one."""
        return self.executors.get(task.component.executor_label) if task.component else None

    def component_tasks(self) -> Iterator[tuple[Task, Message]]:
        """The tasks whose component is there, with its ComponentSpec."""
        for task in self.tasks:
            if task.component is not None:
                yield task, task.component

    def container_tasks(self) -> Iterator[tuple[Task, Message]]:
        """The tasks that run a container, with its PipelineContainerSpec."""
        for task in self.tasks:
            executor = self.executor(task)
            if executor is not None and executor.WhichOneof("spec") == "container":
                yield task, executor.container

    def config(self, task: Task) -> Message:
        """What Kubernetes is told about a task; an empty message for nothing."""
        label = task.component.executor_label if task.component else ""
        return self.configs.get(label, kubernetes.KubernetesExecutorConfig())

    def step_of_component(self, name: str) -> str:
        """The first task that uses a component; empty for the root and for none."""
        return next((t.id for t in self.tasks if t.spec.component_ref.name == name), "")

    def step_of_executor(self, label: str) -> str:
        """The first task that uses an executor; empty for none."""
        used = (t.id for t in self.tasks if t.component and t.component.executor_label == label)
        return next(used, "")


def read(spec: Mapping[str, Any], platform: Mapping[str, Any] | None) -> Package | None:
    """The package; fields that the messages lack are left out.

    Returns:
      None if a document's shape is another.
    """
    try:
        parsed = _parse(spec, pipelines.PipelineSpec())
        deployment = _parse(spec.get("deploymentSpec") or {}, pipelines.PipelineDeploymentConfig())
        found = None if platform is None else _parse(platform, pipelines.PlatformSpec())
        return Package(parsed, dict(deployment.executors), found, _configs(found))
    except (ParseError, TypeError):
        return None


def _configs(platform: Message | None) -> dict[str, Message]:
    if platform is None or "kubernetes" not in platform.platforms:
        return {}
    executors = platform.platforms["kubernetes"].deployment_spec.executors
    return {
        label: _parse(MessageToDict(config), kubernetes.KubernetesExecutorConfig())
        for label, config in executors.items()
    }


def _parse(document: Any, message: Message) -> Message:
    return ParseDict(document, message, ignore_unknown_fields=True)
