"""The launcher: in the pod, around the step's command."""

import copy
import json
import os
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.kubeflow.imitation import placeholders, rewriting
from tests.kubeflow.imitation.cluster import Cluster, PodError, RunningStep
from tests.kubeflow.imitation.container import Pod, end
from tests.kubeflow.imitation.driver import LOGS, Outcome, PodPatch, RunContext
from tests.kubeflow.imitation.metadata import MINIO_SESSION, Artifact, MetadataError
from tests.kubeflow.imitation.package import Json
from tests.kubeflow.imitation.store import StoreError, local_path


class LaunchError(Exception):
    """The launcher gives up; the task fails."""


@dataclass
class Attempt:
    """One pod of a task.

    Attributes:
        outcome: What it made, if it succeeded.
        log: What the step printed, and the launcher's own words.
        exit_code: The launcher's: 0, or 1 whatever the step's was. None without a process.
        lost: Whether the pod was lost.
        command: What was started.
    """

    outcome: Outcome | None = None
    log: str = ""
    exit_code: int | None = None
    lost: bool = False
    command: list[str] = field(default_factory=list)


class Launcher:
    """Runs a task once, in a fresh pod."""

    def __init__(
        self, cluster: Cluster, run: RunContext, task: str, patch: PodPatch, number: int
    ) -> None:
        """Prepares it.

        Args:
            cluster: Where it runs.
            run: Whose task it is.
            task: The task's name.
            patch: What the driver made.
            number: 0 for the first attempt.
        """
        self._cluster, self._run, self._task = cluster, run, task
        self._patch, self._number = patch, number
        self._pod_name = f"{run.name}-{task}-{uuid.uuid4().hex[:8]}"
        self._attempt = Attempt()

    def launch(self) -> Attempt:
        """Runs it; whatever happens is told by what it returns."""
        pod = None
        try:
            pod = self._cluster.make_pod(self._pod_name, self._patch)
            self._attempt.outcome = self._execute(pod)
            self._attempt.exit_code = 0
        except PodError as error:
            self._say(str(error))
        except (LaunchError, StoreError, MetadataError) as error:
            self._attempt.exit_code = None if self._attempt.lost else 1
            self._say(f"failed to execute component: {error}")
        finally:
            if pod:
                pod.remove()
        return self._attempt

    def _say(self, line: str) -> None:
        self._attempt.log += f"launcher: {line}\n"

    def _execute(self, pod: Pod) -> Outcome:
        environment = self._environment()
        executor_input = _handed(self._patch.executor_input, environment)
        _number_logs(executor_input["outputs"], self._number)
        command = [rewriting.kubernetes(part, environment) for part in self._patch.step_command]
        if not command:
            raise LaunchError("command and arguments are empty")
        known = _with_defaults(executor_input, self._patch.component_spec)
        self._attempt.command = placeholders.by_launcher(command, known)
        self._download(pod, executor_input["inputs"])
        _make_folders(pod, executor_input["outputs"])
        self._run_command(pod, environment, executor_input["outputs"])
        told = _read_output_file(pod.real(executor_input["outputs"]["outputFile"]))
        parameters = self._parameters(pod, executor_input["outputs"], told)
        return Outcome("SUCCEEDED", self._upload(pod, executor_input, told), parameters)

    def _environment(self) -> dict[str, str]:
        """The image's, the pod's and the executor's; a value may refer to those before it."""
        found = self._cluster.image.full_environment()
        found |= {"HOSTNAME": self._pod_name, "KFP_POD_NAME": self._pod_name}
        found |= {"KFP_POD_UID": str(uuid.uuid4())}
        found |= {"METADATA_GRPC_SERVICE_HOST": "metadata-grpc-service"}
        found |= {"METADATA_GRPC_SERVICE_PORT": "8080"}
        for stated in self._patch.env:
            value = self._cluster.variable(stated)
            if value is not None:
                in_spec = "value" in stated
                found[stated["name"]] = rewriting.kubernetes(value, found) if in_spec else value
        return found

    def _download(self, pod: Pod, inputs: Json) -> None:
        for name, found in inputs.get("artifacts", {}).items():
            for artifact in found["artifacts"]:
                if path := local_path(artifact["uri"]):
                    self._cluster.store.download(artifact["uri"], pod.real(path))
                else:
                    self._say(
                        f'Input Artifact "{name}" does not have a recognized storage URI '
                        f'"{artifact["uri"]}". Skipping downloading to local path.'
                    )

    def _run_command(self, pod: Pod, environment: dict[str, str], outputs: Json) -> None:
        log = pod.real(_path(outputs["artifacts"][LOGS]["artifacts"][0]))
        image = self._cluster.image
        try:
            process = pod.start(self._attempt.command, environment, image, log)
        except OSError as error:
            raise LaunchError(f"fork/exec: {error.strerror}") from error
        step = RunningStep(self._task, self._number, process, pod, log)
        try:
            self._cluster.on_start(step)
            code = process.wait(self._patch.pod.get("activeDeadlineSeconds"))
        except subprocess.TimeoutExpired as error:
            raise LaunchError("Pod was active longer than the specified deadline") from error
        finally:
            end(process)
            self._attempt.log += log.read_text(errors="replace")
            self._attempt.lost = step.lost
        if step.lost:
            raise LaunchError("pod deleted")
        if code:
            self._upload_logs(pod, outputs)
            raise LaunchError(f"signal: {-code}" if code < 0 else f"exit status {code}")

    def _upload_logs(self, pod: Pod, outputs: Json) -> None:
        """All that is left of a step that fails."""
        try:
            self._upload(pod, {"outputs": {"artifacts": {LOGS: outputs["artifacts"][LOGS]}}}, {})
        except StoreError as error:
            self._say(str(error))

    def _parameters(self, pod: Pod, outputs: Json, told: Json) -> Json:
        """The output parameters: from the output file, or else each from its own."""
        found: Json = dict(told.get("parameterValues", {}))
        definitions = self._patch.component_spec.get("outputDefinitions", {})
        for name, output in outputs.get("parameters", {}).items():
            if name in found:
                continue
            kind = definitions["parameters"][name]["parameterType"]
            try:
                found[name] = _parsed(pod.real(output["outputFile"]).read_text(), kind)
            except (OSError, ValueError) as error:
                raise LaunchError(
                    f'failed to read output parameter name="{name}" type="{kind}": {error}'
                ) from error
        return found

    def _upload(self, pod: Pod, executor_input: Json, told: Json) -> dict[str, Artifact]:
        """Uploads what lies at the outputs' places and stores what the step said of them."""
        found = {}
        for name, outputs in executor_input["outputs"]["artifacts"].items():
            artifact = copy.deepcopy(outputs["artifacts"][0])
            said = told.get("artifacts", {}).get(name, {}).get("artifacts", [])
            if said and name != LOGS:
                artifact["uri"] = said[0].get("uri") or artifact["uri"]
                artifact["metadata"] = {
                    **artifact.get("metadata", {}),
                    **said[0].get("metadata", {}),
                }
                if said[0].get("customPath"):
                    artifact["customPath"] = said[0]["customPath"]
            self._upload_one(pod, name, artifact)
            found[name] = self._record(name, artifact)
        return found

    def _upload_one(self, pod: Pod, name: str, artifact: Json) -> None:
        path, uri = _path(artifact), artifact["uri"]
        if path is None:
            self._say(
                f'Output Artifact "{name}" does not have a recognized storage URI "{uri}". '
                "Skipping uploading to remote storage."
            )
            return
        if not uri.startswith(f"{self._run.root}/"):
            raise LaunchError(
                f'failed to upload output artifact "{name}": URI "{uri}" does not have expected '
                f'bucket prefix "{self._run.root}/"'
            )
        try:
            self._cluster.store.upload(path, uri, pod.real)
        except FileNotFoundError:
            self._say(f'Local filepath "{path}" does not exist')

    def _record(self, name: str, artifact: Json) -> Artifact:
        metadata = {"display_name": name, **artifact.get("metadata", {})}
        minio = self._run.root.startswith("minio://")
        session = MINIO_SESSION if minio else from_environment(self._run.root)
        metadata.setdefault("store_session_info", session)
        return self._cluster.metadata.record(
            artifact["type"], artifact["uri"], metadata, self._run.package.name
        )


def from_environment(uri: str) -> str:
    """`store_session_info` of a store that is reached with the pod's own credentials."""
    provider = uri.partition("://")[0]
    return json.dumps({"Provider": provider, "Params": {"fromEnv": "true"}}, separators=(",", ":"))


def _handed(executor_input: Json, environment: dict[str, str]) -> Json:
    """The executor input after Kubernetes, which takes it for a text like any other."""
    try:
        found: Json = json.loads(rewriting.kubernetes(json.dumps(executor_input), environment))
        return found
    except ValueError as error:
        raise LaunchError(f"failed to unmarshal executor input: {error}") from error


def _number_logs(outputs: Json, number: int) -> None:
    """Each attempt has its own log."""
    logs = outputs["artifacts"][LOGS]["artifacts"][0]
    logs["uri"] = f"{logs['uri']}-{number}"


def _with_defaults(executor_input: Json, component: Json) -> Json:
    """With the component's defaults for parameters that the driver left out."""
    filled = copy.deepcopy(executor_input)
    values = filled["inputs"].setdefault("parameterValues", {})
    for name, spec in component.get("inputDefinitions", {}).get("parameters", {}).items():
        if "defaultValue" in spec:
            values.setdefault(name, spec["defaultValue"])
    if not values:
        del filled["inputs"]["parameterValues"]
    return filled


def _make_folders(pod: Pod, outputs: Json) -> None:
    """The folders around the outputs, not those of the outputs themselves."""
    paths = [output["outputFile"] for output in outputs.get("parameters", {}).values()]
    paths += [_path(found["artifacts"][0]) for found in outputs["artifacts"].values()]
    for path in paths:
        pod.real(os.path.dirname(path)).mkdir(parents=True, exist_ok=True)


def _path(artifact: Json) -> Any:
    return artifact.get("customPath") or local_path(artifact["uri"])


def _read_output_file(path: Path) -> Json:
    """What the step says of its outputs; nothing, if it wrote no file.

    Raises:
        LaunchError: For what is no JSON of an ExecutorOutput: unknown fields, NaN.
    """
    if not path.exists():
        return {}
    try:
        said = json.loads(path.read_text(), parse_constant=_no_json)
        message = json_format.ParseDict(said, pipeline_spec_pb2.ExecutorOutput())
    except (ValueError, json_format.ParseError) as error:
        raise LaunchError(f"failed to unmarshall ExecutorOutput in file {path}: {error}") from error
    output: Json = json_format.MessageToDict(message)
    return output


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _parsed(text: str, kind: str) -> Any:
    """An output parameter's value.

    Raises:
        ValueError: If the text isn't of that type.
    """
    match kind:
        case "STRING":
            return text
        case "NUMBER_INTEGER":
            return int(text)
        case "NUMBER_DOUBLE":
            return float(text)
        case "BOOLEAN" if text.strip().lower() in ("true", "false"):
            return text.strip().lower() == "true"
    value = json.loads(text)
    if not isinstance(value, list if kind == "LIST" else dict):
        raise ValueError(f"unexpected type: {text}")
    return value
