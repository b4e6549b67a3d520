"""The settings of a pipeline: typed, documented field by field, checked when they are built.

`pipeline.loading` reads them from `configs/*.yaml`; nothing else in the project parses settings.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from components.continued_evaluation import settings as continued  # part: continued_evaluation
from components.evaluation.thresholds import Threshold, metric_problems
from components.features.table import FeatureTable
from components.inference.prediction_log import LogSettings  # part: prediction_log
from components.ingest.settings import BadRows, CsvFormat, Spans, Split
from components.serving.settings import Serving  # part: serving
from components.settings import Problem, Removable, Settings, Strict
from components.tuning.settings import Tuning  # part: tuning


class Data(Strict):
    """Where the rows come from and how they are divided."""

    path: str = Field(
        description="A folder, relative to the project; 'package:NAME/FOLDER' is one inside an "
        "installed Python package."
    )
    pattern: str = Field(
        description="Files within it, a glob; {SPAN}, {VERSION}, or {YYYY}, {MM} and {DD} select "
        "spans as in TFX. Names in .parquet are Parquet, all others CSV; .gz is decompressed."
    )
    spans: Spans = Field("newest", description="Which spans, if the pattern has any.")
    test_spans: Literal["all", "newest"] = Field(
        "all", description="Of which of these spans the test rows are used."
    )
    sample: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Use this fraction of the rows, always the same ones (by hash)."
    )
    split: Split
    csv: CsvFormat = Field(CsvFormat(), description="How CSV files are written.")
    bad_rows: BadRows = Field(
        BadRows(), description="What happens to rows that cannot be used: fail, or quarantine."
    )

    def problems(self) -> Iterator[Problem]:
        """Yields contradictions between the fields, and values no file can be read with."""
        yield from _below("split", self.split.problems())
        yield from _below("csv", self.csv.problems())


class Gate(Strict):
    """When data validation stops a run. Anomaly types are TFDV's names."""

    stop_on: Literal["error", "warning"] = Field(
        "error", description="The lowest severity that stops the run."
    )
    tolerate: list[str] = Field(
        default_factory=list, description="Anomaly types that only warn, whatever their severity."
    )


class Model(Strict):
    """The shape of the wide-and-deep network."""

    hidden: list[PositiveInt] = Field(description="Units of the deep part's layers.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="After each of them.")
    batch_norm: bool = Field(False, description="Normalise each of them.")
    wide: bool = Field(True, description="Add the linear part over all features.")
    l2: NonNegativeFloat = Field(0.0, description="Weight of the L2 penalty on kernels.")


class LearningRate(Strict):
    """The learning rate over the run."""

    initial: PositiveFloat
    schedule: Literal["constant", "cosine", "exponential"] = "constant"
    warmup_steps: NonNegativeInt = Field(0, description="Linear rise to `initial`.")
    decay_to: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="The last rate as a fraction of the first (cosine, exponential)."
    )
    scale_by_replicas: bool = Field(
        False, description="Multiply `initial` by the number of replicas."
    )

    def problems(self) -> Iterator[Problem]:
        """Yields contradictions between the fields."""
        if self.schedule == "exponential" and self.decay_to == 0:
            yield ("decay_to",), "must be above 0 for the exponential schedule"


class EarlyStopping(Strict):
    """Stop when a metric on the eval split no longer improves, and keep the best weights."""

    metric: Literal["loss", "auc", "accuracy", "mae"] = "loss"
    patience: PositiveInt = Field(description="Evaluations without improvement.")
    min_delta: NonNegativeFloat = 0.0


class Checkpoints(Strict):
    """How often a training is saved, so that it can go on after an end before its time."""

    every_seconds: PositiveFloat | None = Field(
        30.0, description="At this interval, but never so often that saving takes over 1 %."
    )
    every_steps: PositiveInt | None = Field(None, description="And at each multiple of this.")
    keep: PositiveInt = Field(2, description="The last so many.")


class WarmStart(Strict):
    """Start from an earlier version's weights (Transfer Learning)."""

    version: PositiveInt | str = Field(
        description="A number, or a label; with `champion` the first training of all starts fresh."
    )
    layers: Annotated[list[str], Field(min_length=1)] = Field(
        ["*"], description="Names of layers, with wildcards: `hidden_*`."
    )
    freeze: bool = Field(False, description="Leave their weights as they are.")


# part: tpu {
class Tpu(Strict):
    """Which TPU."""

    name: str = Field("local", description="Its name, or `local` on a TPU VM.")
    zone: str | None = None
    project: str | None = None


# part: }
class Training(Strict):
    """The training loop."""

    seed: NonNegativeInt
    epochs: PositiveInt | None = Field(None, description="Passes over the training split.")
    steps: PositiveInt | None = Field(None, description="Or a number of steps.")
    global_batch_size: PositiveInt = Field(description="Divided by the replicas.")
    learning_rate: LearningRate
    evaluate_every_steps: PositiveInt = Field(
        description="Steps between evaluations on the eval split (and lines of progress)."
    )
    early_stopping: EarlyStopping | None = None
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Of computations; weights stay float32. float16 scales the loss."
    )
    strategy: Literal[
        "auto",
        "one_device",
        "mirrored",
        "multi_worker",  # part: multi_worker
        "tpu",  # part: tpu
    ] = Field(
        "auto",
        description="auto: all GPUs if there are several, else one device. mirrored: a replica on "
        "each GPU. "
        "multi_worker: several processes. "  # part: multi_worker
        "tpu: in an environment of its own. "  # part: tpu
        "See docs/training.md.",
    )
    # part: multi_worker {
    workers: PositiveInt | None = Field(
        None, description="multi_worker without TF_CONFIG: so many processes on this machine."
    )
    restarts: NonNegativeInt = Field(
        3, description="How often those are started again after one of them died."
    )
    # part: }
    tpu: Tpu | None = None  # part: tpu
    checkpoints: Checkpoints = Checkpoints()
    memory_mib: PositiveFloat = Field(
        256.0,
        description="Rows that take more are read from shards on disk, a window at a time. (Below, "
        "reading them takes four times as much for a moment.)",
    )
    warm_start: WarmStart | None = None

    def problems(self) -> Iterator[Problem]:
        """Yields contradictions between the fields."""
        if (self.epochs is None) == (self.steps is None):
            yield ("steps",), "set either 'epochs' or 'steps', and the other to null"
        # part: multi_worker {
        if self.workers is not None and self.strategy != "multi_worker":
            yield ("workers",), f"needs strategy: multi_worker; it is '{self.strategy}'"
        if self.workers and self.global_batch_size % self.workers:
            text = f"{self.global_batch_size} cannot be shared by {self.workers} workers evenly"
            yield ("global_batch_size",), text
        # part: }
        # part: tpu {
        if self.tpu is not None and self.strategy != "tpu":
            yield ("tpu",), f"needs strategy: tpu; it is '{self.strategy}'"
        # part: }
        yield from _below("learning_rate", self.learning_rate.problems())


class Evaluation(Strict):
    """How a candidate is judged on the test split."""

    heuristic: str = Field(
        description="The rule to beat: COLUMN == VALUE (or !=, <, <=, >, >=), or 'mined' for the "
        "best rule on one feature."
    )
    min_slice_size: PositiveInt = Field(description="Smaller slices are neither shown nor judged.")
    thresholds: list[Threshold] = Field(description="All must hold for a blessing.")


class Retention(Strict):
    """Which versions `make gc` removes: those that have no label, and are neither new nor young."""

    versions: PositiveInt = Field(20, description="The newest so many stay.")
    days: NonNegativeInt = Field(90, description="So do those filed in the last so many days.")


class Registry(Strict):
    """Where blessed models are filed, and how long they stay."""

    model: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Folder under workspace/registry."
    )
    promote: Literal["automatic", "manual"] = Field(
        description="Whether a blessed version becomes champion at once."
    )
    retention: Retention | None = Field(
        Retention(), description="null: no version is ever removed."
    )


class BeamOptions(Strict):
    """How Beam runs the data-parallel components. The runner is always explicit."""

    runner: str = Field(
        "FnApiRunner",
        description="Beam's runner inside this process. (DirectRunner would first try to download "
        "another one, Prism.)",
    )
    mode: Literal["in_memory", "multi_threading", "multi_processing"] = Field(
        "in_memory", description="Of the FnApiRunner."
    )
    workers: PositiveInt = Field(1, description="Of the FnApiRunner.")
    options: list[str] = Field(default_factory=list, description="More flags, as Beam spells them.")


class Beam(BeamOptions):
    """Beam for all components, and what differs for some."""

    components: Annotated[dict[str, BeamOptions], Removable] = Field(
        default_factory=dict, description="By component, e.g. `Transform`: all options anew."
    )


class Config(Settings):
    """Everything that distinguishes one pipeline from another."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9-]*$", description="Lower-case letters, digits and '-'."
    )
    workspace: str = Field("workspace", description="Folder for everything that a run writes.")
    data: Data
    schema_file: str = Field(description="The curated schema, made by `make schema`.")
    features: FeatureTable
    gate: Gate = Gate()
    model: Model
    training: Training
    # part: tuning {
    tuning: Tuning | None = Field(
        None, description="Search for better settings before the Trainer; off if null."
    )
    # part: }
    evaluation: Evaluation
    registry: Registry
    # part: continued_evaluation {
    continued_evaluation: continued.ContinuedEvaluation = continued.ContinuedEvaluation()
    # part: }
    serving: Serving = Serving()  # part: serving
    prediction_log: LogSettings = LogSettings()  # part: prediction_log
    beam: Beam = Beam()

    def problems(self) -> Iterator[Problem]:
        """Yields every contradiction between settings, each with its path."""
        yield from _below("features", self.features.problems())
        yield from _below("data", self.data.problems())
        yield from _below("training", self.training.problems())
        yield from self._early_stopping_problems()
        yield from _below("tuning", self._tuning_problems())  # part: tuning
        # part: prediction_log {
        columns = self.features.raw_columns()
        yield from _below("prediction_log", self.prediction_log.problems(columns))
        # part: }
        # part: continued_evaluation {
        table = self.features
        compared = [*table.raw_columns(), table.label.column]
        found = self.continued_evaluation.mistakes(table.problem, table.slices, compared)
        yield from _below("continued_evaluation", found)
        # part: }
        for index, threshold in enumerate(self.evaluation.thresholds):
            path = ("evaluation", "thresholds", str(index))
            for message in metric_problems(threshold, self.features.problem):
                yield path, message

    def _early_stopping_problems(self) -> Iterator[Problem]:
        stopping = self.training.early_stopping
        known = ("loss", *_WATCHED_METRICS[self.features.problem])
        if stopping is not None and stopping.metric not in known:
            path = ("training", "early_stopping", "metric")
            yield path, f"'{stopping.metric}' is not one of {', '.join(known)}"

    # part: tuning {
    def _tuning_problems(self) -> Iterator[Problem]:
        if self.tuning is not None:
            yield from self.tuning.problems()
            yield from self.tuning.mismatches({"model": self.model, "training": self.training})

    # part: }


PARTS: dict[tuple[str, ...], Any] = {
    ("features",): FeatureTable,
    ("data", "split"): Split,
    ("data", "csv"): CsvFormat,
    ("training",): Training,
    ("tuning",): Tuning,  # part: tuning
}
"""The parts that can be checked for contradictions each on its own."""

_WATCHED_METRICS = {
    "binary": ("auc", "accuracy"),
    "multiclass": ("accuracy",),
    "regression": ("mae",),
}


def _below(part: str, problems: Iterator[Problem]) -> Iterator[Problem]:
    for path, message in problems:
        yield (part, *path), message
