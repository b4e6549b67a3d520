"""When a champion is kept, retrained, rolled back or looked into."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from components.evaluation.thresholds import Bound
from components.ingest.settings import CsvFormat
from components.settings import Problem, Strict

Fraction = Annotated[float, Field(gt=0, le=1)]


class Limit(Bound):
    """What a champion must reach on a fresh span. It is broken if the whole interval is beyond."""

    below_promotion: PositiveFloat | None = Field(
        None,
        description="By how much it may be worse than in the evaluation that promoted the "
        "champion; the same slice is compared with the same slice.",
    )
    gap: PositiveFloat | None = Field(
        None,
        description="By how much the best and the worst slice of `slices` may differ (Fairness "
        "Lens).",
    )

    def contradictions(self, slices: list[list[str]]) -> Iterator[str]:
        """Yields what does not fit the feature table's slices, a sentence each."""
        if self.gap is not None and not self.slices:
            yield "gap is between slices: name their columns in slices"
        if self.slices and sorted(self.slices) not in map(sorted, slices):
            listed = ", ".join(map(str, slices)) or "none"
            yield f"slices {self.slices} is not among features.slices: {listed}"


class Drift(Strict):
    """How far a column's distribution may move; the label's among them.

    TFDV's measures, each from 0 to 1. Small spans move by chance: with 200 rows a divergence of
    0.5 is nothing yet.
    """

    numbers: Fraction = Field(0.6, description="Jensen-Shannon divergence.")
    categories: Fraction = Field(0.3, description="The largest change of a value's share.")
    columns: dict[str, Fraction] = Field(
        default_factory=dict, description="Other limits, by column."
    )
    ignore: dict[str, str] = Field(
        default_factory=dict, description="Columns that are not compared, each with the reason."
    )


class Labels(Strict):
    """Labels that come after the predictions, joined with the prediction log by key."""

    path: str = Field(description="A folder, as in data.path.")
    pattern: str = Field(
        description="Files within it, CSV or Parquet, with spans as in data.pattern."
    )
    key: str = Field(description="Their column with the key that the predictions were logged by.")
    label: str = Field(description="Their column with the label.")
    csv: CsvFormat = CsvFormat()
    days: PositiveInt = Field(
        30, description="Predictions up to so old, counted from the newest, are joined."
    )


class PredictionSkew(Strict):
    """How far logged predictions may be from what the same version answers now."""

    tolerance: PositiveFloat = Field(
        1e-4, description="Of one value; times its size where that is above 1."
    )
    share: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.001, description="So many of the rows may be beyond it."
    )


class Age(Strict):
    """How old a champion may become."""

    spans: PositiveInt | None = Field(None, description="Spans since the newest it was trained on.")
    days: PositiveInt | None = Field(None, description="Days since it was trained.")


class Retraining(Strict):
    """What a retraining is trained on, and when there is none."""

    spans: PositiveInt | None = Field(
        4, description="A rolling window of so many spans; null: all spans so far, growing."
    )
    first: NonNegativeInt = Field(0, description="Never a span before this one.")
    warm_start: bool = Field(False, description="Start from the champion's weights.")
    start: bool = Field(True, description="Start it; if false, a retraining is only recommended.")
    cool_down: NonNegativeInt = Field(
        1, description="So many evaluated spans after a retraining there is no other."
    )


class ContinuedEvaluation(Strict):
    """How a champion is judged on fresh spans, and what follows."""

    limits: list[Limit] = Field(default_factory=list)
    min_rows: PositiveInt = Field(
        100, description="With fewer rows metrics and drift are shown, and not judged."
    )
    drift_from_training: Drift = Drift()
    drift_from_before: Drift = Drift()
    skew: Drift = Drift()
    served_days: PositiveInt = Field(
        30, description="Where predictions are logged, so many days of what was asked are compared."
    )
    labels: Labels | None = Field(
        None, description="Judge logged predictions by late labels; null: the data has labels."
    )
    prediction_skew: PredictionSkew = PredictionSkew()
    repeated_rows: Fraction = Field(
        0.1, description="Rows that occur more than once, or in an earlier span: at most."
    )
    age: Age = Age()
    retraining: Retraining = Retraining()
    roll_back: Literal["recommend", "automatic"] = Field(
        "recommend", description="What happens if the version before the champion is better."
    )

    def mistakes(
        self, problem: str, slices: list[list[str]], columns: list[str]
    ) -> Iterator[Problem]:
        """Yields contradictions with the feature table.

        Args:
          problem: Its problem type.
          slices: Its slices.
          columns: The columns that are compared: those the model reads, and the label.
        """
        for index, limit in enumerate(self.limits):
            for text in (*limit.mistakes(problem), *limit.contradictions(slices)):
                yield ("limits", str(index)), text
        for name in ("drift_from_training", "drift_from_before", "skew"):
            drift: Drift = getattr(self, name)
            for kind in ("columns", "ignore"):
                for column in getattr(drift, kind):
                    if column not in columns:
                        yield (name, kind, column), "is neither the label nor read by the model"
        if self.labels is not None:
            for path, text in self.labels.csv.problems():
                yield ("labels", "csv", *path), text
