"""The compiled package, walked as the backend would, ends where `make run-local` does."""

import subprocess
import sys

import pytest

from pipeline import loading
from tests.kubeflow import walking
from tests.kubeflow.imitation.container import unavailable
from tests.kubeflow.imitation.run import Backend

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(bool(unavailable()), reason=str(unavailable())),
]

SAME = ("fingerprint", "metrics", "rows_by_slice", "schema_hash", "signature", "hyperparameters")


def test_a_first_run_files_the_model_that_a_local_run_files(tmp_path):
    backend = Backend(tmp_path / "cluster", environment=walking.image_environment())
    workspace = backend.make_claim("workspace")
    run = backend.submit(walking.write_package(tmp_path), {"data_fingerprint": "1"})
    assert walking.states(run) == dict.fromkeys(walking.STEPS, "SUCCEEDED"), run.log()

    local = tmp_path / "local"
    command = [sys.executable, "-m", "pipeline", "run", "-c", "automated"]
    done = subprocess.run(
        [*command, "--set", f"workspace={local}"], cwd=loading.PROJECT, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    here, there = (folder / "registry" / "taxi" for folder in (local, workspace))
    assert walking.versions(there) == [1]
    assert walking.labels(there) == walking.labels(here) == {"champion": 1}
    ours, theirs = walking.manifest(there, 1), walking.manifest(here, 1)
    assert {key: ours[key] for key in SAME} == {key: theirs[key] for key in SAME}
    assert ours["baseline"]["kind"] == "heuristic"
    assert ours["run_id"] == run.id
    metrics = run.tasks["evaluator"].outputs["evaluation"].metadata
    assert metrics["auc"] == ours["metrics"]["candidate"]["overall"]["auc"]
    examples = walking.output(backend, run, "example-gen", "examples")
    assert (examples / "counts.json").is_file()
