"""What a run's page says, read from the run's artifacts: the same ones on every runtime."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import PipelineStop
from components.evaluation.results import METRICS_FILE, describe, failures
from components.evaluation.slices import OVERALL
from components.evaluation.thresholds import BASELINE, CANDIDATE, GAIN, HEURISTIC, Threshold
from components.gate import REPORT_FILE
from components.ingest.component import COUNTS_FILE
from components.registry import store
from components.registry.lookup import TRAINING_FILE
from components.registry.push import PUSH_FILE
from pipeline.config import Config
from pipeline.page import figures
from pipeline.page.columns import SPLITS, spread
from pipeline.telling import direction


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
    stopping = facts.config.training.early_stopping
    state, headline, details = _verdict(facts, push, evaluation, evaluated["lines"])
    return evaluated | {
        "facts": facts,
        "config": facts.config,
        "state": state,
        "headline": headline,
        "details": details,
        "evaluation": evaluation,
        "training": training,
        "curves": figures.training(training, stopping) if training else {},
        "splits": SPLITS,
        "counts": counts,
        "rows": counts and {**counts.get("spans", {}), "all": counts},
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
        bounds = {words: bound for words, bound, _ in limits if bound is not None}
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


def _limits(evaluation: Any, config: Config, metric: str) -> Iterator[tuple[str, Any, bool]]:
    """Yields the limits on a metric: in words, what bounds slices (or None), whether it held."""
    kind = evaluation["baseline"]["kind"]
    for limit in config.evaluation.thresholds:
        for name in ("at_least", "at_most", f"over_{kind}", "gap"):
            bound, columns = getattr(limit, name), limit.slices
            if limit.metric == metric and bound is not None:
                alone = Threshold(metric=metric, slices=columns, **{name: bound})
                held = not any(failures(evaluation["metrics"], [alone], kind))
                where = f" in slices by {', '.join(columns)}" if columns else ""
                drawn = bound if columns and name in ("at_least", "at_most") else None
                yield f"{name.replace('_', ' ')} {bound:g}{where}", drawn, held


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


def _columns(facts: Facts, training: Any, evaluation: Any) -> Iterator[dict[str, Any]]:
    """Yields what is shown of each column, compared with the data of the champion."""
    folder = facts.outputs.get("StatisticsGen", {}).get("statistics")
    champion = store.read_labels(str(facts.registry)).get(store.CHAMPION)
    if evaluation:  # by now this run's version may be the champion
        champion = evaluation["baseline"]["version"]
    before = facts.registry / f"{champion}/assets.extra/statistics"
    if folder:
        yield from spread(folder, before, facts.config.features, training and training["inputs"])


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
