"""Where the steps run: `configs/kubeflow.yaml` and `configs/vertex.yaml`, field by field.

They hold what differs between clusters, and nothing about the model: that is the pipeline's own
configuration, the same as on a laptop. What Kubernetes, Argo or Kubeflow Pipelines would refuse
late, lose or rewrite is refused here; docs/kubeflow.md says what is known of them.
"""

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from components.settings import Problem, Removable, Settings, Strict

Cpu = Annotated[str, Field(pattern=r"^\d+(\.\d+)?m?$")]
"""Processors: `500m`, `2`, `0.5`."""
Memory = Annotated[str, Field(pattern=r"^\d+([EPTGM]i?|Ki?)?$")]
"""Bytes: `8Gi`, `16G`."""
Path = Annotated[str, Field(pattern=r"^/[^\s]*[^/\s]$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
Platform = Literal["kubeflow", "vertex"]

_TPU_LABELS = {"cloud.google.com/gke-tpu-accelerator", "cloud.google.com/gke-tpu-topology"}
_RESERVED = re.compile(r"/(gcs|kfp-launcher|minio|s3|tmp/kfp|\.cache|\.config|\.local)(/|$)")
"""Kubeflow Pipelines mounts its own volumes there, and looks for outputs below /tmp/kfp."""
_VOLUME_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""Kubeflow Pipelines names a pod's volume after the claim in it."""
_SECRET = re.compile(r"(TOKEN|PASSWORD|PASSWD|SECRET|KEY)(_(?!(.*_)?(FILE|PATH|NAME)$)|$)", re.I)
_DOLLARS = re.compile(r"\$\$|\$\([-._a-zA-Z][-._a-zA-Z0-9]*\)")
"""Kubernetes makes one dollar sign of two, and a variable's value of `$(NAME)`."""
_ONLY_KUBERNETES = (
    *("node_selector", "tolerations", "volumes", "shared_memory", "secrets", "labels"),
    *("annotations", "timeout_seconds", "run_as_user", "run_as_group"),
)


class Volume(Strict):
    """A PersistentVolumeClaim, mounted."""

    claim: Name
    path: Path = Field(description="Where the step sees it.")


class Workspace(Strict):
    """The folder that outlives runs: the registry and checkpoints."""

    claim: Name | None = Field(
        description="A PersistentVolumeClaim; null where the path is there anyway (Vertex: /gcs/…)."
    )
    path: Path


class Accelerator(Strict):
    """GPUs or TPUs of a step."""

    type: str = Field(
        pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$",
        description="Kubernetes: nvidia.com/gpu, google.com/tpu. Vertex: NVIDIA_TESLA_T4, …",
    )
    count: PositiveInt


class Toleration(Strict):
    """Lets the step run on nodes with this taint."""

    key: str
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Secret(Strict):
    """Keys of a Secret as environment variables. The values stay in the cluster."""

    name: Name
    keys: dict[str, str] = Field(min_length=1, description="Key of the Secret: variable.")


class Retry(Strict):
    """How often a step whose pod was lost starts again (a stock KFP doesn't retry failures)."""

    count: NonNegativeInt
    seconds: PositiveInt = Field(10, description="Before the first retry.")
    factor: PositiveInt = Field(2, description="The wait grows by this.")
    max_seconds: PositiveInt = Field(
        86_400,
        description="No retry begins later than this after the first attempt did; without such a "
        "limit KFP never retries.",
    )


class Step(Strict):
    """What a step's pod needs. A step's own values replace those of `defaults`, field by field."""

    image: str | None = Field(None, description="Another image than all steps', e.g. with a GPU.")
    cpu: Cpu | None = Field(None, description="Request.")
    cpu_limit: Cpu | None = None
    memory: Memory | None = Field(None, description="Request.")
    memory_limit: Memory | None = None
    accelerator: Accelerator | None = None
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[Toleration] = Field(default_factory=list)
    volumes: list[Volume] = Field(default_factory=list, description="Beside the workspace.")
    shared_memory: Memory | None = Field(None, description="Size of /dev/shm, in memory.")
    env: dict[str, str] = Field(default_factory=dict)
    secrets: list[Secret] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    run_as_user: NonNegativeInt | None = Field(
        None, description="The process's user id, over the image's; null: as image or cluster say."
    )
    run_as_group: NonNegativeInt | None = None
    timeout_seconds: PositiveInt | None = None
    retry: Retry | None = None
    cache: bool | None = Field(None, description="false: always run. Default: as the step allows.")


class TrainJob(Strict):
    """How a Trainer step with several workers runs them: a TrainJob of Kubeflow Trainer v2.

    The workers' pods have what `steps.Trainer` says; the step that waits for them has `defaults`.
    """

    nodes: Annotated[int, Field(ge=2)] = Field(2, description="Workers, one pod each.")
    runtime: Name = Field("tensorflow", description="The name of our TrainingRuntime.")
    port: Annotated[int, Field(ge=1024, le=65535)] = Field(
        2222, description="Where the workers meet."
    )
    start_seconds: PositiveInt = Field(
        900, description="For all workers to start; then the step fails, with the reason."
    )
    silence_seconds: PositiveInt = Field(
        300, description="Workers end when the step that waits for them is gone for so long."
    )


class Target(Settings):
    """Everything that a cluster decides."""

    image: str = Field(min_length=1, description="The image of all steps (make image).")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: list[Name] = Field(default_factory=list)
    pipeline_root: str = Field(
        pattern=r"^(minio|s3|gs)://[^\s/]+(/[^\s]*)?$", description="Where artifacts go."
    )
    experiment: str = "Default"
    service_account: str | None = None
    workspace: Workspace
    defaults: Step = Step()
    steps: Annotated[dict[str, Step], Removable] = Field(
        default_factory=dict, description="By component: Trainer, ExampleGen, … and BatchPredict."
    )
    train_job: TrainJob = TrainJob()

    def step(self, component: str) -> Step:
        """The settings of a component's step, over the defaults."""
        own = self.steps.get(component, Step())
        changes = {name: getattr(own, name) for name in own.model_fields_set}
        changes["image"] = own.image or self.defaults.image or self.image
        return self.defaults.model_copy(update=changes)

    def problems(self) -> Iterator[Problem]:
        """Yields contradictions between the fields, and what a cluster would refuse or lose."""
        yield from _mount_problems(self.workspace, ("workspace",))
        of_all = list(self._step_problems(self.defaults))
        yield from ((("defaults", *path), text) for path, text in of_all)
        for name in self.steps:
            own = [one for one in self._step_problems(self.step(name)) if one not in of_all]
            yield from ((("steps", name, *path), text) for path, text in own)
        for path, value in _texts(self.model_dump(mode="json")):
            if mistake := rewritten(value):
                yield path, mistake

    def _step_problems(self, step: Step) -> Iterator[Problem]:
        from kubernetes.utils import parse_quantity

        paths = [volume.path for volume in step.volumes] + [self.workspace.path]
        for path in sorted({path for path in paths if paths.count(path) > 1}):
            yield ("volumes",), f"two volumes at {path}"
        for number, volume in enumerate(step.volumes):
            yield from _mount_problems(volume, ("volumes", str(number)))
        if step.retry and step.timeout_seconds and step.retry.max_seconds <= step.timeout_seconds:
            text = f"must be above timeout_seconds, {step.timeout_seconds}, which it includes"
            yield ("retry", "max_seconds"), text
        if step.accelerator and step.accelerator.type == "google.com/tpu":
            for label in sorted(_TPU_LABELS - step.node_selector.keys()):
                yield ("node_selector",), f"a TPU needs the label {label}"
        for what in ("cpu", "memory"):
            wanted, limit = getattr(step, what), getattr(step, f"{what}_limit")
            if wanted and limit and parse_quantity(wanted) > parse_quantity(limit):
                yield (what,), f"{wanted} is above {what}_limit, {limit}: Kubernetes refuses it"
        for name in filter(_SECRET.search, step.env):
            text = "looks like a secret, and would stand in the package: take it from `secrets`"
            yield ("env", name), text


class OnVertex(Target):
    """The settings for Vertex AI, which lacks much of what Kubernetes has."""

    def step(self, component: str) -> Step:
        """The settings of a step: Vertex knows limits alone, and picks a machine by them."""
        step = super().step(component)
        limits = {"cpu_limit": step.cpu_limit or step.cpu, "cpu": None, "memory": None}
        limits["memory_limit"] = step.memory_limit or step.memory
        return step.model_copy(update=limits)

    def problems(self) -> Iterator[Problem]:
        """Yields contradictions, and what Vertex AI does not know."""
        yield from super().problems()
        if not self.pipeline_root.startswith("gs://"):
            yield ("pipeline_root",), "Vertex AI keeps artifacts in Cloud Storage: gs://…"
        if self.workspace.claim:
            text = "Vertex AI has no PersistentVolumeClaims: null, and a path under /gcs"
            yield ("workspace", "claim"), text
        settings = [(("steps", name), step) for name, step in self.steps.items()]
        for path, step in [(("defaults",), self.defaults), *settings]:
            for name in _ONLY_KUBERNETES:
                if getattr(step, name) not in (None, {}, []):
                    yield (*path, name), "Vertex AI has no such thing: it would be lost"


def rewritten(text: str) -> str:
    """What is wrong with a text that goes into a package; "" if nothing is."""
    if match := _DOLLARS.search(text):
        return f"has {match[0]!r}, which Kubernetes rewrites on its way into the container"
    if "{{" in text:
        return "has '{{', which Argo or Kubeflow Pipelines take for a variable of theirs"
    return ""


def encoded(told: Any) -> str:
    """JSON without the dollar signs and double braces that Kubernetes, Argo and KFP replace."""
    text = json.dumps(told, separators=(",", ":"))  # in the order of columns
    return text.replace("$", "\\u0024").replace("{{", "\\u007b{")


def _mount_problems(volume: Volume | Workspace, at: tuple[str, ...]) -> Iterator[Problem]:
    if volume.claim and _RESERVED.match(volume.path):
        text = f"{volume.path} is inside a folder of Kubeflow Pipelines: choose another"
        yield (*at, "path"), text
    if volume.claim and not _VOLUME_NAME.fullmatch(volume.claim):
        limit = "at most 63 lower-case letters, digits and hyphens"
        yield (*at, "claim"), f"'{volume.claim}' becomes a volume's name: {limit}"


def _texts(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, found in inner:
            yield from _texts(found, (*at, str(key)))
