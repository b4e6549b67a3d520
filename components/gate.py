"""The gate: stops the run before Transform when the data does not fit the schema.

It tells what ExampleValidator found, in TFDV's words, and checks what the feature table asks for
and a schema cannot say of it: values that must be there, and what the label can be.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import Artifact, artifact_utils
from tfx.types.standard_artifacts import ExampleAnomalies, ExampleStatistics

from components.errors import PipelineStop
from components.settings import Strict

REPORT_FILE = "report.json"
Severity = Literal["error", "warning"]
_SHOWN = 5
"""So many values are shown."""
_PRESENCE = {
    "FEATURE_TYPE_LOW_FRACTION_PRESENT": "lower its presence.min_fraction",
    "FEATURE_TYPE_LOW_NUMBER_PRESENT": "lower its presence.min_count",
    "FEATURE_TYPE_NOT_PRESENT": "remove its presence",
    "SCHEMA_MISSING_COLUMN": "remove its entry, or its presence",
}
_EDITS = {
    **_PRESENCE,
    "INT_TYPE_SMALL_INT": "lower its int_domain.min",
    "INT_TYPE_BIG_INT": "raise its int_domain.max",
    "FLOAT_TYPE_SMALL_FLOAT": "lower its float_domain.min",
    "FLOAT_TYPE_BIG_FLOAT": "raise its float_domain.max",
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
    bridged: list[str] = Field(
        default_factory=list,
        description="Columns that mark rows as bridged, which nothing is tested on.",
    )
    schema_file: str = Field("the schema file", description="What to edit, for the messages.")


class Finding(NamedTuple):
    """One thing that is wrong with a split of so many rows. `feature` is '' for the whole split.

    `type` is TFDV's name, or one of ours in lower case.
    """

    split: str
    rows: int
    feature: str
    type: str
    severity: Severity
    what: str
    todo: str


class GateReport(Artifact):
    """`report.json`: `rows` and `bridged`, {split: count} ({} if none are), and `warnings`."""

    TYPE_NAME = "GateReport"


@component
def Gate(
    statistics: InputArtifact[ExampleStatistics],
    anomalies: InputArtifact[ExampleAnomalies],
    report: OutputArtifact[GateReport],
    settings: Parameter[str],
    code: Parameter[str],
) -> None:
    """Lets data pass that has no errors, and reports its warnings.

    Takes `GateSettings` as JSON, and the fingerprint of this code for the cache.

    Raises:
        PipelineStop: With every error: feature, what is wrong, and what to do.
    """
    del code
    checked = GateSettings.model_validate_json(settings)
    rows, bridged = dict[str, int](), dict[str, int]()
    found: list[Finding] = []
    for split in artifact_utils.decode_split_names(statistics.split_names):
        read = statistics_pb2.DatasetFeatureStatisticsList.FromString(
            _file(statistics, split, "FeatureStats.pb")
        )
        faults = anomalies_pb2.Anomalies.FromString(_file(anomalies, split, "SchemaDiff.pb"))
        rows[split] = int(read.datasets[0].num_examples)
        bridged[split] = sum(_bridged(read.datasets[0], name) for name in checked.bridged)
        found += findings(split, read.datasets[0], faults, checked)
    if errors := [finding for finding in found if finding.severity == "error"]:
        raise PipelineStop(stop_message(errors))
    told = {
        "rows": rows,
        "bridged": bridged if checked.bridged else {},
        "warnings": [finding._asdict() for finding in found],
    }
    Path(report.uri, REPORT_FILE).write_text(json.dumps(told, indent=1))


def _file(artifact: Artifact, split: str, name: str) -> bytes:
    return Path(artifact_utils.get_split_uri([artifact], split), name).read_bytes()


def findings(
    split: str,
    statistics: statistics_pb2.DatasetFeatureStatistics,
    anomalies: anomalies_pb2.Anomalies,
    settings: GateSettings,
) -> list[Finding]:
    """Everything that is wrong with a split, by what StatisticsGen and ExampleValidator say."""
    rows = int(statistics.num_examples)

    def finding(feature: str, kind: str, what: str, todo: str = "", severe: bool = True) -> Finding:
        stops = (severe or settings.stop_on == "warning") and kind not in settings.tolerate
        todo = todo or "Fix the data at its source."
        return Finding(split, rows, feature, kind, "error" if stops else "warning", what, todo)

    if not rows:
        return [finding("", "no_rows", "has no rows")]
    edit = "Fix the data at its source; or, if this is as it should be, edit {}: {}."
    infos = [("", anomalies.dataset_anomaly_info), *sorted(anomalies.anomaly_info.items())]
    found = []
    for name, info, reason in ((name, one, why) for name, one in infos for why in one.reason):
        kind = anomalies_pb2.AnomalyInfo.Type.Name(reason.type)
        what = reason.description.strip() or reason.short_description
        column = info.path.step[0] if info.path.step else name
        todo = edit.format(settings.schema_file, _EDITS[kind]) if kind in _EDITS else ""
        found.append(finding(column, kind, what, todo, info.severity == info.ERROR))
    told = {one.feature for one in found if one.type in _PRESENCE and one.severity == "error"}
    unmet = _unmet(split, statistics, settings)
    return found + [finding(*demand) for demand in unmet if demand[0] not in told]


def _unmet(
    split: str, statistics: statistics_pb2.DatasetFeatureStatistics, settings: GateSettings
) -> Iterator[tuple[str, str, str, str]]:
    """Yields what the feature table asks for and is not so, as `finding` takes it."""
    columns = {f.path.step[0] if f.path.step else f.name: f for f in statistics.features}
    stats = {name: getattr(found, found.WhichOneof("stats")) for name, found in columns.items()}
    total = int(statistics.num_examples)
    for name in settings.required:
        there = stats[name].common_stats.num_non_missing if name in stats else 0
        if there < total:
            what = f"is missing in {total - there} of {total} rows, and the feature table says that"
            yield name, "required_value_missing", f"{what} this is an error", ""
    for name in settings.bridged if split == "test" else ():
        if count := _bridged(statistics, name):
            what = f"marks {count} of {total} rows as bridged, and a model is judged on real values"
            todo = "Keep them out of the test split: data.test_spans, or the query's WHERE."
            yield name, "bridged_row", what, todo
    name = settings.label or ""
    if name not in stats:
        return
    label = stats[name]
    is_text = columns[name].HasField("string_stats")
    # Of texts the frequent ones, of numbers the least and the greatest.
    values = [b.label for b in label.rank_histogram.buckets] if is_text else [label.min, label.max]
    if split == "train" and len({*values}) <= 1:
        what = "has the same value in every row: there is nothing to learn"
        yield name, "constant_label", what, ""
    if not settings.classes:
        return
    low, high = min(settings.classes), max(settings.classes)
    if others := [
        v for v in values if not (v in settings.classes if is_text else low <= v <= high)
    ]:
        listed = _listed(settings.classes)
        what = f"has values that are none of the classes {listed}: {_listed(others)}"
        yield name, "unknown_class", what, "Name it in features.label.classes, or fix the data."


def _bridged(statistics: statistics_pb2.DatasetFeatureStatistics, name: str) -> int:
    """In how many rows a column of numbers is neither 0 nor missing."""
    columns = [f.num_stats for f in statistics.features if f.path.step[:1] == [name]]
    return sum(int(one.common_stats.num_non_missing - one.num_zeros) for one in columns)


def _listed(values: Sequence[Any]) -> str:
    shown = [repr(v[:40]) if isinstance(v, str) else f"{v:g}" for v in values[:_SHOWN]]
    return ", ".join(shown) + (", ..." if len(values) > _SHOWN else "")


def stop_message(errors: Iterable[Finding]) -> str:
    """All errors, each with the splits it is in, and what to do."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for error in errors:
        told = f"{error.what} [{error.split}, {error.rows:,} rows]"
        grouped.setdefault((error.feature, error.type, error.todo), []).append(told)
    lines = [f"The data does not pass the gate: {len(grouped)} error(s)."]
    for (feature, kind, todo), splits in grouped.items():
        lines += [f"- {feature or 'the split'} ({kind}): {'; '.join(splits)}", f"  {todo}"]
    return "\n".join(lines)
