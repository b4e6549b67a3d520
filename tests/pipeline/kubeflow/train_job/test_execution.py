"""What the step does with its TrainJob, against a stand-in for the cluster's API."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from components.errors import PipelineStop
from pipeline.kubeflow.train_job import execution
from tests.pipeline.kubeflow.train_job import scripted
from tests.pipeline.kubeflow.train_job.fake_cluster import FakeCluster, served
from tests.pipeline.kubeflow.train_job.fake_jobset import FakeJobSet
from tests.pipeline.kubeflow.train_job.scripted import GOOD
from tests.pipeline.kubeflow.train_job.waiting_for import until

_LAUNCHER = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
_FOREVER = "echo started $JOB_COMPLETION_INDEX; exec sleep 600"


pytestmark = pytest.mark.timeout(120)


class Scene:
    """A cluster with the manifests applied, and a step that runs in it."""

    def __init__(self, stack: ExitStack, folder: Path, script: str, **settings: Any):
        self.step, manifests = scripted.step(folder, script, **settings)
        self.folder, self.log = folder, folder / "log"
        self.cluster = FakeCluster(scripted.ROOT)
        self.cluster.apply(manifests)
        self.kube_config = stack.enter_context(served(self.cluster, folder))

    def run(self) -> None:
        """Runs the step in this process."""
        execution.execute(self.step.described, self.step.executor_input())

    def start(self, *under: str) -> "subprocess.Popen[str]":
        """Starts the step as a process."""
        return self.step.start(self.kube_config, self.log, under)

    def jobset(self) -> FakeJobSet:
        """The last one that was made."""
        return self.cluster.sets[self.cluster.made[-1]["metadata"]["name"]]

    def is_tidy(self) -> bool:
        """Whether nothing is left of the TrainJob."""
        return not self.cluster.jobs and not list(self.folder.glob("train-jobs/*"))


Make = Callable[..., Scene]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    with ExitStack() as stack:

        def made(script: str, **settings: Any) -> Scene:
            scene = Scene(stack, tmp_path, script, **settings)
            monkeypatch.setenv("KUBECONFIG", str(scene.kube_config))
            monkeypatch.setenv("KFP_POD_NAME", "the-steps-pod")
            monkeypatch.setenv("KFP_POD_UID", "1234")
            return scene

        yield made


def test_outputs_and_metadata_are_handed_over_and_the_log_is_shown(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = make(f"echo worker $JOB_COMPLETION_INDEX; ls $0/inputs/examples/0; {GOOD}")
    scene.run()
    outputs = scene.step.outputs
    assert (outputs / "model" / "weights").read_text() == "weights\n"
    (model,) = json.loads((outputs / "output_metadata.json").read_text())["artifacts"]["model"][
        "artifacts"
    ]
    assert model == {"name": "model", "uri": str(outputs / "model"), "metadata": {"worth": 2.5}}
    assert capsys.readouterr().out.splitlines() == ["worker 0", "Split-train"]
    until(scene.is_tidy)
    metadata = scene.cluster.made[0]["metadata"]
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "the-steps-pod", "uid": "1234"}
    assert metadata["ownerReferences"] == [owner]
    assert metadata["annotations"] == {"tfx-workflow-template/pipeline": "small"}


def test_what_a_person_must_put_right_ends_it_at_once_with_the_chiefs_words(make: Make) -> None:
    scene = make("echo before; echo 'Trainer failed: no rows in Split-train'; exit 1")
    with pytest.raises(PipelineStop, match=r"^no rows in Split-train \(worker 0 of TrainJob"):
        scene.run()
    assert scene.jobset().restarts == 0
    until(scene.is_tidy)


def test_if_another_worker_knows_the_reason_it_is_heard(make: Make) -> None:
    member = 'echo "no volume here"; exit 2'
    scene = make(f"[ $JOB_COMPLETION_INDEX = 1 ] && {{ {member}; }}; exec sleep 600")
    with pytest.raises(PipelineStop, match=r"^no volume here \(worker 1 of TrainJob"):
        scene.run()


def test_a_lost_worker_starts_all_again_and_the_new_chief_is_heard(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    lose = 'if [ "$(cat $0/n 2>/dev/null)" = "" ]; then sleep 1; echo 1 > $0/n; exit 75; fi'
    chief = f"if [ -e $0/n ]; then echo again; {GOOD} exit 0; fi; echo first; exec sleep 600"
    scene = make(f"if [ $JOB_COMPLETION_INDEX = 0 ]; then {chief}; fi; {lose}")
    scene.run()
    assert scene.jobset().restarts == 1
    assert capsys.readouterr().out.splitlines() == ["first", "again"]


def test_too_many_losses_end_it(make: Make) -> None:
    scene = make("echo lost the others; exit 75", restarts=1)
    with pytest.raises(PipelineStop, match=r"^lost the others .*ReachedMaxRestarts"):
        scene.run()
    assert scene.jobset().restarts == 1
    until(scene.is_tidy)


def test_workers_that_cannot_be_scheduled_are_told_once_and_given_up(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    scene = make("true", start_seconds=2)
    scene.cluster.unschedulable = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    with pytest.raises(PipelineStop, match="did not all start within 2 s") as stop:
        scene.run()
    name = scene.cluster.made[0]["metadata"]["name"]
    for worker in (0, 1):
        assert f"{name}-node-0-{worker}-" in str(stop.value)
    assert str(stop.value).count("Unschedulable: 0/3 nodes are available") == 2
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1, warnings
    assert "3 Insufficient nvidia.com/gpu" in warnings[0]
    until(scene.is_tidy)


@pytest.mark.parametrize("number", range(3))
def test_a_right_that_is_missing_is_named_with_the_file_to_apply(make: Make, number: int) -> None:
    scene = make("exec sleep 600")
    missing = scene.cluster.rules.pop(number)["resources"][0]
    with pytest.raises(PipelineStop) as stop:
        scene.run()
    assert f"{missing} is forbidden: User" in str(stop.value)
    assert "kubectl apply -n steps -f build/small.cluster.yaml" in str(stop.value)
    assert list(scene.folder.glob("train-jobs/*")) == []


def test_a_workspace_that_cannot_be_written_is_named(make: Make) -> None:
    scene = make("true")
    (scene.folder / "train-jobs").touch()
    with pytest.raises(PipelineStop, match="inputs for the workers cannot be copied to the work"):
        scene.run()
    assert scene.cluster.made == []


def test_a_log_that_may_not_be_read_is_named_and_nothing_else_fails(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = make(f"echo unheard; {GOOD}")
    assert scene.cluster.rules.pop()["resources"] == ["pods/log"]
    scene.run()
    (line,) = capsys.readouterr().out.splitlines()
    assert "is not shown. The step's service account may not do this: pods/log is forbidden" in line
    assert (scene.step.outputs / "model" / "weights").exists()


def test_without_kubeflow_trainer_it_says_so(make: Make) -> None:
    scene = make("true")
    scene.cluster.has_trainer = False
    with pytest.raises(PipelineStop, match=r"^The cluster has no Kubeflow Trainer v2"):
        scene.run()


def test_without_the_runtime_it_says_what_to_apply(make: Make) -> None:
    scene = make("true")
    scene.cluster.runtimes.clear()
    with pytest.raises(PipelineStop, match=r"no TrainingRuntime 'tensorflow'. Run: kubectl apply"):
        scene.run()
    assert scene.cluster.made == []


def test_another_runtime_of_the_same_name_is_not_used(make: Make) -> None:
    scene = make("true")
    scene.cluster.runtimes["tensorflow"]["metadata"]["annotations"].clear()
    with pytest.raises(PipelineStop, match="'tensorflow' was made with other settings"):
        scene.run()
    assert scene.cluster.made == []


def test_outside_a_cluster_it_says_so(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make("true")
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(PipelineStop, match="it runs in a cluster only, or with KUBECONFIG"):
        scene.run()


def test_a_trainjob_that_someone_deletes_is_missed(make: Make) -> None:
    scene = make(_FOREVER)

    def delete() -> None:
        until(lambda: scene.cluster.made)
        scene.cluster.delete(scene.cluster.made[0]["metadata"]["name"])

    threading.Thread(target=delete).start()
    with pytest.raises(PipelineStop, match="was deleted while it was waited for"):
        scene.run()


def test_an_outage_of_the_api_is_survived(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """The log breaks off in the middle; line 2 is said meanwhile."""
    wait = "while [ ! -e $0/{0} ]; do sleep 0.05; done"
    scene = make(f"echo 1; {wait.format('down')}; echo 2; {wait.format('up')}; echo 3; {GOOD}")

    def break_and_mend() -> None:
        until(lambda: scene.cluster.made and "1" in scene.jobset().said())
        (folder,) = scene.folder.glob("train-jobs/*")
        scene.cluster.is_down = True
        (folder / "down").touch()
        until(lambda: scene.cluster.refused > 3)
        scene.cluster.is_down = False
        (folder / "up").touch()

    threading.Thread(target=break_and_mend).start()
    scene.run()
    assert capsys.readouterr().out.splitlines() == ["1", "2", "3"]


def test_a_trainjob_whose_creation_was_not_answered_is_used(make: Make) -> None:
    scene = make(GOOD)
    scene.cluster.loses_an_answer = True
    scene.run()
    assert not scene.cluster.loses_an_answer
    assert len(scene.cluster.made) == 1


def test_sigterm_to_the_step_deletes_the_trainjob(make: Make) -> None:
    scene = make(_FOREVER)
    process = scene.start()
    until(lambda: "started 0" in _text(scene.log))
    pods = scene.jobset().pods
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 75
    last = _text(scene.log).splitlines()[-1]
    assert last.startswith("Trainer failed: ended by SIGTERM")
    until(scene.is_tidy)
    assert all(pod.code is not None for pod in pods)


def test_when_the_launcher_is_killed_the_trainjob_is_deleted(make: Make) -> None:
    scene = make(_FOREVER)
    launcher = scene.start(sys.executable, "-c", _LAUNCHER)
    until(lambda: "started 0" in _text(scene.log))
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    until(scene.is_tidy)
    until(lambda: "Trainer failed: ended by SIGTERM" in _text(scene.log))


def test_a_retried_step_replaces_what_the_lost_one_left(make: Make) -> None:
    wait_once = "if ! mkdir $0/../../once 2>/dev/null; then exit 0; fi; exec sleep 600"
    chief = f"if [ -e $0/../../retried ]; then {GOOD} exit 0; fi; {_FOREVER}"
    scene = make(f"if [ $JOB_COMPLETION_INDEX = 0 ]; then {chief}; fi; {wait_once}")
    process = scene.start()
    until(lambda: "started 0" in _text(scene.log))
    process.kill()
    process.wait()
    (left,) = scene.folder.glob("train-jobs/*")
    (left / "leftover").touch()
    first = scene.jobset()
    (scene.folder / "retried").touch()
    scene.run()
    assert all(pod.code is not None for pod in first.all_pods)
    assert len({job["metadata"]["name"] for job in scene.cluster.made}) == 1
    assert len(scene.cluster.made) == 2
    assert (scene.step.outputs / "model" / "weights").exists()
    until(scene.is_tidy)


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""
