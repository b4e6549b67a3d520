"""`python -m pipeline patterns`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import loading
from pipeline.patterns import catalogue
from pipeline.patterns.listing import find, one_line
from pipeline.patterns.parts import present
from tests.pipeline.patterns import plain

PATTERNS = {pattern.name: pattern for pattern in catalogue.read().patterns()}


def _patterns(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pipeline", "patterns", *arguments]
    return subprocess.run(command, cwd=loading.PROJECT, capture_output=True, text=True)


def test_json_has_all_thirty() -> None:
    done = _patterns("--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [each["number"] for each in found] == list(range(1, 31))
    for each in found:
        assert bool(each["why"]) is (each["state"] == "used")
        assert bool(each["home"]) is (each["state"] == "not built") is (each["built"] == "no")
        assert bool(each["switch"]) or each["state"] not in ("off", "command")


def test_a_setting_of_the_command_line_is_seen() -> None:
    done = _patterns("--set", "training.warm_start={version: 3}")
    assert done.returncode == 0, done.stderr
    assert "training.warm_start: layers * of version 3" in done.stdout


def test_by_default_what_is_not_built_is_one_sentence_and_with_all_each_has_a_row() -> None:
    short, whole = _patterns().stdout, _patterns("--all").stdout
    assert "Not built: " in short
    assert "where it will live" not in short
    for pattern in PATTERNS.values():
        assert pattern.name in whole
    absent = [pattern for pattern in PATTERNS.values() if pattern.built == "no"]
    assert whole.count("where it will live") == len(absent)


def test_mistakes_end_with_2_and_no_traceback() -> None:
    done = _patterns("--set", "training.epoch=3")
    assert done.returncode == 2
    assert "did you mean 'epochs'?" in done.stderr


STATES = [
    ("Repeatable Splitting", "name: small", "used"),
    ("Useful Overfitting", "name: small", "used"),
    ("Hashed Feature", "name: small", "off"),
    ("Distribution Strategy", "name: small", "off"),
    ("Distribution Strategy", "training: {strategy: mirrored}", "used"),
    ("Batch Serving", "name: small", "command"),
    ("Ensembles", "name: small", "not built"),
]


@pytest.mark.parametrize(("name", "snippet", "state"), STATES)
def test_a_configuration_uses_a_pattern_or_not(
    name: str, snippet: str, state: str, tmp_path: Path
) -> None:
    parts = present() | {"batch_prediction"}
    found = find(PATTERNS[name], plain.config(tmp_path, snippet), parts)
    assert found.state == state
    assert bool(found.why) is (state == "used")


def test_a_pattern_whose_part_is_gone_is_removed(tmp_path: Path) -> None:
    config = plain.config(tmp_path)
    found = find(PATTERNS["Batch Serving"], config, present() - {"batch_prediction"})
    assert (found.state, found.why, found.switch) == ("removed", [], None)


def test_a_part_is_there_if_its_package_is(tmp_path: Path) -> None:
    for package in ("components/tpu", "pipeline/kubeflow"):
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "components" / "serving" / "__pycache__").mkdir(parents=True)
    assert present(tmp_path) == {"tpu", "kubeflow"}


def test_what_turns_a_pattern_on_is_a_line_that_can_be_pasted(tmp_path: Path) -> None:
    switch = PATTERNS["Hashed Feature"].switch
    assert switch is not None and switch.settings is not None
    line = one_line(switch.settings)
    assert "\n" not in line
    assert "shop" in plain.config(tmp_path, line).features.columns
