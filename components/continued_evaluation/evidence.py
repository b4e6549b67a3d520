"""What is known of a champion on a fresh span: all that a decision is made from.

Everything here is plain data, so that it can be written to the history and read again.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

OVERALL = "overall"


class Filed(BaseModel):
    """Frozen, and whatever else a later version wrote is dropped."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Value(Filed):
    """A metric with its confidence interval (95 %); None where it cannot be computed."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """'0.9123 (0.9001 to 0.9245)'; '-' for what cannot be computed."""
        if self.value is None:
            return "-"
        if self.low is None or self.high is None:
            return f"{self.value:.4f}"
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


class Judged(Filed):
    """Who is judged.

    Attributes:
      champion: The version judged.
      previous: The champion before it, if it is there.
      before: The evaluation whose statistics are those of the span before, if there is one.
    """

    champion: int
    previous: int | None
    before: str | None


Against = Literal["training", "before", "served"]
"""What a span is compared with: the champion's training rows, or the span before; and `served`,
what the champion was asked, compared with its training rows."""
Measure = Literal["jensen_shannon_divergence", "infinity_norm"]
Metrics = dict[str, dict[str, Value]]
"""By slice (`overall`, or `column=value, ...`) and metric."""
Plain = dict[str, dict[str, float | None]]
"""The same, without intervals: from a version's manifest."""


class Moved(Filed):
    """How far a column's distribution is from another's."""

    column: str
    measure: Measure
    against: Against
    value: float
    limit: float

    @property
    def share(self) -> float:
        """Of the limit; above 1 it is broken."""
        return self.value / self.limit


class Anomaly(Filed):
    """Something in the span that does not fit the schema."""

    column: str
    kind: str
    what: str


class Rows(Filed):
    """How many rows there are, and how many of them are no news (as fractions)."""

    total: int
    repeated: float = 0.0
    seen_before: float = 0.0


class Joined(Filed):
    """What became of logged predictions and late labels; rows each.

    The predictions read are `joined + unlabelled + repeated_predictions + without_key +
    other_versions`. The labels read are `joined + repeated_labels + conflicting_labels +
    foreign_labels + labels_of_other_versions + empty_labels + malformed_labels +
    labels_without_key`.

    Attributes:
      joined: Predictions of the version that is judged, with their labels.
      unlabelled: Its predictions without a label that can be used, or without one yet.
      without_key: Its predictions that nobody can find a label for.
      other_versions: Predictions of other versions.
      repeated_predictions: Its predictions of a key that it predicted again later.
      repeated_labels: Labels that say the same of a key as one that was used.
      conflicting_labels: Labels of keys that have different ones: none of them is used.
      foreign_labels: Labels of keys that are not in the log's days.
      labels_of_other_versions: Labels of keys that only other versions predicted.
      labels_without_key: Rows of the label files in which the key is empty.
      empty_labels: Rows in which the label is empty.
      malformed_labels: Rows with more or fewer fields than the header, that are no UTF-8, or with
        a label that is not of its type, or not among the classes.
      without_features: Of `joined`, those of which the log has no features.
    """

    joined: int
    unlabelled: int
    without_key: int
    other_versions: int
    repeated_predictions: int
    repeated_labels: int
    conflicting_labels: int
    foreign_labels: int
    labels_of_other_versions: int = 0
    labels_without_key: int = 0
    empty_labels: int
    malformed_labels: int = 0
    without_features: int = 0


class Answers(Filed):
    """Logged predictions beside what the same version answers now.

    Attributes:
      rows: How many rows were compared.
      different: The fraction of them with a value beyond the tolerance.
      largest: The largest difference of one value, among those that are finite on both sides.
    """

    rows: int
    different: float
    largest: float


class Age(Filed):
    """How old the champion is; None where it cannot be told."""

    spans: int | None
    days: float


class Evidence(Filed):
    """A champion on a fresh span.

    Attributes:
      span: The span.
      rows: How many rows.
      champion: The version judged.
      previous: The champion before it, if it is there.
      metrics: By model (champion, previous, heuristic, or logged: the champion's answers).
      rows_by_slice: How many.
      promoted: What the champion's promotion was decided on, by model (champion, heuristic).
      promoted_rows: On how many rows, by slice.
      heuristic_before: What the heuristic reached on the span before, over all rows.
      moved: Drift and skew.
      anomalies: Errors of the schema's validation.
      joined: With late labels only.
      answers: With logged predictions only.
      age: Of the champion.
      spans_since_retraining: Evaluated spans since the last retraining that this model was due
        for; None if there was none.
    """

    span: int
    rows: Rows
    champion: int
    previous: int | None
    metrics: dict[str, Metrics]
    rows_by_slice: dict[str, int]
    promoted: dict[str, Plain]
    promoted_rows: dict[str, int] = {}
    heuristic_before: dict[str, Value] = {}
    moved: list[Moved]
    anomalies: list[Anomaly]
    joined: Joined | None = None
    answers: Answers | None = None
    age: Age
    spans_since_retraining: int | None = None

    @property
    def judged(self) -> Metrics:
        """The metrics that are judged: of the logged predictions, if there are any."""
        return self.metrics.get("logged") or self.metrics["champion"]
