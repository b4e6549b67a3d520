"""What a compiled package must not contain, found before the backend sees it.

The API server checks little when a package is uploaded: most mistakes show when the run is
created, in a driver's log minutes later, or never. Every rule here stands for something that
Kubeflow Pipelines 2.17 refuses, ignores or gets wrong; `RULES` says what.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal

from pipeline.kubeflow.lint import (
    conditions,
    containers,
    formats,
    graph,
    importers,
    inputs,
    mounts,
    names,
    parameters,
    platform_document,
    references,
    resources,
    sizes,
    tasks,
    text,
    vertex,
)
from pipeline.kubeflow.lint.reading import Package, read
from pipeline.kubeflow.lint.rules import RULES, Violation

__all__ = ["RULES", "Target", "Violation", "check"]

Target = Literal["kubeflow", "vertex"]
Rule = Callable[[Package], Iterable[Violation]]

_BOTH: tuple[Rule, ...] = (
    names.pipeline_name,
    graph.components,
    graph.executors,
    graph.unused,
    graph.cycles,
    references.producers,
    references.dependencies,
    references.component_inputs,
    inputs.undeclared,
    inputs.missing,
    inputs.parameter_types,
    inputs.artifact_types,
    parameters.root,
    parameters.defaults,
    containers.image,
    containers.secrets,
    conditions.inputs,
)
_KUBEFLOW: tuple[Rule, ...] = (
    names.schema_version,
    names.pipeline_root,
    names.tasks,
    names.prefixes,
    names.reserved,
    references.runtime_parameters,
    references.constant_values,
    parameters.types,
    inputs.artifact_schemas,
    containers.kinds,
    containers.command,
    containers.pre_cache_check,
    containers.twins,
    importers.condition,
    importers.uri,
    importers.schema,
    conditions.metadata,
    tasks.retry_limits,
    tasks.retry_factors,
    tasks.cached_in_vain,
    sizes.too_large,
    text.rewritten,
    text.placeholders,
    resources.deprecated,
    resources.quantities,
    resources.requests,
    resources.accelerators,
    resources.tpu_nodes,
    platform_document.kubernetes,
    platform_document.executors,
    platform_document.ignored,
    platform_document.incomplete,
    platform_document.pull_policy,
    platform_document.references,
    mounts.paths,
    mounts.names,
)
_VERTEX: tuple[Rule, ...] = (
    vertex.schema_version,
    vertex.platform_document,
    vertex.pipeline_root,
    vertex.resources,
)


def check(
    spec: Mapping[str, Any],
    platform: Mapping[str, Any] | None,
    target: Target = "kubeflow",
    never_cached: Collection[str] = (),
) -> list[Violation]:
    """Everything that is wrong with a package.

    Args:
      spec: the PipelineSpec, the package's first YAML document.
      platform: what Kubernetes is told about the executors, the second one.
      target: the backend that the package is for.
      never_cached: ids of tasks that read what the backend's cache key does not know.

    Returns:
      The violations by step. If a document has not even the shape of its message, the violations
      of its format alone.
    """
    package = read(spec, platform)
    found = list(formats.check(spec, platform, package))
    if package is not None:
        for rule in _BOTH + (_KUBEFLOW if target == "kubeflow" else _VERTEX):
            found += rule(package)
        found += tasks.never_cached(package, never_cached)
    return sorted(set(found), key=lambda v: (v.step, v.rule, v.text))
