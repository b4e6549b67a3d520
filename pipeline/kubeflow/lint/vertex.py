"""What Vertex AI Pipelines documents.

https://cloud.google.com/vertex-ai/docs/pipelines/machine-types.
"""

from collections.abc import Iterator

from pipeline.kubeflow.lint.reading import Message, Package
from pipeline.kubeflow.lint.resources import VERTEX, field
from pipeline.kubeflow.lint.rules import Violation

_VERSIONS = ("2.0.0", "2.1.0")
_MOST_CPUS, _MOST_GB = 96, 624


def schema_version(package: Package) -> Iterator[Violation]:
    """The schema versions that Vertex AI takes."""
    if (version := package.spec.schema_version) not in _VERSIONS:
        text = f"schemaVersion is {version!r}; compile for {' or '.join(_VERSIONS)}."
        yield Violation("", "schema-version", text)


def platform_document(package: Package) -> Iterator[Violation]:
    """Settings for Kubernetes."""
    if package.platform is not None:
        text = "The package has a platform document, for Kubernetes; leave it out for Vertex AI."
        yield Violation("", "vertex-platform", text)


def pipeline_root(package: Package) -> Iterator[Violation]:
    """A pipeline root elsewhere than in Cloud Storage."""
    root = package.spec.default_pipeline_root
    if root and not root.startswith("gs://"):
        text = f"defaultPipelineRoot is {root!r}; write a gs:// path or delete it."
        yield Violation("", "vertex-pipeline-root", text)


def resources(package: Package) -> Iterator[Violation]:
    """Resources that Vertex AI doesn't read or doesn't have."""
    for task, container in package.container_tasks():
        for problem in _problems(container.resources):
            yield Violation(task.id, "vertex-resource", problem)


def _problems(resources: Message) -> Iterator[str]:
    for vertex, kubeflow in VERTEX.items():
        if "Request" in vertex and (field(resources, vertex) or field(resources, kubeflow)):
            yield f"It has a {vertex}; Vertex AI knows limits only: delete it."
        elif field(resources, kubeflow) and not field(resources, vertex):
            yield f"resources.{kubeflow} is KFP's; write {vertex} as Vertex AI has it."
    if resources.cpu_limit > _MOST_CPUS:
        yield f"cpuLimit is {resources.cpu_limit:g}; Vertex AI has at most {_MOST_CPUS}."
    if resources.memory_limit > _MOST_GB:
        yield f"memoryLimit is {resources.memory_limit:g} GB; Vertex AI has at most {_MOST_GB}."
