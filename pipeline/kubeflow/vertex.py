"""The same package as a PipelineJob of Vertex AI. Not verified on Vertex AI.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.pipelineJobs
"""

import copy
import json

from pipeline.kubeflow.package import Document, Package
from pipeline.kubeflow.settings import Target

_UNITS = {"": 1e-9, "m": 1e-12, "k": 1e-6, "M": 1e-3, "G": 1.0, "T": 1e3}
_UNITS |= {f"{unit}i": 1024.0**power / 1e9 for power, unit in enumerate("KMGT", start=1)}


def text(package: Package, target: Target) -> str:
    """The PipelineJob as JSON, the same bytes for the same content."""
    job = {
        "displayName": package.name,
        "runtimeConfig": {"gcsOutputDirectory": target.pipeline_root},
        "pipelineSpec": spec(package),
    }
    return json.dumps(job, indent=1, sort_keys=True) + "\n"


def spec(package: Package) -> Document:
    """The pipeline spec with resources as Vertex AI reads them: numbers, memory in GB."""
    made: Document = copy.deepcopy(package.spec)
    for executor in made["deploymentSpec"]["executors"].values():
        container = executor["container"]
        if "resources" in container:
            container["resources"] = _resources(container["resources"])
    return made


def _resources(given: Document) -> Document:
    found: Document = {}
    if cpu := given.get("resourceCpuLimit") or given.get("resourceCpuRequest"):
        found["cpuLimit"] = float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)
    if memory := given.get("resourceMemoryLimit") or given.get("resourceMemoryRequest"):
        found["memoryLimit"] = _gigabytes(memory)
    if accelerator := given.get("accelerator"):
        found["accelerator"] = {
            "type": accelerator["resourceType"],
            "count": accelerator["resourceCount"],
        }
    return found


def _gigabytes(quantity: str) -> float:
    number = quantity.rstrip("mkMGTKi")
    return round(float(number) * _UNITS[quantity.removeprefix(number)], 3)
