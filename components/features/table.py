"""The feature table: the one home of what is known about each column.

Transform, the model, the signatures, the evaluation's slices and the run's documentation all read
this table; none of them keeps a list of columns of its own. Book patterns: Hashed Feature,
Embeddings, Feature Cross, Transform.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt
from pydantic_core import PydanticCustomError

from components.features import names
from components.settings import Problem, Removable, Settings, Strict


class _Column(Strict):
    """What every kind of feature has."""

    column: str | None = Field(None, description="The raw column; the feature's own name if unset.")


class _Categorical(_Column):
    """A feature that becomes an integer id, then a one-hot vector or an embedding."""

    embed: PositiveInt | None = Field(
        None, description="Width of a learned embedding; a one-hot vector if unset."
    )


class Numeric(_Column):
    """A number used as a number."""

    kind: Literal["numeric"]
    scale: Literal["standard", "minmax", "quantile", "none"] = Field(
        "standard",
        description="Zero mean and unit variance; range 0 to 1; as it is; or the position among "
        "the training data's quantiles, read by the network as a piecewise linear function.",
    )
    bins: Annotated[int, Field(ge=2, le=1000)] = Field(
        48, description="scale: quantile: between so many pairs of neighbouring quantiles."
    )
    missing: Literal["mean", "own", "error"] | float = Field(
        description="What stands in for a missing value: the training mean, a number, an error; "
        "with scale: quantile also an input of its own."
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yields (setting, mistake) for contradictions within the feature."""
        if self.scale != "quantile" and "bins" in self.model_fields_set:
            yield "bins", f"needs scale: quantile; it is '{self.scale}'"
        if self.scale != "quantile" and self.missing == "own":
            yield "missing", "'own' needs scale: quantile; else choose mean, a number, or error"


class Bucketized(_Categorical):
    """A number turned into the id of the interval it falls into."""

    kind: Literal["bucketized"]
    buckets: Annotated[int, Field(ge=2)] | None = Field(
        None, description="So many intervals, cut at the training data's quantiles."
    )
    boundaries: list[float] | None = Field(
        None, description="Cut here instead: increasing numbers, each the start of an interval."
    )
    missing: Literal["own", "error"] | float = Field(
        description="A missing value has its own interval, counts as a number, or is an error."
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yields (setting, mistake) for contradictions within the feature."""
        if (self.buckets is None) == (self.boundaries is None):
            yield "kind", "a bucketized feature needs either 'buckets: N' or 'boundaries: [...]'"
        cuts = self.boundaries
        if cuts is not None and (not cuts or any(a >= b for a, b in pairwise(cuts))):
            yield "boundaries", f"{cuts} must be increasing, and at least one"


_TIDY = "Capitals, and spaces at the ends, make no difference: 'Yes ' is 'yes'."


class Vocabulary(_Categorical):
    """A category looked up in a vocabulary learned from the training data."""

    kind: Literal["vocabulary"]
    top_k: PositiveInt | None = Field(None, description="Keep the most frequent values only.")
    min_count: PositiveInt | None = Field(
        None, description="Keep values seen at least so often in the training data."
    )
    oov_buckets: PositiveInt = Field(1, description="Ids shared by values not in the vocabulary.")
    tidy: bool = Field(False, description=_TIDY)
    missing: Literal["own", "error"] | str | int = Field(
        description="A missing value gets a category of its own, counts as a value, or is an error."
    )


class Hashed(_Categorical):
    """A category hashed into a fixed number of ids (book pattern 1)."""

    kind: Literal["hashed"]
    buckets: Annotated[int, Field(ge=2)] = Field(description="How many ids there are.")
    tidy: bool = Field(False, description=_TIDY)
    missing: Literal["own", "error"] | str | int = Field(
        description="A missing value gets an id of its own, counts as a value, or is an error."
    )


class Text(_Column):
    """Words, each with a learned embedding, of which a row has the mean (book pattern 4)."""

    kind: Literal["text"]
    tokens: Annotated[int, Field(ge=1, le=10_000)] = Field(
        32, description="So many of the first words are read; a word is of letters and digits."
    )
    top_k: PositiveInt | None = Field(
        None, description="Words from a vocabulary of the most frequent ones in the training data."
    )
    buckets: Annotated[int, Field(ge=2)] | None = Field(
        None, description="Or hashed into so many ids."
    )
    embed: PositiveInt = Field(16, description="Width of a word's embedding.")
    missing: Literal["own"] = Field("own", description="A missing text has no words.")

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yields (setting, mistake) for contradictions within the feature."""
        if (self.top_k is None) == (self.buckets is None):
            yield "kind", "a text needs either 'top_k: N' or 'buckets: N'"


class Pretrained(Strict):
    """Layers that were trained elsewhere (book pattern 13, Transfer Learning)."""

    file: str = Field(
        description="A Keras file (.keras), or a SavedModel's folder, which stays frozen; relative "
        "to the project, or 'python:MODULE:FUNCTION/NAME' in a folder that a function fills. It "
        "takes pictures [n, height, width, channels] in [0, 1]."
    )
    freeze: bool = Field(True, description="Leave the weights as they are.")
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="If not frozen: this share of the training's rate."
    )
    digest: str | None = Field(None, description="Of the content; filled in for a run.")


class Image(_Column):
    """A picture, as PNG, JPEG, GIF or BMP, read by a small convolution (book pattern 4)."""

    kind: Literal["image"]
    size: list[Annotated[int, Field(ge=4, le=1024)]] = Field(
        [32, 32], min_length=2, max_length=2, description="Height and width that it is resized to."
    )
    channels: Literal[1, 3] = Field(3, description="1: grey; 3: red, green and blue.")
    source: Literal["base64", "path"] = Field(
        "base64", description="What the column holds: the file in base64, as in JSON; or its path."
    )
    filters: list[PositiveInt] = Field([16, 32], description="Of the convolutions, 3 by 3 each.")
    pretrained: Pretrained | None = Field(None, description="Layers in place of the convolutions.")
    missing: Literal["own"] = Field("own", description="A missing picture is black.")


class Prediction(_Column):
    """What another model of the registry predicts for the row (book pattern 8, Cascade).

    The version is pinned when a run begins, and travels inside Transform's graph, and so inside
    every export.
    """

    kind: Literal["prediction"]
    model: str = Field(description="Its folder in the registry (`registry.model`).")
    version: PositiveInt | str = Field("champion", description="A number, or a label.")
    columns: Annotated[list[str], Field(min_length=1)] = Field(
        description="The raw columns that it reads, all of them."
    )
    output: Annotated[int, Field(ge=0)] = Field(0, description="Of several classes, which one.")
    scale: Literal["standard", "quantile", "none"] = Field("quantile", description="As of numbers.")
    bins: Annotated[int, Field(ge=2, le=1000)] = Field(48, description="As of numbers.")
    missing: Literal["mean"] = Field(
        "mean", description="None is: the other model knows what to do."
    )
    trained_by: str | None = Field(
        None, description="The configuration that is run before, where there is no such version."
    )
    folder: str | None = Field(None, description="Of the pinned version; filled in for a run.")
    digest: str | None = Field(None, description="Of its weights; filled in for a run.")


DATE_PARTS = {"month": 12, "weekday": 7, "hour": 24}
"""The parts of a date, and how many values each has."""


class Date(_Categorical):
    """A part of a date or a time, as it is written, in whatever time zone."""

    kind: Literal["date"]
    part: Literal["month", "weekday", "hour"] = Field(
        description="The ids: January is the first month, Monday the first weekday."
    )
    format: Literal["ymd", "dmy", "mdy", "seconds", "milliseconds"] = Field(
        "ymd",
        description="The order of year, month and day in texts (2024-01-31 or 2024/1/31 10:00 is "
        "ymd; names of months may be English ones); or numbers since 1970.",
    )
    missing: Literal["own"] = Field(
        description="A missing date, or a text that is none, has an id of its own."
    )


Feature = Annotated[
    Numeric | Bucketized | Vocabulary | Hashed | Date | Text | Image | Prediction,
    Field(discriminator="kind"),
]


class Cross(Strict):
    """Two or more categorical features taken together, hashed (book pattern 3)."""

    of: Annotated[list[str], Field(min_length=2)] = Field(description="Names of features.")
    buckets: Annotated[int, Field(ge=2)] = Field(description="How many ids the pairs hash into.")
    embed: PositiveInt | None = Field(None, description="Width of an embedding; one-hot if unset.")


def _without_booleans(value: Any) -> Any:
    """Refuses what YAML makes of a class that is called yes, no, on, off, true or false."""
    if isinstance(value, list) and any(isinstance(item, bool) for item in value):
        text = "yes, no, true and false are booleans in YAML: quote them, as in ['no', 'yes']"
        raise PydanticCustomError("booleans", text)
    return value


class Label(Strict):
    """The column to predict."""

    column: str = Field(description="The raw column.")
    classes: Annotated[list[str | int | float] | None, BeforeValidator(_without_booleans)] = Field(
        None,
        description="The label's values in class order. Binary: [negative, positive], 0 and 1 if "
        "unset. Multiclass and multilabel: required.",
    )
    separator: str = Field(
        "|",
        min_length=1,
        description="Multilabel: between the classes in a row's text, as in 'a|b'.",
    )

    def values(self, kind: str) -> list[Any]:
        """The classes as values of the label's type: BYTES, INT or FLOAT.

        Raises:
          ValueError: one of them cannot be such a value.
        """
        return [_CLASS_OF[kind](value) for value in self.classes or []]


def _integer(value: str | int | float) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"{value} is no integer")
    return int(value)


_CLASS_OF: dict[str, Callable[[Any], Any]] = {"BYTES": str, "INT": _integer, "FLOAT": float}


Reason = Literal[
    "leakage",  # known only when the label is, or made from it
    "id",  # names a row
    "time",  # grows for ever
    "constant",
    "duplicate",  # the same values as another column
    "sparse",  # hardly ever filled in
    "text",  # free text
    "categories",  # too many of them, with few rows each
    "bridged",  # 1 where the query made up a value of the row, else 0
    "choice",  # a person's
]
"""Why a column is kept out of the model."""


class FeatureTable(Settings):
    """Every column of the data: a feature, the label, the key, or kept out with the reason."""

    problem: Literal["binary", "multiclass", "multilabel", "regression"] = Field(
        description="What is predicted."
    )
    label: Label
    key: str | None = Field(None, description="The column that identifies a row.")
    columns: Annotated[dict[str, Feature], Removable] = Field(
        min_length=1, description="The features by name; a column may feed several."
    )
    crosses: Annotated[dict[str, Cross], Removable] = Field(
        default_factory=dict, description="Crossed features by name."
    )
    exclude: Annotated[dict[str, Reason], Removable] = Field(
        default_factory=dict, description="Columns kept out of the model, with the reason."
    )
    slices: list[list[str]] = Field(
        default_factory=list,
        description="Columns to evaluate by; several in one entry are crossed.",
    )

    def column_of(self, name: str) -> str:
        """The raw column that feature `name` reads."""
        return self.columns[name].column or name

    def columns_of(self, name: str) -> list[str]:
        """The raw columns that feature `name` reads: one, but for another model's prediction."""
        feature = self.columns[name]
        return feature.columns if isinstance(feature, Prediction) else [self.column_of(name)]

    def raw_columns(self) -> list[str]:
        """The raw columns that the model reads, each once, sorted: the serving inputs."""
        return sorted({column for name in self.columns for column in self.columns_of(name)})

    def safe_names(self) -> dict[str, str]:
        """What features and crosses are called within TensorFlow and in files."""
        return names.safe_names([*self.columns, *self.crosses])

    def required_columns(self) -> list[str]:
        """The raw columns of which a missing value is an error, the label among them."""
        required = [self.columns_of(n) for n, f in self.columns.items() if f.missing == "error"]
        return sorted({self.label.column, *(column for columns in required for column in columns)})

    def num_classes(self) -> int:
        """How many outputs the model has: 1 for binary and regression."""
        return len(self.label.classes or []) if self.problem.startswith("multi") else 1

    def problems(self) -> Iterator[Problem]:
        """Yields the table's contradictions, each with the path of the setting within the table."""
        yield from self._label_problems()
        yield from self._column_problems()
        for part, named in (("columns", self.columns), ("crosses", self.crosses)):
            if "" in named:
                yield (part, ""), "a feature must have a name"
        for name, cross in self.crosses.items():
            if name in self.columns:
                yield ("crosses", name), f"'{name}' is already a feature; choose another name"
            for part in cross.of:
                yield from self._cross_part_problems(name, part)

    def _label_problems(self) -> Iterator[Problem]:
        classes = self.label.classes
        path = ("label", "classes")
        if self.problem == "binary" and classes is not None and len(classes) != 2:
            yield path, f"binary needs exactly two classes [negative, positive], got {len(classes)}"
        if self.problem == "multiclass" and len(classes or []) < 3:
            yield path, "multiclass needs the list of at least three classes, in class order"
        if self.problem == "multilabel" and not classes:
            yield path, "multilabel needs the list of the classes, in the order of the outputs"
        if self.problem != "multilabel" and "separator" in self.label.model_fields_set:
            yield ("label", "separator"), f"is for multilabel, and the problem is {self.problem}"
        if self.problem == "regression" and classes is not None:
            yield path, "regression has no classes; remove them"
        if classes and len(set(classes)) != len(classes):
            yield path, f"the classes {classes} are not all different"

    def _column_problems(self) -> Iterator[Problem]:
        for name, feature in self.columns.items():
            for column in self.columns_of(name):
                if column == self.label.column:
                    yield ("columns", name), f"reads '{column}', which is the label"
                if column == self.key:
                    yield ("columns", name), f"reads '{column}', which is the key"
                if column in self.exclude:
                    reason = self.exclude[column]
                    yield ("columns", name), f"reads '{column}', which is excluded as {reason}"
            if isinstance(feature, Bucketized | Numeric | Text):
                for setting, message in feature.problems():
                    yield ("columns", name, setting), message
        if self.label.column in self.exclude:
            yield ("exclude", self.label.column), "is the label and cannot be excluded"

    def _cross_part_problems(self, name: str, part: str) -> Iterator[Problem]:
        if part not in self.columns:
            yield ("crosses", name, "of"), f"'{part}' is not a feature of the table"
        elif isinstance(self.columns[part], Numeric | Text | Image | Prediction):
            yield (
                ("crosses", name, "of"),
                f"'{part}' is {self.columns[part].kind}; cross a category, such as a bucketized "
                "number, instead",
            )
