"""What a run's page says, read from the run's artifacts: the same ones on every runtime."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.distance import jensenshannon
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.errors import PipelineStop
from components.evaluation.results import METRICS_FILE, describe
from components.evaluation.slices import OVERALL
from components.evaluation.thresholds import BASELINE, CANDIDATE, GAIN, HEURISTIC
from components.features.table import FeatureTable
from components.gate import REPORT_FILE
from components.ingest.component import COUNTS_FILE
from components.registry import store
from components.registry.lookup import TRAINING_FILE
from components.registry.push import PUSH_FILE
from pipeline.config import Config
from pipeline.page import figures
from pipeline.telling import direction

SPLITS = ("train", "eval", "test")
_BINS, _VALUES, _SHOWN = 24, 12, 4
Column = tuple[Any, int]
"""TFDV's statistics of a column, and the number of rows."""


@dataclass
class Facts:
    """A run: its artifacts, and what is known of it beside them.

    `outputs` has folders by component and output, of a run that failed those that there are;
    `registry` is the model's folder there; `examples` are the properties of the examples' artifact;
    `provenance` is what the registry records of code and configuration; `steps` are components with
    outcomes and seconds; `changes` are settings that differ from the base configuration, with the
    base's value and the run's; `failure` is why the last component failed, and what to do.
    """

    run_id: str
    config: Config
    outputs: Mapping[str, Mapping[str, str]]
    registry: Path
    examples: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    steps: Sequence[tuple[str, str, float]] = ()
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    failure: str = ""
    log: str = ""

    def read(self, component: str, output: str, file: str) -> Any:
        """A JSON file of an output; None if the run did not come so far."""
        folder = self.outputs.get(component, {}).get(output)
        return folder and json.loads(Path(folder, file).read_text(encoding="utf-8"))


def properties(artifact: Any) -> dict[str, Any]:
    """The properties of an artifact, as ML Metadata has it."""
    found = [*artifact.properties.items(), *artifact.custom_properties.items()]
    return {name: getattr(value, value.WhichOneof("value")) for name, value in found}


def gather(facts: Facts) -> dict[str, Any]:
    """What the template `run.html.j2` shows."""
    counts = facts.read("ExampleGen", "examples", COUNTS_FILE)
    evaluation = facts.read("Evaluator", "evaluation", METRICS_FILE)
    training = facts.read("Trainer", "model", TRAINING_FILE)
    push = facts.read("RegistryPush", "pushed", PUSH_FILE) or {"version": None}
    evaluated = _evaluated(evaluation, facts.config) if evaluation else {"lines": []}
    state, headline, details = _verdict(facts, push, evaluation, evaluated["lines"])
    return evaluated | {
        "facts": facts,
        "config": facts.config,
        "state": state,
        "headline": headline,
        "details": details,
        "evaluation": evaluation,
        "training": training,
        "curves": _training(training, facts.config.training.early_stopping) if training else {},
        "splits": SPLITS,
        "counts": counts,
        "total": counts and sum(counts.get(split, 0) for split in SPLITS),
        "spans": ", ".join(map(str, json.loads(facts.examples.get("spans") or "[]"))),
        "gate": facts.read("Gate", "report", REPORT_FILE),
        "columns": list(_columns(facts, training, evaluation)),
        "version": push["version"],
        "ancestors": list(_ancestors(facts.registry, push["version"])),
    }


def _evaluated(evaluation: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The metrics over all rows, those with a limit first, and the figures."""
    version, table = evaluation["baseline"]["version"], config.features
    titles = {CANDIDATE: "this model", BASELINE: f"champion (v{version})", HEURISTIC: "heuristic"}
    names = {model: titles[model] for model in titles if model in evaluation["metrics"]}
    lines, dots = [], dict[str, Any]()
    for metric in evaluation["metrics"][CANDIDATE][OVERALL]:
        limits = list(_limits(evaluation, config, metric))
        values = {model: by[OVERALL][metric] for model, by in evaluation["intervals"].items()}
        lines.append((metric, values, limits))
        bounds = {words: bound for words, bound, _ in limits if "slices" in words}
        drawn = figures.slices(evaluation, metric, direction(metric) or 1, bounds, names)
        is_judged = bool(limits) or not config.evaluation.thresholds
        dots |= {metric: drawn} if drawn and is_judged else {}
    curves, is_multiclass = evaluation["curves"], table.problem == "multiclass"
    draw = figures.numbers if table.problem == "regression" else figures.probabilities
    return {
        "names": names,
        "lines": sorted(lines, key=lambda line: not line[2]),
        "rival": titles[BASELINE] if version else "the heuristic",
        "dots": dots,
        "predictions": {} if is_multiclass else draw(curves, names),
        "confusion": _confusion(curves[CANDIDATE], table.num_classes()) if is_multiclass else None,
    }


def _limits(evaluation: Any, config: Config, metric: str) -> Iterator[tuple[str, float, bool]]:
    """Yields the limits on a metric: in words, its value, and whether it held."""
    failed = {(f["metric"], f["kind"], f["slice"] != OVERALL) for f in evaluation["failures"]}
    for limit in config.evaluation.thresholds:
        for kind in ("at_least", "at_most", f"over_{evaluation['baseline']['kind']}"):
            bound, by = getattr(limit, kind), bool(limit.slices)
            if limit.metric == metric and bound is not None:
                where = f" in slices by {', '.join(limit.slices or [])}" if by else ""
                words = f"{kind.replace('_', ' ')} {bound:g}{where}"
                yield words, bound, (metric, kind, by) not in failed


def _confusion(pairs: Sequence[Sequence[int]], classes: int) -> list[list[tuple[int, float]]]:
    """Rows by class and predicted class, and their shares of the class."""
    counts: np.ndarray = np.zeros((classes, classes), int)
    for truth, guess, rows in pairs:
        counts[truth, guess] += rows
    return [[(n, n / max(sum(row), 1)) for n in row] for row in counts.tolist()]


def _verdict(
    facts: Facts, push: Mapping[str, Any], evaluation: Any, lines: Sequence[Any]
) -> tuple[str, str, list[str]]:
    """The run's state in a word, the verdict in a sentence, and what there is to add."""
    if facts.failure:
        failed = next((name for name, outcome, _ in facts.steps if outcome == "failed"), "A step")
        state, headline = "failed", f"{failed} failed."
        if failed == "Gate":
            state, headline = "refused", "The gate refused the data."
        return state, headline, ["No version was filed."]
    details, version = [_compared(lines[0], evaluation)], f"Version {push['version']}"
    if push["version"] is None:
        reasons = [f"Not held: {describe(one)}." for one in evaluation["failures"]]
        return "not blessed", "Not blessed: no version was filed.", details + reasons
    if not push["pushed"]:
        return "filed before", f"This model is {version.lower()} already.", details
    if push["promoted"]:
        return "promoted", f"{version} is blessed, and the champion now.", details
    return "candidate", f"{version} is blessed, and waits as candidate.", details


def _compared(line: Sequence[Any], evaluation: Any) -> str:
    """How good the model is, and by how much it is better than what it was judged against."""
    metric, values, _ = line
    version = evaluation["baseline"]["version"]
    rival = f"the champion, version {version}" if version else "the heuristic"
    value, (gain, low, high) = values[CANDIDATE][0], values[GAIN]
    rows = f"On {evaluation['rows'][OVERALL]:,} test rows, {metric}"
    if None in (value, gain, low, high):
        return f"{rows} cannot be compared with {rival}."
    better = "better" if gain * (direction(metric) or 1) >= 0 else "worse"
    doubt = " With so few rows it may be chance." if low < 0 < high else ""
    interval = f"95 % interval of the difference {low:+.4f} to {high:+.4f}"
    return f"{rows} is {value:.4f}: {abs(gain):.4f} {better} than {rival} ({interval}).{doubt}"


def _training(record: Mapping[str, Any], stopping: Any) -> dict[str, figures.Figure]:
    """Curves of the loss, and of the metric that chooses the best step or else another one."""
    evaluations, best = record["evaluations"], None
    names = [n for n in evaluations[0] if n not in ("step", "train_loss", "examples_per_second")]
    if stopping:
        sign = -1 if stopping.metric in ("auc", "accuracy") else 1
        best = min(evaluations, key=lambda one: sign * one[stopping.metric])["step"]
        names.sort(key=lambda name: (name != "loss", name != stopping.metric))
    return {name: figures.training(record, name, best) for name in names[:2]}


def _columns(facts: Facts, training: Any, evaluation: Any) -> Iterator[dict[str, Any]]:
    """Yields the label's column and each feature's: how it is spread, what is made of it."""
    folder = facts.outputs.get("StatisticsGen", {}).get("statistics")
    if not folder:
        return
    champion = store.read_labels(str(facts.registry)).get(store.CHAMPION)
    if evaluation:  # by now this run's version may be the champion
        champion = evaluation["baseline"]["version"]
    folders = [Path(folder, f"Split-{split}") for split in SPLITS]
    folders.append(facts.registry / f"{champion}/assets.extra/statistics")
    found = [_statistics(folder) for folder in folders]
    for name, features in _features(facts.config.features, training).items():
        every = [statistics.get(name) for statistics in found]
        draw = _numbers if every[0] and every[0][0].HasField("num_stats") else _texts
        labels, shares, ends = draw(every)
        yield {
            "name": name,
            "features": features,
            "ends": ends,
            "bars": list(zip(labels, zip(*shares[:-1], strict=True), strict=True)),
            "top": max((share for own in shares[:-1] for share in own), default=0) or 1,
            "missing": [1 - _known(one) / one[1] if one else 1 for one in every[:-1]],
            "drift": jensenshannon(shares[0], shares[-1], 2) ** 2 if every[-1] else None,
        }


def _features(table: FeatureTable, training: Any) -> dict[str, list[tuple[str, str]]]:
    """The features of each column, and how they are made."""
    sizes = {one["name"]: one for one in training["inputs"]["features"]} if training else {}
    made: dict[str, list[tuple[str, str]]] = {table.label.column: [("label", table.problem)]}
    for name, feature in table.columns.items():
        settings = feature.model_dump(exclude_defaults=True, exclude={"column", "kind", "embed"})
        listed = ", ".join(f"{setting} {value}" for setting, value in settings.items())
        size, embed = (sizes.get(name, {}).get(key) for key in ("size", "embed"))
        becomes = f" → one of {size}" if size else " → a number" if name in sizes else ""
        becomes += f", embedded in {embed} numbers" if embed else ""
        text = f"{feature.kind} ({listed}){becomes}"
        made.setdefault(table.column_of(name), []).append((name, text))
    return made


def _statistics(folder: Path) -> dict[str, Column]:
    path = folder / "FeatureStats.pb"
    if not path.is_file():
        return {}
    (found,) = statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes()).datasets
    return {one.path.step[0]: (one, found.num_examples) for one in found.features}


def _known(column: Column) -> int:
    """How many rows have a value."""
    return int(getattr(column[0], column[0].WhichOneof("stats")).common_stats.num_non_missing)


def _texts(every: Sequence[Column | None]) -> Any:
    """The training rows' most frequent values, their shares by split, and some of them."""
    counts = [
        {b.label: b.sample_count for b in one[0].string_stats.rank_histogram.buckets} if one else {}
        for one in every
    ]
    labels = [*counts[0]][:_VALUES]
    rows = [[*map(own.get, labels, [0] * len(labels)), 0] for own in counts]
    totals = [sum(own.values()) for own in counts]
    shares = [
        [n / (total or 1) for n in [*row[:-1], total - sum(row)]]
        for row, total in zip(rows, totals, strict=True)
    ]
    more = ", …" if len(labels) > _SHOWN else ""
    return [*labels, "all others"], shares, ", ".join(labels[:_SHOWN]) + more


def _numbers(every: Sequence[Column | None]) -> Any:
    """Intervals over 99 % of the training values, the outermost with the rest; shares by split."""
    curves = [_cumulated(one) if one and _known(one) else None for one in every]
    values, below = curves[0] or (np.zeros(2), np.array([0, 1]))
    low = values[np.searchsorted(below, 0.005, "right") - 1]
    high = values[np.searchsorted(below, 0.995)]
    cuts, shares = np.linspace(low, high, _BINS + 1), []
    for curve in curves:
        inner = np.interp(cuts[1:-1], *curve) if curve else np.zeros(_BINS - 1)
        shares.append(np.diff([0, *inner, float(curve is not None)]).tolist())
    labels = [f"{a:.4g} to {b:.4g}" for a, b in pairwise(cuts)]
    return labels, shares, f"{low:.5g} to {high:.5g}"


def _cumulated(column: Column) -> tuple[np.ndarray, np.ndarray]:
    """Ascending values, and which share of all lies below each."""
    buckets = column[0].num_stats.histograms[0].buckets  # the one of equal widths
    counts = np.cumsum([0, *(bucket.sample_count for bucket in buckets)])
    return np.array([buckets[0].low_value, *(b.high_value for b in buckets)]), counts / counts[-1]


def versions(registry: Path) -> list[dict[str, Any]]:
    """What is known of each version, newest first; damaged ones are left out."""
    labels, found = store.read_labels(str(registry)), []
    for number in reversed(store.list_versions(str(registry))):
        try:
            manifest = store.read_manifest(str(registry), number)
        except PipelineStop:
            continue
        metrics = manifest.get("metrics", {}).get(CANDIDATE, {}).get(OVERALL, {})
        one = {
            "number": number,
            "labels": [label for label, version in labels.items() if version == number],
            "filed": str(manifest.get("time", ""))[:16].replace("T", " "),
            "against": manifest.get("baseline", {}).get("version"),
            "metrics": {n: f"{v:.4f}" for n, v in metrics.items() if v is not None},
            "parent": manifest.get("parent"),
        }
        found.append(one)
    return found


def _ancestors(registry: Path, version: int | None) -> Iterator[dict[str, Any]]:
    """Yields a version, the champion when it was filed, that one's, and so on."""
    known = {one["number"]: one for one in versions(registry)}
    while version in known:
        one = known.pop(version)
        yield one
        version = one["parent"]
