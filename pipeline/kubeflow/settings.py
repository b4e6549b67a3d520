"""Where the steps run: `configs/kubeflow.yaml` and `configs/vertex.yaml`, field by field.

They hold what differs between clusters, and nothing about the model: that is the pipeline's own
configuration, the same as on a laptop.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from components.settings import Problem, Removable, Settings, Strict

Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
"""A Kubernetes quantity: `500m`, `2`, `8Gi`."""
Path = Annotated[str, Field(pattern=r"^/[^\s]*[^/\s]$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
_TPU_LABELS = ("cloud.google.com/gke-tpu-accelerator", "cloud.google.com/gke-tpu-topology")


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
    cpu: Quantity | None = Field(None, description="Request.")
    cpu_limit: Quantity | None = None
    memory: Quantity | None = Field(None, description="Request.")
    memory_limit: Quantity | None = None
    accelerator: Accelerator | None = None
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[Toleration] = Field(default_factory=list)
    volumes: list[Volume] = Field(default_factory=list, description="Beside the workspace.")
    shared_memory: Quantity | None = Field(None, description="Size of /dev/shm, in memory.")
    env: dict[str, str] = Field(default_factory=dict)
    secrets: list[Secret] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
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
        own = self.steps.get(component)
        if own is None:
            return self.defaults
        return self.defaults.model_copy(update={k: getattr(own, k) for k in own.model_fields_set})

    def problems(self) -> Iterator[Problem]:
        """Yields contradictions between the fields."""
        for path, text in self._step_problems(self.defaults):
            yield ("defaults", *path), text
        for name in self.steps:
            for path, text in self._step_problems(self.step(name)):
                yield ("steps", name, *path), text

    def _step_problems(self, step: Step) -> Iterator[Problem]:
        paths = [volume.path for volume in step.volumes] + [self.workspace.path]
        for path in sorted({path for path in paths if paths.count(path) > 1}):
            yield ("volumes",), f"two volumes at {path}"
        if step.retry and step.timeout_seconds and step.retry.max_seconds <= step.timeout_seconds:
            text = f"must be above timeout_seconds, {step.timeout_seconds}, which it includes"
            yield ("retry", "max_seconds"), text
        if step.accelerator and step.accelerator.type == "google.com/tpu":
            for label in _TPU_LABELS:
                if label not in step.node_selector:
                    yield ("node_selector",), f"a TPU needs the label {label}"
