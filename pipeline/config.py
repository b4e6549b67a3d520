"""The settings of a pipeline: typed, documented field by field, checked when they are built.

`pipeline.loading` reads them from `configs/*.yaml`; nothing else in the project parses settings.
"""

import functools
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    create_model,
)

from components.errors import did_you_mean
from components.evaluation.thresholds import Threshold
from components.features.table import Bucketized, FeatureTable, Numeric
from components.inference.prediction_log import LogSettings
from components.ingest.settings import BadRows, CsvFormat, Kind, Spans, Split
from components.settings import Problem, Removable, Settings, Strict
from pipeline import parts


class DataTable(Strict):
    """Files that `data.sql` reads beside the rows, as one table."""

    path: str = Field(description="A file, or a folder; as in data.path.")
    pattern: str = Field("*", description="Files within the folder, a glob.")
    columns: dict[str, Kind] = Field(
        default_factory=dict, description="Types other than those that the values show."
    )


class Data(Settings):
    """Where the rows come from and how they are divided."""

    path: str = Field(
        description="A folder, relative to the project; 'package:NAME/FOLDER' is one inside an "
        "installed Python package; 'python:MODULE:FUNCTION' one that a function fills once: it is "
        "called with the folder, and writes files into it."
    )
    pattern: str = Field(
        description="Files within it, a glob; {SPAN}, {VERSION}, or {YYYY}, {MM} and {DD} select "
        "spans as in TFX. Names in .parquet are Parquet, in .jsonl JSON lines, all others CSV; .gz "
        "and .zst are decompressed."
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
    sql: str | None = Field(
        None,
        description="A SELECT from `rows` whose result has the schema's columns; run before the "
        "rows are divided.",
    )
    sql_over: Literal["row", "span"] = Field(
        "row", description="row: each result depends on one row; span: on others of its span too."
    )
    columns: dict[str, Kind] = Field(
        default_factory=dict,
        description="Types of columns of `rows` that the schema lacks or has as something else; "
        "null where a file does not have them.",
    )
    tables: dict[str, DataTable] = Field(
        default_factory=dict, description="More tables for the query, by name."
    )

    def problems(self) -> Iterator[Problem]:
        """Yields contradictions between the fields."""
        if self.sql is None and (self.columns or self.tables or self.sql_over != "row"):
            yield ("sql",), "is unset, and data.columns, data.tables and data.sql_over are for it"
        if "rows" in map(str.lower, self.tables):
            yield ("tables", "rows"), "is the name of the data itself; choose another one"


class Gate(Strict):
    """When data validation stops a run. Anomaly types are TFDV's names."""

    stop_on: Literal["error", "warning"] = Field(
        "error", description="The lowest severity that stops the run."
    )
    tolerate: list[str] = Field(
        default_factory=list, description="Anomaly types that only warn, whatever their severity."
    )


class FirstPhase(Strict):
    """A small model for devices, which leaves to the full one what it is not sure of."""

    features: Annotated[list[str], Field(min_length=1)] = Field(
        description="Names of numeric and bucketized features that it reads."
    )
    hidden: list[PositiveInt] = Field([16], description="Units of its layers.")
    at_least: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.9, description="Its accuracy on the eval rows that it answers alone."
    )


class Model(Strict):
    """The shape of the wide-and-deep network."""

    hidden: list[Annotated[int, Field(gt=0, le=65_536)]] = Field(
        description="Units of the deep part's layers."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="After each of them.")
    batch_norm: bool = Field(False, description="Normalise each of them.")
    wide: bool = Field(True, description="Add the linear part over all features.")
    l2: NonNegativeFloat = Field(0.0, description="Weight of the L2 penalty on kernels.")
    members: Annotated[int, Field(ge=1, le=64)] = Field(
        1,
        description="An ensemble in one network: so many share the kernels and train together; the "
        "prediction is their mean, and their spread its uncertainty.",
    )
    buckets: Annotated[int, Field(ge=2, le=1000)] | None = Field(
        None,
        description="Regression as a distribution over so many buckets (Reframing): its mean is "
        "the prediction.",
    )
    first_phase: FirstPhase | None = Field(
        None, description="A LiteRT model beside the full one (Two-Phase Predictions)."
    )
    explain: bool = Field(
        False, description="A signature that says what each column adds (Explainable Predictions)."
    )


class Rebalance(Settings):
    """How rare classes count in training (book pattern: Rebalancing); predictions stay calibrated.

    What changes the classes' shares is made up for in the logits, so a probability is one of the
    data as it came.
    """

    weights: Literal["balanced"] | list[PositiveFloat] | None = Field(
        None, description="Of a row's loss, by class in class order; balanced: all classes alike."
    )
    keep: list[Annotated[float, Field(gt=0, le=1)]] | None = Field(
        None, description="Which share of each class's training rows is used, in class order."
    )
    initial_bias: bool = Field(
        False, description="Start from the classes' shares, not from equal ones."
    )


class LearningRate(Settings):
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


STRATEGIES = ("auto", "one_device", "mirrored")
"""The core's values of `training.strategy`; parts add others."""


class Training(Settings):
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
    rebalance: Rebalance | None = None
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Of computations; weights stay float32. float16 scales the loss."
    )
    strategy: str = Field(
        "auto",
        description="auto: all GPUs if there are several, else one device. one_device. mirrored: a "
        "replica on each GPU. Parts add others, as multi_worker and tpu. See docs/training.md.",
    )
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
        known = [*STRATEGIES, *parts.trainers()]
        if self.strategy not in known:
            hint = did_you_mean(self.strategy, known)
            yield ("strategy",), f"'{self.strategy}' is not one of {', '.join(known)}{hint}"


class Evaluation(Strict):
    """How a candidate is judged on the test split."""

    heuristic: str = Field(
        description="The rule to beat: COLUMN == VALUE (or !=, <, <=, >, >=), or 'mined' for the "
        "best rule on one feature."
    )
    min_slice_size: PositiveInt = Field(description="Smaller slices are neither shown nor judged.")
    thresholds: list[Threshold] = Field(description="All must hold for a blessing.")
    what_if: list[str] = Field(
        default_factory=list,
        description="Raw columns of which it is told how many predictions change with their value.",
    )
    importances: bool = Field(
        False, description="Tell by how much the metric gets worse when a column is shuffled."
    )


class Retention(Strict):
    """Which versions `make gc` removes: those that have no label, and are neither new nor young."""

    versions: PositiveInt = Field(20, description="The newest so many stay.")
    days: NonNegativeInt = Field(90, description="So do those filed in the last so many days.")


class Registry(Strict):
    """Where blessed models are filed, and how long they stay."""

    model: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=100,
        description="Folder under workspace/registry.",
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
        "another one, Prism.) FlinkRunner: see docs/scale.md.",
    )
    mode: Literal["in_memory", "multi_threading", "multi_processing"] = Field(
        "in_memory", description="Of the FnApiRunner."
    )
    workers: PositiveInt = Field(1, description="Of the FnApiRunner, or parallel parts on Flink.")
    options: list[str] = Field(default_factory=list, description="More flags, as Beam spells them.")


class Beam(BeamOptions):
    """Beam for all components, and what differs for some."""

    components: Annotated[dict[str, BeamOptions], Removable] = Field(
        default_factory=dict, description="By component, e.g. `Transform`: all options anew."
    )

    def flags(self, component: str) -> list[str]:
        """Beam's flags for a component, the runner and its mode always among them."""
        chosen = self.components.get(component, self)
        if chosen.runner in parts.runners():
            return parts.runners()[chosen.runner](chosen)
        flags = [f"--runner={chosen.runner}"]
        if chosen.runner == "FnApiRunner":
            flags += [
                f"--direct_running_mode={chosen.mode}",
                f"--direct_num_workers={chosen.workers}",
                # Without an image's name TFX packs its own source for each component: a second.
                "--sdk_container_image=unused",
                # TFX's own transforms are typed right; checking them again takes a second a run.
                "--no_pipeline_type_check",
            ]
        return flags + chosen.options


class Config(Settings):
    """Everything that distinguishes one pipeline from another, without the settings of the parts.

    What `pipeline.loading` builds has those too: see `config_model` and `part`.
    """

    name: str = Field(
        pattern=r"^[a-z][a-z0-9-]*$",
        max_length=100,
        description="Lower-case letters, digits and '-'.",
    )
    workspace: str = Field("workspace", description="Folder for everything that a run writes.")
    data: Data
    schema_file: str = Field(description="The curated schema, made by `make schema`.")
    features: FeatureTable
    gate: Gate = Gate()
    model: Model
    training: Training
    evaluation: Evaluation
    registry: Registry
    prediction_log: LogSettings = LogSettings()
    beam: Beam = Beam()

    def part(self, key: str) -> Any:
        """The settings that a part has under a key at the top; their type is the part's."""
        return getattr(self, key)

    def problems(self) -> Iterator[Problem]:
        """Yields the contradictions between groups of settings, each with its path."""
        yield from self._early_stopping_problems()
        yield from self._problem_type_problems()
        columns = self.features.raw_columns()
        for path, text in self.prediction_log.problems(columns):
            yield ("prediction_log", *path), text
        for index, threshold in enumerate(self.evaluation.thresholds):
            path = ("evaluation", "thresholds", str(index))
            for message in threshold.mistakes(self.features.problem):
                yield path, message
        for column in self.evaluation.what_if:
            if column not in columns:
                text = f"no feature reads '{column}'; known: {', '.join(columns)}"
                yield ("evaluation", "what_if"), text
        for problems in parts.offers("problems"):
            yield from problems(self)

    def _problem_type_problems(self) -> Iterator[Problem]:
        """What is for some problem types only."""
        table, rebalance = self.features, self.training.rebalance
        if self.model.buckets is not None and table.problem != "regression":
            yield ("model", "buckets"), f"is for a regression, and the problem is {table.problem}"
        if self.model.first_phase is not None:
            if table.problem not in ("binary", "multiclass"):
                yield ("model", "first_phase"), f"is for classes, and this is {table.problem}"
            for name in self.model.first_phase.features:
                if not isinstance(table.columns.get(name), Numeric | Bucketized):
                    at = ("model", "first_phase", "features")
                    yield at, f"'{name}' is no numeric or bucketized feature of the table"
        if rebalance is None:
            return
        path, classes = ("training", "rebalance"), len(table.label.classes or (0, 1))
        if table.problem not in ("binary", "multiclass"):
            yield path, f"is for binary and multiclass, and the problem is {table.problem}"
        for name in ("weights", "keep"):
            values = getattr(rebalance, name)
            if isinstance(values, list) and len(values) != classes:
                yield (*path, name), f"has {len(values)} values, and there are {classes} classes"

    def _early_stopping_problems(self) -> Iterator[Problem]:
        stopping = self.training.early_stopping
        known = ("loss", *_WATCHED_METRICS[self.features.problem])
        if stopping is not None and stopping.metric not in known:
            path = ("training", "early_stopping", "metric")
            yield path, f"'{stopping.metric}' is not one of {', '.join(known)}"


@functools.cache
def training_model() -> type[Training]:
    """`Training` with the settings of the parts that are there."""
    bases = tuple(training() for training in parts.offers("training")) or Training
    return create_model("Training", __base__=bases, __doc__=Training.__doc__)


@functools.cache
def config_model() -> type[Config]:
    """`Config` with the settings of the parts that are there."""
    fields: dict[str, Any] = {"training": (training_model(), ...)}
    for settings in parts.offers("settings"):
        fields |= settings()
    made: type[Config] = create_model("Config", __base__=Config, __doc__=Config.__doc__, **fields)
    return made


_WATCHED_METRICS = {
    "binary": ("auc", "accuracy"),
    "multiclass": ("accuracy",),
    "multilabel": ("auc", "accuracy"),
    "regression": ("mae",),
}
