"""Retries and caching."""

from collections.abc import Collection, Iterator

from pipeline.kubeflow.lint.reading import Package
from pipeline.kubeflow.lint.rules import Violation
from pipeline.kubeflow.lint.text import OF_THE_JOB

_OF_THE_RUN = OF_THE_JOB - {"{{$.pipeline_task_name}}"}


def retry_limits(package: Package) -> Iterator[Violation]:
    """Retries that never happen."""
    for task in package.tasks:
        policy = task.spec.retry_policy
        if not task.spec.HasField("retry_policy"):
            continue
        # Fractions of a second are cut off.
        if policy.max_retry_count < 1 or policy.backoff_max_duration.seconds < 1:
            text = (
                "retryPolicy needs a maxRetryCount and a backoffMaxDuration of a second or more; "
                "set the duration above the time that all attempts may take."
            )
            yield Violation(task.id, "retry-limit", text)


def retry_factors(package: Package) -> Iterator[Violation]:
    """Factors that Argo can't read."""
    for task in package.tasks:
        if not (factor := task.spec.retry_policy.backoff_factor).is_integer():
            text = f"retryPolicy's backoffFactor is {factor:g}; write a whole number."
            yield Violation(task.id, "retry-factor", text)


def cached_in_vain(package: Package) -> Iterator[Violation]:
    """Cached tasks with an input that every run has anew."""
    for task in package.tasks:
        for name, given in task.spec.inputs.parameters.items():
            value = given.runtime_value.constant.string_value
            if task.spec.caching_options.enable_cache and value in _OF_THE_RUN:
                text = f"It is cached, but input {name!r} is {value}; do without one of the two."
                yield Violation(task.id, "cached-in-vain", text)


def never_cached(package: Package, ids: Collection[str]) -> Iterator[Violation]:
    """Tasks that are cached and must not be.

    Args:
      package: the package.
      ids: the tasks that must not be.
    """
    for task in package.tasks:
        if task.id in ids and task.spec.caching_options.enable_cache:
            text = "It is cached and must run each time; leave its cachingOptions empty."
            yield Violation(task.id, "never-cached", text)
