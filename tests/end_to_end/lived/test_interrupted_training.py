"""A run that is asked to stop in the middle of training, or killed anywhere, and started again."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.end_to_end.project import Project, Result

LONG = (
    "--set=training.epochs=300",
    "--set=training.evaluate_every_steps=400",
    "--set=training.checkpoints.every_steps=20",
)
pytestmark = pytest.mark.prove
SEED = int(os.environ.get("KILL_SEED") or random.SystemRandom().randrange(10**6))


@pytest.fixture(scope="module")
def interrupted(lived: tuple[Project, Result]) -> Project:
    """A project whose second run got SIGTERM while it trained."""
    project, _ = lived
    project.restore()
    process = project.start(*LONG)
    _wait_for_a_checkpoint(project, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode == 75, output
    assert "Interrupted. What is finished is kept; the same command goes on." in output
    assert "Traceback" not in output
    return project


def _wait_for_a_checkpoint(project: Project, process: "subprocess.Popen[str]") -> None:
    while not list(project.folder.glob("workspace/checkpoints/*/step-*")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def _steps(project: Project) -> list[int]:
    found = project.folder.glob("workspace/checkpoints/*/step-*")
    return sorted(int(path.name.removeprefix("step-")) for path in found)


def test_interrupted_run_leaves_a_checkpoint_that_is_listed(interrupted: Project) -> None:
    steps = _steps(interrupted)
    assert len(steps) == 2
    listed = interrupted.call("checkpoints").output
    (folder,) = (interrupted.folder / "workspace" / "checkpoints").iterdir()
    assert folder.name in listed
    assert f"{steps[-1]:,}" in listed


def test_other_settings_start_fresh_and_say_why(interrupted: Project) -> None:
    kept = _steps(interrupted)
    result = interrupted.run("--set=training.epochs=2")
    assert result.code in (0, 3), result.output  # blessed or not
    assert "Trainer: starts fresh: the checkpoint of step" in result.output
    assert "training.epochs was 300, is 2" in result.output
    assert _steps(interrupted) == kept


def test_same_command_goes_on_from_the_last_step(interrupted: Project) -> None:
    (last,) = _steps(interrupted)[-1:]
    trainer = interrupted.folder / "workspace" / "pipeline_root" / "small" / "Trainer"
    result = interrupted.run(*LONG)
    assert result.code in (0, 3), result.output
    assert f"Trainer: goes on at step {last:,} of" in result.output
    assert f"; went on at step {last:,}" in result.output
    assert result.outcomes["Transform"] == "cached"
    assert _steps(interrupted) == []
    runs = {path.parent.parent.name for path in trainer.glob("model_run/*/tensorboard/*")}
    assert runs == {path.name for path in trainer.glob("model/*")}


@pytest.mark.timeout(3600)
def test_run_killed_anywhere_files_the_same_version(tmp_path: Path) -> None:
    """SIGKILL at random moments of a whole run, whatever component they hit."""
    print(f"KILL_SEED={SEED}")
    chance = random.Random(SEED)
    settings = ("--set=training.epochs=60", "--set=training.checkpoints.every_steps=5")
    whole = Project(tmp_path / "whole")
    started = time.monotonic()
    assert whole.run(*settings).code == 0
    seconds = time.monotonic() - started
    killed = Project(tmp_path / "killed")
    for _ in range(int(os.environ.get("KILLS") or 6)):
        process = killed.start(*settings)
        try:
            process.wait(chance.uniform(3, seconds))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
    result = killed.run(*settings)
    assert result.code == 0, result.output
    assert killed.versions() == [1]
    manifests = [
        json.loads((p.registry / "1" / "manifest.json").read_text()) for p in (whole, killed)
    ]
    assert manifests[0]["fingerprint"] == manifests[1]["fingerprint"]
    assert manifests[0]["metrics"] == manifests[1]["metrics"]
    left = [str(p) for p in (killed.folder / "workspace").rglob("*") if ".tmp" in p.name]
    assert left == []
