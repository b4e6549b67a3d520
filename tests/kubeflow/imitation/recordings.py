"""What the real backend handed to its steps, in a form that can be compared."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from tests.kubeflow.imitation.package import Json
from tests.kubeflow.imitation.run import Run

FOLDER = Path(__file__).parents[1] / "recorded"

_VARYING = re.compile(
    r'(?:"name": |_id": )"(\d+)"'  # An artifact's id.
    r"|([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
    r"|(exit-[a-z0-9]{5})\b"  # A workflow's name.
)


def recorded(name: str) -> Json:
    """The steps of a recording, by executor.

    Some recordings have each step twice, alike.
    """
    steps = json.loads((FOLDER / f"{name}.json").read_text())
    return _comparable({step["component_spec"]["executorLabel"]: step for step in steps})


def imitated(run: Run) -> Json:
    """The steps of a run that had a pod, by executor."""
    patches = [asdict(task.patch) for task in run.tasks.values() if task.patch and task.attempts]
    return _comparable({patch["component_spec"]["executorLabel"]: patch for patch in patches})


def _comparable(steps: Json) -> Json:
    """Numbers what differs from run to run in the order of its appearance."""
    known: dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        (text,) = filter(None, found.groups())
        return found[0].replace(text, known.setdefault(text, f"<{len(known)}>"))

    numbered: Json = json.loads(_VARYING.sub(number, json.dumps(steps, sort_keys=True)))
    return numbered


def write_importing_package(path: Path) -> Path:
    """The package behind `importer.json`, made again: taxi's first three steps and an importer."""
    spec, _ = yaml.safe_load_all((FOLDER / "taxi.yaml").read_text())
    spec["pipelineInfo"]["name"] = "taxi-small-imp"
    tasks = spec["root"]["dag"]["tasks"]
    kept = {name: tasks[name] for name in ("csv-example-gen", "statistics-gen", "schema-gen")}
    dataset = {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"}
    uri = "minio://mlpipeline/data/taxi"
    example_gen = kept["csv-example-gen"]["inputs"]
    example_gen["parameters"]["input_base"] = _constant(uri)
    output = {"producerTask": "importer", "outputArtifactKey": "artifact"}
    example_gen["artifacts"] = {"input_base_artifact": {"taskOutputArtifact": output}}
    wanted = spec["components"]["comp-csv-example-gen"]["inputDefinitions"]
    wanted["artifacts"] = {"input_base_artifact": {"artifactType": dataset}}
    kept["importer"] = {
        "taskInfo": {"name": "importer"},
        "componentRef": {"name": "comp-importer"},
        "inputs": {"parameters": {"uri": _constant(uri)}},
    }
    spec["components"]["comp-importer"] = {
        "executorLabel": "exec-importer",
        "inputDefinitions": {"parameters": {"uri": {"parameterType": "STRING"}}},
        "outputDefinitions": {"artifacts": {"artifact": {"artifactType": dataset}}},
    }
    spec["deploymentSpec"]["executors"]["exec-importer"] = {
        "importer": {"artifactUri": {"constant": uri}, "typeSchema": dataset}
    }
    spec["root"]["dag"]["tasks"] = kept
    path.write_text(yaml.safe_dump(spec))
    return path


def write_exit_handler_package(path: Path) -> Path:
    """The package behind `exit-handler.json`, made again: a body that fails, and `bye`."""
    status = "{{$.inputs.parameters['status']}}"
    bye = {
        "taskInfo": {"name": "bye"},
        "componentRef": {"name": "comp-bye"},
        "dependentTasks": ["body"],
        "triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"},
        "inputs": {"parameters": {"status": {"taskFinalStatus": {"producerTask": "body"}}}},
    }
    final = {"parameterType": "TASK_FINAL_STATUS", "isOptional": True}
    spec = {
        "pipelineInfo": {"name": "exit"},
        "schemaVersion": "2.1.0",
        "root": {"dag": {"tasks": {"body": _task("body"), "bye": bye}}},
        "components": {
            "comp-body": {"dag": {"tasks": {"bad": _task("bad")}}},
            "comp-bad": {"executorLabel": "exec-bad"},
            "comp-bye": {
                "executorLabel": "exec-bye",
                "inputDefinitions": {"parameters": {"status": final}},
            },
        },
        "deploymentSpec": {
            "executors": {
                "exec-bad": _bash("exit 3"),
                "exec-bye": _bash('echo final "$0"', status),
            }
        },
    }
    path.write_text(yaml.safe_dump(spec))
    return path


def _constant(value: str) -> Json:
    return {"runtimeValue": {"constant": value}}


def _task(name: str) -> Json:
    return {"taskInfo": {"name": name}, "componentRef": {"name": f"comp-{name}"}}


def _bash(*arguments: str) -> Json:
    container: dict[str, Any] = {"image": "image", "command": ["bash", "-c", *arguments]}
    return {"container": container}
