"""What Kubernetes is told about the executors."""

from collections.abc import Iterator

from kfp.pipeline_spec import pipeline_spec_pb2 as pipelines

from pipeline.kubeflow.lint.reading import Message, Package, Task
from pipeline.kubeflow.lint.references import Reference, output
from pipeline.kubeflow.lint.rules import Violation

_POLICIES = ("", "Always", "Never", "IfNotPresent")
_NEEDED = {
    "pvc_mount": ("mount_path",),
    "secret_as_volume": ("mount_path",),
    "config_map_as_volume": ("mount_path",),
    "secret_as_env": ("key_to_env.secret_key", "key_to_env.env_var"),
    "config_map_as_env": ("key_to_env.config_map_key", "key_to_env.env_var"),
    "image_pull_secret": (),
    "empty_dir_mounts": ("volume_name", "mount_path"),
    "generic_ephemeral_volume": ("volume_name", "mount_path", "size"),
    "field_path_as_env": ("name", "field_path"),
}
"""What an entry needs; those that refer to an object of Kubernetes need its name, too."""
_OWN_NAME = ("empty_dir_mounts", "generic_ephemeral_volume", "field_path_as_env")


def kubernetes(package: Package) -> Iterator[Violation]:
    """A platform document that is for no cluster."""
    if package.platform is not None and list(package.platform.platforms) != ["kubernetes"]:
        found = ", ".join(package.platform.platforms) or "none"
        text = f"Its platforms are: {found}; write platforms.kubernetes, alone, or no document."
        yield Violation("", "platform-kubernetes", text)


def executors(package: Package) -> Iterator[Violation]:
    """Labels that no executor has."""
    for label in package.configs:
        if label not in package.executors:
            text = (
                f"The platform document names executor {label!r}, which is not there; correct it."
            )
            yield Violation("", "platform-executor", text)


def ignored(package: Package) -> Iterator[Violation]:
    """Fields that are accepted, and do nothing."""
    for step, config in _configs(package):
        found = {
            "enabledSharedMemory; mount an emptyDir of medium Memory at /dev/shm": config.HasField(
                "enabled_shared_memory"
            ),
            "podAffinity; use nodeAffinity or a node selector": bool(config.pod_affinity),
            "a negative activeDeadlineSeconds; write a positive number": (
                config.active_deadline_seconds < 0
            ),
        }
        for what in (what for what, is_there in found.items() if is_there):
            yield Violation(step, "ignored-field", f"KFP does nothing with {what}.")


def incomplete(package: Package) -> Iterator[Violation]:
    """Volumes, secrets and variables that lack a part."""
    for step, config in _configs(package):
        for field, needed in _NEEDED.items():
            for entry in getattr(config, field):
                lacking = [path for path in needed if not _has(entry, path.split("."))]
                if field not in _OWN_NAME and not _is_named(entry):
                    lacking.append("name")
                if lacking:
                    text = f"An entry of {field} lacks {', '.join(lacking)}; complete it."
                    yield Violation(step, "platform-incomplete", text)


def pull_policy(package: Package) -> Iterator[Violation]:
    """Image pull policies that Kubernetes doesn't know."""
    for step, config in _configs(package):
        if (policy := config.image_pull_policy) not in _POLICIES:
            text = f"imagePullPolicy is {policy!r}; write one of: {', '.join(_POLICIES[1:])}."
            yield Violation(step, "pull-policy", text)


def references(package: Package) -> Iterator[Violation]:
    """Names that come from a parameter that is not there."""
    for task, _ in package.container_tasks():
        config = package.config(task)
        sources = [*_input_specs(config), *map(name_source, config.pvc_mount)]
        for source in sources:
            if problem := _unknown(package, task, source):
                text = f"The platform document refers to {problem}, which is not there; correct it."
                yield Violation(task.id, "platform-reference", text)


def name_source(entry: Message) -> Message:
    """Where a volume's, secret's or config map's name comes from, also in its deprecated form.

    Returns:
      An InputParameterSpec, empty if there is no name.
    """
    for field in ("pvc_name_parameter", "secret_name_parameter", "config_map_name_parameter"):
        if field in entry.DESCRIPTOR.fields_by_name and entry.HasField(field):
            return getattr(entry, field)
    source = pipelines.TaskInputsSpec.InputParameterSpec()
    for field in ("constant", "secret_name", "config_map_name"):
        if name := getattr(entry, field, ""):
            source.runtime_value.constant.string_value = name
    for field in ("component_input_parameter", "task_output_parameter"):
        if field in entry.DESCRIPTOR.fields_by_name and entry.HasField(field):
            source = pipelines.TaskInputsSpec.InputParameterSpec(**{field: getattr(entry, field)})
    return source


def _configs(package: Package) -> Iterator[tuple[str, Message]]:
    for label, config in package.configs.items():
        yield package.step_of_executor(label), config


def _has(entry: Message, path: list[str]) -> bool:
    """Whether a field has a value, in a list: whether each entry has it, and there is one."""
    value = getattr(entry, path[0])
    if len(path) == 1:
        return bool(value)
    return bool(value) and all(_has(inner, path[1:]) for inner in value)


def _is_named(entry: Message) -> bool:
    source = name_source(entry)
    if source.WhichOneof("kind") == "runtime_value":
        return bool(source.runtime_value.constant.string_value)
    return source.WhichOneof("kind") is not None


def _input_specs(message: Message) -> Iterator[Message]:
    """All InputParameterSpecs inside a message."""
    if message.DESCRIPTOR.name == "InputParameterSpec":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for inner in value if field.is_repeated else [value]:
            yield from _input_specs(inner)


def _unknown(package: Package, task: Task, source: Message) -> str | None:
    """What a name refers to, if that isn't there."""
    kind = source.WhichOneof("kind")
    if kind == "component_input_parameter":
        name = source.component_input_parameter
        return (
            None if name in task.dag.owner.input_definitions.parameters else f"parameter {name!r}"
        )
    if kind == "task_output_parameter":
        made = source.task_output_parameter
        reference = Reference("", "parameters", made.producer_task, made.output_parameter_key)
        found = output(package, task.dag, reference)
        return None if found else f"{made.output_parameter_key!r} of task {made.producer_task!r}"
    return None
