"""Whether the configured training could run on a TPU, as far as a CPU can tell.

`python -m pipeline check-tpu` takes the steps of the training loop as they are, on random rows of
the shapes that the settings give, and checks `RULES`. It is a proxy: nothing here has run on a TPU.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from components.features.table import FeatureTable
from components.tpu.compiled_rules import compiled_findings
from components.tpu.findings import RULES, Finding, Step
from components.tpu.graph_rules import graph_findings
from components.tpu.stand_in import stand_in_batch, stand_in_inputs, stand_in_training
from components.trainer.core.batches import Batch
from components.trainer.core.loop import Training

_BATCHES = 5
_OF_THE_GRAPH = ("shapes", "operations")
"""The rules that must hold for the others to be tried."""


def main(table: FeatureTable, settings: dict[str, Any], write: Callable[[str], None]) -> int:
    """Checks the settings' training, and writes what came of it.

    Args:
      table: the feature table.
      settings: `model` and `training` as in `configs/*.yaml`.
      write: takes the text.

    Returns:
      The exit code: 1 if a rule is broken.
    """
    inputs = stand_in_inputs(table)
    findings = check(stand_in_training(inputs, settings), inputs)
    write(report(findings))
    return 1 if findings else 0


def check(training: Training, inputs: dict[str, Any]) -> list[Finding]:
    """Says what in a training breaks a rule; nothing if it is ready. It is left as it was."""
    steps = _steps(training, inputs)
    findings = [finding for step in steps for finding in graph_findings(step)]
    for step in steps:  # what is wrong in one is as a rule wrong in the other
        findings = findings or compiled_findings(step)
    unique = {(finding.rule, finding.where): finding for finding in reversed(findings)}
    return list(reversed(unique.values()))


def _steps(training: Training, inputs: dict[str, Any]) -> list[Step]:
    def train(batch: Batch) -> tf.Tensor:
        return training.train_step(batch, tf.reduce_sum(batch.weights))

    size = training.feed.batch
    # Each has other ids than the last one: some things show with another range of values only.
    batches = [
        stand_in_batch(inputs, size, seed, (seed + 1) / _BATCHES) for seed in range(_BATCHES)
    ]
    model, metrics = training.model, training.metrics.values()
    changed = [v for variables in training.variables.values() for v in variables]
    counted = [variable.value for metric in metrics for variable in metric.variables]
    return [
        Step("training", train, changed, batches, model),
        Step("evaluation", training.evaluate_step, counted, batches, model),
    ]


def report(findings: list[Finding]) -> str:
    """A line for each rule, and one for each thing that breaks it."""
    lines = []
    compiled = not any(finding.rule in _OF_THE_GRAPH for finding in findings)
    for rule, meaning in RULES.items():
        broken = [finding for finding in findings if finding.rule == rule]
        tried = compiled or rule in _OF_THE_GRAPH
        outcome = "FAILED" if broken else "passed" if tried else "not tried"
        lines.append(f"{rule:<14} {outcome:<10} {meaning}")
        lines += [f"  {finding.where}: {finding.problem}" for finding in broken]
    return "\n".join([*lines, "", _CONCLUSION[bool(findings)], _CAVEAT])


_CONCLUSION = {
    True: "As it is, this cannot train on a TPU, or only slowly.",
    False: "Nothing found that speaks against training.strategy=tpu.",
}
_CAVEAT = (
    "This is a proxy: XLA compiled for this machine's CPU and ran on random rows. Not verified on "
    "hardware."
)
