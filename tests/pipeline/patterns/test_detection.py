"""Each switch of the catalogue is a configuration, and turns its pattern on."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from pipeline.config import Config
from pipeline.patterns import catalogue
from pipeline.patterns.catalogue import Pattern
from pipeline.patterns.detection import reasons
from pipeline.patterns.parts import present
from tests.pipeline.patterns import plain

PATTERNS = list(catalogue.read().patterns())
SWITCHES = [
    pytest.param(pattern, snippet, id=f"{pattern.name}-{part}" if part else pattern.name)
    for pattern in PATTERNS
    for part, snippet in pattern.snippets
    if part is None or part in present()
]


@pytest.mark.parametrize(("pattern", "snippet"), SWITCHES)
def test_a_switch_turns_its_pattern_on(pattern: Pattern, snippet: str, tmp_path: Path) -> None:
    without = reasons(pattern.number, plain.config(tmp_path))
    with_it = reasons(pattern.number, plain.config(tmp_path, snippet))
    assert with_it
    assert with_it != without
    assert pattern.switch is not None
    if pattern.switch.always is None:
        assert without == []


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
def test_what_can_be_switched_on_fits_into_a_line(pattern: Pattern) -> None:
    if pattern.switch is not None and pattern.switch.settings is not None:
        assert len(yaml.safe_load(pattern.switch.settings)) == 1


WHY = [
    (1, "features: {columns: {a: {kind: hashed, buckets: 7, missing: own}}}", "a (7 buckets)"),
    (2, "features: {crosses: {x: {of: [method, hour], buckets: 9, embed: 3}}}", "embed: x (3)"),
    (3, "features: {crosses: {x: {of: [method, hour], buckets: 9}}}", "x (method and hour)"),
    (12, "training: {checkpoints: {every_seconds: null}}", "only when interrupted"),
    (12, "training: {checkpoints: {every_seconds: null, every_steps: 9}}", ": every 9 steps; "),
    (13, "training: {warm_start: {version: 3}}", "layers * of version 3"),
    (14, "training: {strategy: mirrored}", "training.strategy: mirrored"),
    (14, "training: {strategy: auto}", "all GPUs, where there are several"),
    (21, "name: small", "features: 5 features, 0 crosses"),
    (22, "data: {split: {by: time, time: when}}", "by time (when), 0.6 train"),
    (27, "registry: {promote: manual}", "registry: small, promotion is manual"),
    (28, "name: small", "evaluation.heuristic: method == 'card'"),
    (30, "features: {slices: [[method, hour]]}", "features.slices: method and hour"),
]


@pytest.mark.parametrize(("number", "snippet", "expected"), WHY)
def test_a_reason_says_which_setting_and_its_value(
    number: int, snippet: str, expected: str, tmp_path: Path
) -> None:
    assert expected in "\n".join(reasons(number, plain.config(tmp_path, snippet)))


def test_a_fork_without_the_parts_settings_is_looked_at_as_well(tmp_path: Path) -> None:
    whole = plain.config(tmp_path, "features: {slices: [[method]]}")
    of_parts = {"tuning", "continued_evaluation", "serving", "prediction_log"}
    core = {name: getattr(whole, name) for name in Config.model_fields if name not in of_parts}
    for pattern in PATTERNS:
        found = reasons(pattern.number, SimpleNamespace(**core))  # type: ignore[arg-type]
        assert found == reasons(pattern.number, whole)
