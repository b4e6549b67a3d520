"""The documents against KFP's messages, strictly: part by part, so that each mistake is named."""

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes
from kfp.pipeline_spec import pipeline_spec_pb2 as pipelines

from pipeline.kubeflow.lint.reading import Message, Package
from pipeline.kubeflow.lint.rules import Violation

Part = tuple[str, str, Any, Message]
"""Where it stands, the task or the executor's label, what stands there, and its message."""


def check(
    spec: Mapping[str, Any], platform: Mapping[str, Any] | None, package: Package | None
) -> Iterator[Violation]:
    """The parts that their message doesn't take: unknown fields, wrong types, no such value."""
    rules = {
        "spec-format": _specification(spec),
        "executor-format": _executors(spec),
        "platform-format": _platform(platform or {}),
    }
    for rule, parts in rules.items():
        for where, name, document, message in parts:
            if problem := _problem(document, message):
                yield Violation(
                    _step(rule, name, package),
                    rule,
                    f"{where} is no {message.DESCRIPTOR.name}: {problem}; "
                    "correct or delete what it names.",
                )


def _step(rule: str, name: str, package: Package | None) -> str:
    if rule == "spec-format" or package is None:
        return name
    return package.step_of_executor(name)


def _problem(document: Any, message: Message) -> str | None:
    try:
        ParseDict(document, message)
    except (ParseError, TypeError) as error:
        return str(error).splitlines()[0].rstrip(".")
    return None


def _specification(spec: Mapping[str, Any]) -> Iterator[Part]:
    components = {"root": spec.get("root", {}), **_mapping(spec.get("components"))}
    rest = {k: v for k, v in spec.items() if k not in ("root", "components", "deploymentSpec")}
    yield "The package", "", rest, pipelines.PipelineSpec()
    for name, component in components.items():
        tasks = _mapping(_mapping(_mapping(component).get("dag")).get("tasks"))
        for task, document in tasks.items():
            yield f"Task {task}", str(task), document, pipelines.PipelineTaskSpec()
        alone = _without_tasks(component) if tasks else component
        yield f"Component {name}", "", alone, pipelines.ComponentSpec()


def _executors(spec: Mapping[str, Any]) -> Iterator[Part]:
    deployment = _mapping(spec.get("deploymentSpec"))
    rest = {k: v for k, v in deployment.items() if k != "executors"}
    yield "deploymentSpec", "", rest, pipelines.PipelineDeploymentConfig()
    for label, document in _mapping(deployment.get("executors")).items():
        message = pipelines.PipelineDeploymentConfig.ExecutorSpec()
        yield f"Executor {label}", str(label), document, message


def _platform(platform: Mapping[str, Any]) -> Iterator[Part]:
    yield "The platform document", "", platform, pipelines.PlatformSpec()
    found = _mapping(_mapping(platform.get("platforms")).get("kubernetes"))
    executors = _mapping(_mapping(found.get("deploymentSpec")).get("executors"))
    for label, document in executors.items():
        message = kubernetes.KubernetesExecutorConfig()
        yield f"The platform document's {label}", str(label), document, message


def _without_tasks(component: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**component, "dag": {k: v for k, v in component["dag"].items() if k != "tasks"}}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
