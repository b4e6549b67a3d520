"""The package's steps in containers of this machine: kfp.local, and the API of a Docker engine."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from kfp import local
from kfp.local import docker_task_handler, status
from rich.console import Console

from components.errors import PipelineStop
from pipeline import loading
from pipeline.kubeflow import compiling, engine, local_containers
from tests import small
from tests.end_to_end.project import Project
from tests.kubeflow import walking
from tests.kubeflow.imitation.container import Image, unavailable
from tests.pipeline.kubeflow.docker_engine import Engine

needs_namespaces = pytest.mark.skipif(bool(unavailable()), reason=str(unavailable()))

NAME = "tfx-workflow-template:latest"
COMPONENTS = [
    *("CuratedSchema", "ExampleGen", "StatisticsGen", "ExampleValidator", "Gate", "Transform"),
    *("Trainer", "BaselineLookup", "Evaluator", "RegistryPush"),
]


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts an engine whose containers see a project as their image."""
    with ExitStack() as stack:

        def started(project: Path = loading.PROJECT, **options) -> Engine:
            variables = walking.image_environment() | {"PYTHONPATH": str(project)}
            options.setdefault("names", {NAME: [NAME]})
            made = Engine(tmp_path / "engine", Image(project, variables), **options)
            monkeypatch.setenv("DOCKER_HOST", stack.enter_context(made.serving()))
            return made

        yield started


def run(workspace: Path, *overrides: str) -> tuple[int, str]:
    """Runs the taxi's pipeline: the exit code, and what a person sees."""
    told = io.StringIO()
    console = Console(file=told, soft_wrap=True, highlight=False)
    settings = [f"workspace={workspace}", *overrides]
    with engine.connected() as client:
        code = local_containers.main("development", settings, None, client, console)
    return code, told.getvalue()


def command(*arguments: str, folder: Path = loading.PROJECT) -> "subprocess.Popen[str]":
    """The command, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "run-kubeflow-local", *arguments],
        cwd=folder,
        env=os.environ if folder == loading.PROJECT else small.environment_of_a_copy(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PATH": "/nowhere"}, "There is no container engine here, neither docker nor podman"),
        ({"DOCKER_HOST": "tcp://127.0.0.1:9"}, "at tcp://127.0.0.1:9 (Connection refused): start"),
        ({"DOCKER_HOST": "nonsense"}, "at nonsense (Invalid bind address format"),
    ],
)
def test_without_an_engine_one_sentence_says_so(monkeypatch, tmp_path, variables, message):
    monkeypatch.setenv("HOME", str(tmp_path))  # no context of Docker's
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    process = command()
    told, _ = process.communicate()
    assert process.returncode == 2
    assert message in told
    assert len(told.strip().splitlines()) == 1


def test_an_image_that_is_not_there_is_not_pulled(start, tmp_path):
    found = start(names={})
    with pytest.raises(PipelineStop, match=f"no image {NAME}: build it with `make image`"):
        run(tmp_path / "workspace")
    assert not found.pulled
    assert not (tmp_path / "workspace").exists()


def test_an_image_may_have_a_longer_name_and_the_engine_no_root(start):
    start(names={NAME: [f"localhost/{NAME}"]}, options=["name=seccomp", "name=rootless"])
    with engine.connected() as client:
        assert engine.names_of_images(client, [NAME]) == {NAME: f"localhost/{NAME}"}
        assert engine.caller(client) == "0:0"


def test_data_on_a_volume_needs_a_folder(start, tmp_path, monkeypatch):
    found = start()
    on_volume = walking.settings(
        steps={"ExampleGen": {"volumes": [{"claim": "data", "path": "/mnt/data"}]}}
    )
    monkeypatch.setattr(compiling, "load_target", lambda *_: on_volume)
    with pytest.raises(PipelineStop, match=r"/mnt/data: make .*/kubeflow-local/claims/data"):
        run(tmp_path / "workspace")
    assert not found.created


def test_several_workers_need_a_cluster(start, tmp_path):
    start()
    with pytest.raises(PipelineStop, match="multi_worker, which takes a cluster"):
        run(tmp_path / "workspace", "training.strategy=multi_worker")


@needs_namespaces
def test_kfp_calls_a_crash_a_success(start, tmp_path):
    """If this fails, kfp has changed, and half of `_Container.run` may go."""
    found = start()
    local.init(local.DockerRunner(), str(tmp_path))
    crash = ["sh", "-c", "exit 3"]
    handler = docker_task_handler.DockerTaskHandler(
        NAME, crash, str(tmp_path), local.DockerRunner()
    )
    assert handler.run() is status.Status.SUCCESS
    found.removes_at_once = False
    assert handler.run() is status.Status.FAILURE


@needs_namespaces
@pytest.mark.parametrize("removes_at_once", [True, False])
def test_a_step_that_is_killed_has_failed(start, tmp_path, removes_at_once):
    found = start(removes_at_once=removes_at_once, on_start=lambda step: step.process.kill())
    code, told = run(tmp_path / "workspace")
    assert code == 1
    assert len(found.created) == 1
    [first] = re.findall(r"^  (\w+) +failed", told, re.MULTILINE)
    others = re.search("^  (.*): not started$", told, re.MULTILINE)[1].split(", ")
    assert {first, *others} == set(COMPONENTS)
    assert f"{first} stopped the run.\nIts container ended without its outputs" in told
    log = Path(re.search(r"^Log: (.*)$", told, re.MULTILINE)[1])
    assert log.name == f"{first}.log"
    assert log.is_file()


@needs_namespaces
def test_a_step_that_fails_says_why(start, tmp_path):
    """An old image: its code is not what the package was compiled from."""
    old = Project(tmp_path / "old")
    with (old.folder / "components" / "features" / "schema.py").open("a") as code:
        code.write("OLD = True\n")
    start(old.folder)
    exit_code, told = run(tmp_path / "workspace")
    assert exit_code == 1
    assert "The image's code of components.features.schema is not the code that this" in told


@needs_namespaces
def test_an_interruption_ends_the_container(start, tmp_path):
    """The step that runs would never end by itself."""

    def interrupt(step):
        os.killpg(step.process.pid, signal.SIGSTOP)
        process.send_signal(signal.SIGINT)

    found = start(on_start=interrupt)
    process = command("--set", f"workspace={tmp_path}")
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert len(found.created) == 1
    assert not found.running()


@needs_namespaces
@pytest.mark.prove
def test_the_whole_pipeline_in_containers(start, tmp_path):
    project = walking.SmallProject(tmp_path / "project")
    found = start(project.folder)
    workspace = project.folder / "workspace" / "kubeflow-local"
    for span in (1, 2):
        rows = workspace / "claims" / "data" / f"span-{span}" / "rows.csv"
        small.write_csv(rows, small.rows(1500, seed=span))
    process = command("-c", "small", "--set", "data.path=/mnt/data", folder=project.folder)
    told, _ = process.communicate()
    assert process.returncode == 0, told
    done = re.findall(r"^  (\w+) +done ", told, re.MULTILINE)
    assert sorted(done) == sorted(COMPONENTS)
    assert "The model is version 1 (blessed against the heuristic)\n" in told
    registry = workspace / "registry" / "small"
    assert walking.labels(registry) == {"champion": 1}
    assert walking.manifest(registry, 1)["data"][0]["spans"] == "[2]"
    [made] = re.findall(r"^  (\S+) \(what each step made\)$", told, re.MULTILINE)
    push = project.folder / made / "registry-push" / "pushed" / "push.json"
    assert json.loads(push.read_text())["version"] == 1
    assert not found.pulled
    check_containers(found, done, workspace)


def check_containers(found: Engine, steps: list[str], workspace: Path) -> None:
    """Each saw what a cluster would let it see, as whoever called, without more rights."""
    root = f"{workspace}/pipeline_root:{workspace}/pipeline_root:rw"
    registry = f"{workspace}:/mnt/workspace:rw"
    claims = {
        "ExampleGen": [f"{workspace}/claims/data:/mnt/data:rw"],
        "Trainer": [registry],
        "BaselineLookup": [registry],
        "RegistryPush": [registry],
    }
    for request, name in zip(found.created, steps, strict=True):
        host = request["HostConfig"]
        assert host["Binds"] == [root, *claims.get(name, [])], name
        assert request["User"] == f"{os.getuid()}:{os.getgid()}"
        assert (host["CapDrop"], host["SecurityOpt"]) == (["ALL"], ["no-new-privileges"])
