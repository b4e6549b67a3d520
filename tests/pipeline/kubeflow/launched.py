"""Steps of a compiled package, each started as KFP's launcher starts it.

`recorded_input.json` is what a real backend (2.17.0) handed to a step: each executor input here is
made of its entries, with other names, URIs, values and metadata in them. There is no backend beside
it: no cache, no pods, no object store. Stores are folders, which the step is told by `--stores`.
"""

import copy
import json
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline import loading
from tests import small, warm
from tests.end_to_end.project import Project

Json = dict[str, Any]
RECORDED: Json = json.loads(Path(__file__).with_name("recorded_input.json").read_text())
"""What the launcher handed to a Transform."""


@dataclass
class Done:
    """A step that has ended.

    Attributes:
      code: its exit code.
      log: what it printed.
      output: the executor output that it wrote, if it wrote one.
    """

    code: int
    log: str
    output: Json | None

    @property
    def last_line(self) -> str:
        """The last line of its log."""
        return self.log.strip().splitlines()[-1]


@dataclass
class Run:
    """A run, as far as its steps were started.

    Attributes:
      cluster: where it runs.
      package: the pipeline spec.
      values: of the run's parameters.
      id: the run's.
      made: the artifacts that steps handed over, by task and name.
      steps: how they ended, by task.
    """

    cluster: "Cluster"
    package: Json
    values: Json
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    made: dict[str, Json] = field(default_factory=dict)
    steps: dict[str, Done] = field(default_factory=dict)

    def step(self, task: str, **environment: str) -> Done:
        """Runs a step to its end, and takes over what it made."""
        if self.cluster.uid is None:
            module, *words = self._words(task)
            folder, given = self.cluster.project.folder, self._environment(task) | environment
            return self.ended(task, *warm.run(folder, words, given, module))
        process = self.start(task, **environment)
        log, _ = process.communicate()
        return self.ended(task, process.returncode, log)

    def good(self, *tasks: str) -> None:
        """Runs these steps, each of which has to end well."""
        for task in tasks:
            done = self.step(task)
            assert done.code == 0, done.log

    def start(self, task: str, **environment: str) -> "subprocess.Popen[str]":
        """Starts a step, as the launcher does."""
        return subprocess.Popen(
            [sys.executable, "-m", *self._words(task)],
            cwd=self.cluster.project.folder,
            env=self._environment(task) | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            user=self.cluster.uid,
            group=self.cluster.uid,
            extra_groups=None if self.cluster.uid is None else [],
        )

    def _words(self, task: str) -> list[str]:
        """The module that a step runs, and its arguments."""
        self._given = self.executor_input(task)
        container = self._container(task)
        assert container["command"][:2] == ["python", "-m"]
        words = [word.replace("{{$}}", json.dumps(self._given)) for word in container["args"]]
        return [*container["command"][2:], *words, "--stores", f"{self.cluster.folder}/"]

    def _environment(self, task: str) -> dict[str, str]:
        given = self._container(task).get("env", [])
        return small.environment_of_a_copy() | {one["name"]: one["value"] for one in given}

    def ended(self, task: str, code: int, log: str) -> Done:
        """Takes over what a step made."""
        written = Path(self._given["outputs"]["outputFile"])
        output = json.loads(written.read_text()) if code == 0 and written.exists() else None
        self.steps[task] = Done(code, log, output)
        if output:
            self.made[task] = {
                name: found["artifacts"][0] for name, found in output["artifacts"].items()
            }
        return self.steps[task]

    def output(self, task: str, name: str) -> Path:
        """The folder of an output."""
        return self.cluster.path(self.made[task][name]["uri"])

    def executor_input(self, task: str) -> Json:
        """What KFP's driver makes for a task."""
        spec, scope = self._task(task)
        component = self.package["components"][spec["componentRef"]["name"]]
        inputs = spec.get("inputs", {})
        place = f"minio://mlpipeline/v2/artifacts/small/{self.id}/{task}/{uuid.uuid4()}"
        outputs = component["outputDefinitions"]
        made = {name: {"artifacts": [_output(place, name)]} for name in outputs["artifacts"]}
        logs = copy.deepcopy(RECORDED["outputs"]["artifacts"]["executor-logs"])
        logs["artifacts"][0]["uri"] = f"{place}/executor-logs"
        given: Json = {
            "inputs": {
                "parameterValues": {
                    name: self._value(found, scope)
                    for name, found in inputs.get("parameters", {}).items()
                },
                "artifacts": {
                    name: {"artifacts": [self._input(found, scope)]}
                    for name, found in inputs.get("artifacts", {}).items()
                },
            },
            "outputs": {
                "artifacts": made | {"executor-logs": logs},
                "outputFile": str(self.cluster.path(f"{place}/output_metadata.json")),
            },
        }
        if names := outputs.get("parameters"):
            files = {name: {"outputFile": f"/tmp/kfp/outputs/{name}"} for name in names}
            given["outputs"]["parameters"] = files
        return given

    def _task(self, task: str) -> tuple[Json, Json]:
        """A task, and what its inputs are called outside, if it is behind a condition."""
        tasks = self.package["root"]["dag"]["tasks"]
        if task in tasks:
            return tasks[task], {}
        outer = tasks["condition-1"]
        inner = self.package["components"][outer["componentRef"]["name"]]["dag"]["tasks"]
        return inner[task], outer["inputs"]["artifacts"] | outer["inputs"]["parameters"]

    def _container(self, task: str) -> Json:
        spec, _ = self._task(task)
        label = self.package["components"][spec["componentRef"]["name"]]["executorLabel"]
        found: Json = self.package["deploymentSpec"]["executors"][label]["container"]
        return found

    def _value(self, given: Json, scope: Json) -> Any:
        name = given.get("componentInputParameter")
        if name in scope:
            return self._value(scope[name], {})
        if name:
            defaults = self.package["root"]["inputDefinitions"]["parameters"]
            value = self.values.get(name, defaults[name]["defaultValue"])
        else:
            value = given["runtimeValue"]["constant"]
        return self.id if value == "{{$.pipeline_job_uuid}}" else value

    def _input(self, given: Json, scope: Json) -> Json:
        if (name := given.get("componentInputArtifact")) in scope:
            return self._input(scope[name], {})
        producer = given["taskOutputArtifact"]
        found = self.made[producer["producerTask"]][producer["outputArtifactKey"]]
        artifact: Json = copy.deepcopy(RECORDED["inputs"]["artifacts"]["examples"]["artifacts"][0])
        added = {k: artifact["metadata"][k] for k in ("display_name", "store_session_info")}
        artifact["name"] = str(abs(hash(found["uri"])) % 1000 + 1)
        return artifact | {"uri": found["uri"], "metadata": found["metadata"] | added}


def _output(place: str, name: str) -> Json:
    """The metadata store's schema is never looked at."""
    recorded = RECORDED["outputs"]["artifacts"]["transform_graph"]["artifacts"][0]
    return copy.deepcopy(recorded) | {"name": name, "uri": f"{place}/{name}"}


class Cluster:
    """A copy of the project that stands for the image, a workspace, and stores."""

    def __init__(
        self,
        folder: Path,
        settings: Json | None = None,
        steps: Json | None = None,
        uid: int | None = None,
        **changes: Any,
    ):
        """Makes them in a folder, and compiles.

        Args:
          folder: for all of it.
          settings: changes of the small settings.
          steps: settings of the cluster's, by component.
          uid: as whom steps run; None: as the tests do.
          changes: of other settings of the cluster's.
        """
        self.folder, self.uid = folder, uid
        data = small.SETTINGS["data"] | {"pattern": "span-{SPAN}/*.csv"}
        self.project = Project(folder / "image", small.SETTINGS | {"data": data} | (settings or {}))
        self.workspace, self.data = folder / "workspace", folder / "data"
        self.workspace.mkdir()
        cluster = yaml.safe_load((loading.CONFIGS / "kubeflow.yaml").read_text())
        cluster["workspace"]["path"] = str(self.workspace)
        cluster["steps"] |= steps or {}
        cluster |= changes
        small.write_config(self.project.folder / "configs", cluster, "kubeflow")
        (folder / "minio").mkdir()
        self.bring(1)

    def bring(self, span: int, **changed: Any) -> None:
        """Rows of a span."""
        rows = [row | changed for row in small.rows(1500, seed=span)]
        small.write_csv(self.data / f"span-{span}" / "rows.csv", rows)

    def compile(self, *settings: str, name: str = "small") -> Json:
        """A package's pipeline spec, as the command writes it."""
        words = [word for setting in settings for word in ("--set", setting)]
        command = [sys.executable, "-m", "pipeline", "compile", "--config", "small", *words]
        done = subprocess.run(
            command,
            cwd=self.project.folder,
            env=small.environment_of_a_copy(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        path = self.project.folder / "build" / f"{name}.yaml"
        found: Json = next(iter(yaml.safe_load_all(path.read_text())))
        return found

    def path(self, uri: str) -> Path:
        """The folder of a URI."""
        return self.folder / uri.replace("://", "/")

    @property
    def registry(self) -> Path:
        """The model's folder in the registry."""
        return self.workspace / "registry" / "small"

    def versions(self) -> list[int]:
        """The versions filed."""
        return sorted(int(path.name) for path in self.registry.glob("[0-9]*"))

    def manifest(self, version: int) -> Json:
        """What a version's manifest says."""
        found: Json = json.loads((self.registry / str(version) / "manifest.json").read_text())
        return found


def readable_by_all(folder: Path) -> None:
    """Lets any user go through the folders above."""
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
