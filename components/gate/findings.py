"""From TFDV's anomalies and statistics to findings: what is wrong, in how many rows, what to do."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from components.settings import Strict

Severity = Literal["error", "warning"]


class GateSettings(Strict):
    """When data validation stops a run."""

    stop_on: Severity = Field("error", description="The lowest severity that stops the run.")
    tolerate: list[str] = Field(
        default_factory=list, description="Anomaly types that only warn, whatever their severity."
    )
    required: list[str] = Field(
        default_factory=list, description="Columns in which a missing value is an error."
    )
    label: str | None = Field(
        default=None, description="Column that must have two different values in training."
    )
    classes: list[str | int | float] | None = Field(
        default=None, description="All values that this column may have, of its type."
    )
    schema_file: str = Field("the schema file", description="What to edit, for the messages.")


_TOLD, _SHOWN = 5, 40
"""So many values, and characters of one, are shown."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a split. `feature` is '' for the split as a whole.

    `type` is TFDV's name, or one of ours in lower case; `rows` says how many, in words.
    """

    split: str
    feature: str
    type: str
    severity: Severity
    what: str
    rows: str
    todo: str


_PRESENCE = {
    "FEATURE_TYPE_LOW_FRACTION_PRESENT": "lower its presence.min_fraction",
    "FEATURE_TYPE_LOW_NUMBER_PRESENT": "lower its presence.min_count",
    "FEATURE_TYPE_NOT_PRESENT": "remove its presence",
    "SCHEMA_MISSING_COLUMN": "remove its entry, or its presence",
}
_RANGES = {
    "INT_TYPE_SMALL_INT": "lower its int_domain.min",
    "INT_TYPE_BIG_INT": "raise its int_domain.max",
    "FLOAT_TYPE_SMALL_FLOAT": "lower its float_domain.min",
    "FLOAT_TYPE_BIG_FLOAT": "raise its float_domain.max",
}
_EDITS = {
    **_PRESENCE,
    **_RANGES,
    "ENUM_TYPE_UNEXPECTED_STRING_VALUES": "add the values to its domain",
    "SCHEMA_NEW_COLUMN": "add an entry for it",
    "UNEXPECTED_DATA_TYPE": "change its type",
    "FEATURE_TYPE_HIGH_NUMBER_VALUES": "raise its value_count.max",
    "FEATURE_TYPE_LOW_NUMBER_VALUES": "lower its value_count.min",
    "FEATURE_TYPE_HIGH_UNIQUE": "raise its unique_constraints.max",
    "FEATURE_TYPE_LOW_UNIQUE": "lower its unique_constraints.min",
    "DATASET_LOW_NUM_EXAMPLES": "lower dataset_constraints.min_examples_count",
    "DATASET_HIGH_NUM_EXAMPLES": "raise dataset_constraints.max_examples_count",
    "COMPARATOR_L_INFTY_HIGH": "raise its comparator's threshold",
    "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH": "raise its comparator's threshold",
}
"""What to edit in the schema, if the change is wanted, by TFDV's type of anomaly."""


class SplitCheck:
    """The statistics and anomalies of one split, and what they amount to."""

    def __init__(
        self,
        split: str,
        statistics: statistics_pb2.DatasetFeatureStatistics,
        anomalies: anomalies_pb2.Anomalies,
        schema: schema_pb2.Schema,
        settings: GateSettings,
    ) -> None:
        """Takes what StatisticsGen and ExampleValidator say about the split."""
        self._split = split
        self._total = int(statistics.num_examples)
        self._features = {f.path.step[0] if f.path.step else f.name: f for f in statistics.features}
        self._anomalies = anomalies
        self._schema = schema
        self._settings = settings

    def findings(self) -> list[Finding]:
        """Everything that is wrong."""
        if not self._total:
            return [self._finding("", "no_rows", "has no rows", "0 rows")]
        found = [
            self._from_reason(info.path.step[0] if info.path.step else name, info, reason)
            for name, info in sorted(self._anomalies.anomaly_info.items())
            for reason in info.reason
        ]
        whole = self._anomalies.dataset_anomaly_info
        found += [self._from_reason("", whole, reason) for reason in whole.reason]
        reported = {f.feature for f in found if f.type in _PRESENCE and f.severity == "error"}
        found += self._missing(reported)
        return found + list(self._label_findings())

    def _from_reason(
        self,
        name: str,
        info: anomalies_pb2.AnomalyInfo,
        reason: anomalies_pb2.AnomalyInfo.Reason,
    ) -> Finding:
        kind = anomalies_pb2.AnomalyInfo.Type.Name(reason.type)
        what = reason.description.strip() or reason.short_description
        severe = info.severity == anomalies_pb2.AnomalyInfo.ERROR
        return self._finding(name, kind, what, self._rows(name, kind), severe=severe)

    def _finding(
        self, feature: str, kind: str, what: str, rows: str, *, severe: bool = True
    ) -> Finding:
        stops = severe or self._settings.stop_on == "warning"
        tolerated = kind in self._settings.tolerate
        todo = "Fix the data at its source."
        if kind in _EDITS:
            todo = (
                "Fix the data at its source; or, if this is as it should be, edit "
                f"{self._settings.schema_file}: {_EDITS[kind]}."
            )
        severity: Severity = "error" if stops and not tolerated else "warning"
        return Finding(self._split, feature, kind, severity, what, rows, todo)

    def _missing(self, reported: set[str]) -> Iterator[Finding]:
        for name in self._settings.required:
            missing = self._missing_rows(name)
            if missing and name not in reported:
                what = "is missing, and the feature table says that this is an error"
                yield self._finding(name, "required_value_missing", what, self._of_total(missing))

    def _label_findings(self) -> Iterator[Finding]:
        label = self._features.get(self._settings.label or "")
        if label is None:
            return
        name = label.path.step[0]
        if label.HasField("string_stats"):
            constant = label.string_stats.unique <= 1
        else:
            constant = label.num_stats.min == label.num_stats.max
        if constant and self._split == "train":
            what = "has the same value in every row: there is nothing to learn"
            yield self._finding(name, "constant_label", what, self._of_total(self._total))
        if self._settings.classes is not None and (outside := self._no_class(label)):
            found = self._finding(name, "unknown_class", *outside)
            yield replace(found, todo="Name it in features.label.classes, or fix the data.")

    def _no_class(self, label: statistics_pb2.FeatureNameStatistics) -> tuple[str, str] | None:
        """What values beside the classes there are, and in how many rows, as far as is known."""
        classes = self._settings.classes or []
        if label.HasField("string_stats"):
            values = label.string_stats.rank_histogram.buckets
            others = [b for b in values if b.label not in classes]
            rows = sum(round(b.sample_count) for b in others)
            shown = ", ".join(repr(b.label[:_SHOWN]) for b in others[:_TOLD])
        else:
            low, high = label.num_stats.min, label.num_stats.max
            others = [end for end in (low, high) if not min(classes) <= end <= max(classes)]
            rows, shown = len(others), f"{low:g} to {high:g}"
        if not others:
            return None
        what = f"has values that are none of the classes {_listed(classes)}: {shown}"
        return what, f"at least {self._of_total(rows)}"

    def _rows(self, name: str, kind: str) -> str:
        """How many rows an anomaly is about, as exactly as the statistics tell."""
        feature = self._features.get(name)
        if kind in _PRESENCE:
            return self._of_total(self._missing_rows(name))
        if feature is None:
            return self._of_total(self._total)
        if kind == "ENUM_TYPE_UNEXPECTED_STRING_VALUES":
            return self._unexpected(feature)
        if kind in _RANGES:
            return self._outside(feature, kind)
        if kind in ("SCHEMA_NEW_COLUMN", "UNEXPECTED_DATA_TYPE"):
            return self._of_total(self._total - self._missing_rows(name))
        return f"among {self._total} rows"

    def _of_total(self, rows: int) -> str:
        return f"{rows} of {self._total} rows"

    def _missing_rows(self, name: str) -> int:
        feature = self._features.get(name)
        if feature is None:
            return self._total
        stats = getattr(feature, feature.WhichOneof("stats"))
        return self._total - int(stats.common_stats.num_non_missing)

    def _unexpected(self, feature: statistics_pb2.FeatureNameStatistics) -> str:
        known = _domain_values(self._schema, feature.path.step[0])
        buckets = feature.string_stats.rank_histogram.buckets
        rows = sum(round(b.sample_count) for b in buckets if b.label not in known)
        cut_off = feature.string_stats.unique > len(buckets)
        return ("at least " if cut_off else "") + self._of_total(rows)

    def _outside(self, feature: statistics_pb2.FeatureNameStatistics, kind: str) -> str:
        """Rows beyond a bound: both histograms tell some that must be, and some that may be."""
        domain = next(f for f in self._schema.feature if f.name == feature.path.step[0])
        bounds = domain.int_domain if domain.HasField("int_domain") else domain.float_domain
        sides = [_beyond(h, bounds, below="SMALL" in kind) for h in feature.num_stats.histograms]
        least = max(1, *(round(surely) for surely, _ in sides))
        most = max(least, min(round(maybe) for _, maybe in sides))
        return (
            f"about {least} to {self._of_total(most)}"
            if least < most
            else f"about {self._of_total(most)}"
        )


def _listed(classes: list[str | int | float]) -> str:
    more = ", ..." if len(classes) > _TOLD else ""
    return ", ".join(map(repr, classes[:_TOLD])) + more


def _beyond(
    histogram: statistics_pb2.Histogram,
    bounds: schema_pb2.IntDomain | schema_pb2.FloatDomain,
    *,
    below: bool,
) -> tuple[float, float]:
    """The rows in buckets wholly beyond the bound, and in those beyond it at least in part."""
    surely = maybe = 0.0
    for bucket in histogram.buckets:
        low, high = bucket.low_value, bucket.high_value
        wholly = high < bounds.min if below else low > bounds.max
        partly = low < bounds.min if below else high > bounds.max
        surely += bucket.sample_count * wholly
        maybe += bucket.sample_count * partly
    return surely, maybe


def _domain_values(schema: schema_pb2.Schema, feature: str) -> set[str]:
    (described,) = (f for f in schema.feature if f.name == feature)
    if described.domain:
        return {v for d in schema.string_domain if d.name == described.domain for v in d.value}
    return set(described.string_domain.value)


def stop_message(errors: Iterable[Finding]) -> str:
    """All errors, each with the splits it is in, and what to do."""
    grouped: dict[tuple[str, str, str], list[Finding]] = {}
    for error in errors:
        grouped.setdefault((error.feature, error.type, error.todo), []).append(error)
    lines = [f"The data does not pass the gate: {len(grouped)} error(s)."]
    for (feature, kind, todo), same in grouped.items():
        splits = "; ".join(f"{error.split}: {error.rows}" for error in same)
        lines += [f"- {feature or 'the split'} ({kind}): {same[0].what} [{splits}]", f"  {todo}"]
    return "\n".join(lines)
