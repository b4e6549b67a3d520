"""`python -m pipeline run-kubeflow-local`: the package's steps in containers, on this machine.

kfp.local with its DockerRunner runs the same YAML that a cluster gets. `_Container` stands between
where they (2.16.1) do not do what a cluster does:

- they pass over the package's second document and the steps' `env`: here folders of this machine
  stand for the claims, and are mounted where that document says;
- they call a step that crashed a success if the engine removes its container before it is asked for
  the exit code: here a step without its outputs has failed;
- an image that the engine lists under a longer name they would pull: here nothing is ever pulled;
- they write all steps' output to one place: here each step has a log;
- interrupted, they leave the container running: here it is stopped.

There is no caching, no retry, no timeout, and no secret, limit or accelerator.
"""

import contextlib
import functools
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from docker.errors import DockerException  # type: ignore[import-untyped]
from kfp import components, local
from kfp.local import docker_task_handler, status
from rich.console import Console

from components.errors import PipelineStop
from components.registry.push import PUSH_FILE
from pipeline import loading
from pipeline.config import Config
from pipeline.console import RunLines, make, shown, tell_next
from pipeline.kubeflow import compiling, engine, spec
from pipeline.kubeflow.package import Package
from pipeline.kubeflow.settings import Target
from pipeline.workspace import Workspace

_FOLDER = "kubeflow-local"
_RUN = "pipeline.run"
"""The containers' label with the name of their run."""
_RIGHTS: dict[str, Any] = {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}
"""As a cluster's containers have them."""


@dataclass
class _Run:
    """One run of a package.

    Attributes:
      package: what runs.
      target: the cluster's settings.
      workspace: stands for the claim of that name.
      client: of the engine.
      images: the engine's names of the package's images.
      logs: gets a file for each step; its name is the run's.
      lines: hears of each step.
      outputs: folders by step and name, of the steps that are done.
      failure: the step that failed, why, and its log.
    """

    package: Package
    target: Target
    workspace: Workspace
    client: Any
    images: dict[str, str]
    logs: Path
    lines: RunLines
    outputs: dict[str, dict[str, Path]] = field(default_factory=dict)
    failure: tuple[str, str, Path] | None = None

    def volumes(self, step: str) -> list[tuple[Path, str]]:
        """Folders of this machine, each with the path at which the step has it."""
        executor = self.package.executors.get(spec.executor_label(spec.task_id(step)), {})
        claims = [
            (mount["pvcNameParameter"]["runtimeValue"]["constant"], mount["mountPath"])
            for mount in executor.get("pvcMount", ())
        ]
        if self.target.workspace.claim is None:  # then the path is on every node
            claims.append((None, self.target.workspace.path))
        return [(self._folder(claim), path) for claim, path in claims]

    def _folder(self, claim: str | None) -> Path:
        if claim == self.target.workspace.claim:
            return self.workspace.root
        return self.workspace.root / "claims" / str(claim)


class _Container(docker_task_handler.DockerTaskHandler):
    """A step's container: kfp.local makes one of these for each step, and calls `run`."""

    def __init__(self, run: _Run, image: str, full_command: list[str], **given: Any):
        """Takes what kfp.local gives, with all placeholders resolved."""
        super().__init__(run.images[image], full_command, **given)
        _, step, _, executor_input = full_command[-4:]  # as the compiler wrote them
        self._run, self._step = run, json.loads(step)["component"]
        self._outputs = json.loads(executor_input)["outputs"]
        self.runner = local.DockerRunner(
            user=engine.caller(run.client),
            environment=run.target.step(self._step).env,
            labels={_RUN: run.logs.name},
            **_RIGHTS,
        )

    def get_volumes_to_mount(self, client: Any = None) -> list[str]:
        """The pipeline root, and what stands for the step's claims."""
        mode = super().get_volumes_to_mount(client)[self.pipeline_root]["mode"]
        volumes = [(self.pipeline_root, self.pipeline_root), *self._run.volumes(self._step)]
        return [f"{folder}:{path}:{mode}" for folder, path in volumes]

    def run(self) -> status.Status:
        """Runs it; a step without its outputs has failed, whatever the engine says."""
        log = self._run.logs / f"{self._step}.log"
        began = time.monotonic()
        self._run.lines.started(self._step)
        folders = {
            name: Path(made["artifacts"][0]["uri"])
            for name, made in self._outputs["artifacts"].items()
        }
        wanted = [Path(self._outputs["outputFile"]), *folders.values()]
        is_done = self._succeeds(log) and all(path.exists() for path in wanted)
        self._run.lines.ended(self._step, "done" if is_done else "failed", time.monotonic() - began)
        if not is_done:
            self._run.failure = (self._step, _reason(self._step, log), log)
            return status.Status.FAILURE
        self._run.outputs[self._step] = folders
        return status.Status.SUCCESS

    def _succeeds(self, log: Path) -> bool:
        with log.open("w", buffering=1) as output, contextlib.redirect_stdout(output):
            try:
                return super().run() is status.Status.SUCCESS
            except DockerException as error:
                print(error)
                return False


def _reason(step: str, log: Path) -> str:
    """What a step says last, unless it was killed."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    begins = f"{step} failed: "
    for line in reversed(lines):
        if line.startswith(begins):
            return line.removeprefix(begins)
    return f"Its container ended without its outputs; last line of its log: {(lines or ['-'])[-1]}"


def main(
    config_name: str, overrides: list[str], image: str | None, client: Any, console: Console
) -> int:
    """Compiles the training pipeline and runs it in containers; the exit code comes back.

    Args:
      config_name: the pipeline's configuration.
      overrides: of it.
      image: in place of the one in `configs/kubeflow.yaml`.
      client: of the engine.
      console: for the person.

    Raises:
      PipelineStop: nothing was started.
    """
    config = loading.load(config_name, overrides)
    if config.training.strategy == "multi_worker":
        raise PipelineStop(
            "training.strategy is multi_worker, which takes a cluster: its Trainer step makes a "
            "TrainJob. Here: --set training.strategy=auto, or make train-distributed."
        )
    target = compiling.load_target("kubeflow", image)
    package = compiling.training(config, target)
    compiling.check([package], "kubeflow")
    path = compiling.write_package(package, target, "kubeflow", compiling.BUILD).path
    executors = package.spec["deploymentSpec"]["executors"].values()
    images = engine.names_of_images(client, [e["container"]["image"] for e in executors])
    workspace = Workspace(loading.PROJECT / config.workspace / _FOLDER)
    workspace.make()
    logs = workspace.logs / f"{config.name}-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
    with RunLines(console) as lines:
        run = _Run(package, target, workspace, client, images, logs, lines)
        _make_folders(run)
        console.print(f"{shown(path)}: in containers of {target.image}, logs in {shown(logs)}")
        _run_here(run, path, console)
    if run.failure:
        return _tell_failure(run, *run.failure, console)
    _tell(run, config, config_name, console)
    return 0


def _make_folders(run: _Run) -> None:
    """Makes what is mounted: the engine would do so as root, and data must be there already."""
    mounted = {volume for step in _steps(run.package) for volume in run.volumes(step)}
    missing = sorted((path, folder) for folder, path in mounted if not folder.is_dir())
    if missing:
        lines = "".join(f"\n  {path}: make {shown(folder)}" for path, folder in missing)
        raise PipelineStop(f"Folders that stand for the cluster's volumes are not there:{lines}")
    run.workspace.pipeline_root.mkdir(exist_ok=True)
    run.logs.mkdir()


def _steps(package: Package) -> list[str]:
    """The components' names."""
    executors = package.spec["deploymentSpec"]["executors"].values()
    return [json.loads(e["container"]["args"][1])["component"] for e in executors]


def _run_here(run: _Run, package: Path, console: Console) -> None:
    def wait(holder: str) -> None:
        console.print(f"  waiting for {holder}, which uses {shown(run.workspace.root)}")

    pipeline = components.load_component_from_file(str(package))
    local.init(local.DockerRunner(), str(run.workspace.pipeline_root))
    with (
        run.workspace.locked(wait),
        _containers_of(run),
        (run.logs / "kfp.log").open("w") as log,
        contextlib.redirect_stdout(log),
    ):
        try:
            pipeline()
        except RuntimeError:  # kfp.local's word for a step that failed
            if run.failure is None:
                raise


@contextlib.contextmanager
def _containers_of(run: _Run) -> Iterator[None]:
    """Lets kfp.local make our containers; none outlives this."""
    theirs = docker_task_handler.DockerTaskHandler
    docker_task_handler.DockerTaskHandler = functools.partial(_Container, run)
    try:
        yield
    finally:
        docker_task_handler.DockerTaskHandler = theirs
        for container in run.client.containers.list(filters={"label": f"{_RUN}={run.logs.name}"}):
            with contextlib.suppress(DockerException):
                container.kill()


def _tell_failure(run: _Run, step: str, reason: str, log: Path, console: Console) -> int:
    skipped = [name for name in _steps(run.package) if name not in {step, *run.outputs}]
    if skipped:
        console.print(f"  {', '.join(skipped)}: not started", style="dim")
    console.print(f"\n[red]{step}[/] stopped the run.")
    console.print(reason, markup=False)
    console.print(f"Log: {shown(log)}")
    return 1


def _tell(run: _Run, config: Config, config_name: str, console: Console) -> None:
    push = json.loads((run.outputs["RegistryPush"]["pushed"] / PUSH_FILE).read_text())
    registry = run.workspace.registry / config.registry.model
    made = run.outputs["RegistryPush"]["pushed"].parent.parent
    if push["version"] is None:
        console.print(f"\nNo version was filed: {push['reason']}.", markup=False)
    else:
        console.print(f"\nThe model is version {push['version']} ({push['reason']})", markup=False)
        console.print(f"  {shown(registry / str(push['version']))}")
    console.print(f"  {shown(made)} (what each step made)\n")
    settings = f"SET=workspace={shown(run.workspace.root)}"
    tell_next(
        console,
        {
            make("versions", config_name, settings): "all versions and their labels",
            make("submit", config_name, "KFP_HOST=..."): "the same on a cluster",
        },
    )
