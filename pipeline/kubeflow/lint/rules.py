"""The rules, and what a broken one looks like."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Violation:
    """A rule that a package breaks.

    Attributes:
      step: the task's id; empty for the package.
      rule: a name from `RULES`.
      text: what came and what to do, in a sentence.
    """

    step: str
    rule: str
    text: str


RULES = {
    "spec-format": "An unknown field or a wrong value: the upload is refused.",
    "executor-format": "Unknown fields of an executor are silently ignored.",
    "platform-format": (
        "An unknown field of an executor is refused when the run is created; one further out makes "
        "the backend ignore the whole document."
    ),
    "schema-version": "`KFP only supports schema version 2.1.0`; Vertex AI also takes 2.0.0.",
    "pipeline-name": (
        "`pipeline's name must contain only lowercase alphanumeric characters or '-'`, 128 at most."
    ),
    "pipeline-root": (
        "The backend ignores it and writes elsewhere: the root is an argument of the run."
    ),
    "task-id": "Argo and Kubernetes take no underscores, capitals or long names.",
    "task-name": (
        "Without taskInfo the driver says `task spec is required`; an importer registers its "
        "artifact under that name, and is looked up under the task's id."
    ),
    "name-prefix": "kfp.local cuts off the first five characters.",
    "reserved-output": "The driver adds an output executor-logs to each task, over one's own.",
    "unknown-component": "`cannot find component ref`, when the run is created.",
    "unknown-executor": "`executor not found in deployment config`, when the run is created.",
    "unused": "Nothing runs it: a step was renamed or taken out by halves.",
    "cycle": "Argo refuses the run.",
    "unknown-task": "`unknown producer task in DAG`, when the run is created.",
    "unknown-output": (
        "Nothing checks it: the driver of the task that reads it fails, after the producer has run."
    ),
    "dependency-missing": (
        "KFP's backend adds it itself; kfp.local orders the tasks by dependentTasks alone."
    ),
    "unknown-component-input": "`parent DAG does not have input parameter`, from the driver.",
    "runtime-parameter": (
        "`param runtime value spec not implemented`, from the driver; only importers know it."
    ),
    "constant-value": "The constants of schema 2.0 fail in the driver, at run time.",
    "undeclared-input": "Nothing checks it: the step gets an input of unknown type.",
    "missing-input": (
        "`neither value nor default value provided for non-optional parameter`, from the driver; a "
        "default alone doesn't help: the driver applies none to what is not optional."
    ),
    "parameter-type": "`input parameter type mismatch`, from the driver.",
    "artifact-type": "Nothing checks it: the step reads another artifact than it expects.",
    "artifact-schema": "The launcher dies of `No title specified` when it records the artifact.",
    "root-parameter": (
        "`parameter is not optional, yet has neither default value nor user provided value`; TFX "
        "drops its RuntimeParameters' defaults."
    ),
    "default-type": "The API server takes it; the driver of the task that reads it fails.",
    "untyped-parameter": (
        "`input parameter has unspecified type`; the field `type` of schema 2.0 doesn't count."
    ),
    "executor-kind": (
        "`non-container and non-importer executor not implemented`: the upload is accepted, the "
        "run is not."
    ),
    "no-command": "`command and arguments are empty`: the image's ENTRYPOINT is never used.",
    "no-image": "Kubernetes refuses the pod, at run time.",
    "pre-cache-check": "The backend ignores it; only Vertex AI runs such drivers.",
    "secret-in-env": "A package is stored, copied and shown: no secret belongs into it.",
    "twin-containers": (
        "The backend files a component under its container's hash, so of two components with one "
        "container both get the inputs and outputs of the first."
    ),
    "importer-condition": (
        "`triggerPolicy.condition on importer task is not supported`, when the run is created."
    ),
    "importer-uri": (
        "The importer takes a parameter's value from the pipeline's, never from the task, and "
        "understands the URIs of object stores."
    ),
    "condition-input": "`no such key`: the driver reads a condition on the task's own inputs.",
    "condition-metadata": (
        "`no such key` fails the driver if the producer didn't write it; what its output's "
        "definition gives as metadata is always there."
    ),
    "retry-limit": (
        "`Max duration limit exceeded`: without it no retry ever happens; it counts from the first "
        "attempt's start, so it has to cover the attempts themselves."
    ),
    "retry-factor": "Argo reads a whole number, and cannot go on at the first retry without one.",
    "cached-in-vain": "The values of the inputs are in KFP's cache key, so it never hits.",
    "never-cached": (
        "It would bring back an old answer: KFP's cache key doesn't know what the task reads."
    ),
    "too-large": (
        "The backend passes it as one argument of a command, and Linux takes 128 KiB: the driver "
        "doesn't start."
    ),
    "rewritten-text": "Kubernetes makes $ of $$, and a variable's value of $(NAME).",
    "placeholder": (
        "Argo takes double braces for its own variables; KFP replaces a few, by their exact "
        "spelling, and leaves the others as they are."
    ),
    "resource-field": (
        "Those fields are Vertex AI's: the driver still reads them, an accelerator's type as the "
        "name of a Kubernetes resource that no node has."
    ),
    "quantity": "The driver fails to parse it, when the step should start.",
    "request-above-limit": "Kubernetes refuses the pod, at run time.",
    "accelerator": (
        "Without both a type and a count the driver leaves the accelerator out; Kubernetes takes "
        "qualified names and whole numbers only."
    ),
    "tpu-node": "GKE finds a TPU node by these labels; without them the pod waits for ever.",
    "platform-kubernetes": "The backend reads platforms.kubernetes only, and ignores the rest.",
    "platform-executor": "Unknown labels are accepted, and what they say is lost.",
    "ignored-field": "The backend accepts the field, and does nothing with it.",
    "platform-incomplete": (
        "The driver fails when the step should start, or the variable is silently not set."
    ),
    "pull-policy": "`ImagePullPolicy should be one of 'Always', 'Never' or 'IfNotPresent'`.",
    "platform-reference": "The driver can't resolve the name when the step should start.",
    "mount-path": "Kubernetes refuses the pod, or KFP's own files disappear below the volume.",
    "volume-name": "Kubernetes refuses the pod: KFP names the volume after what is in it.",
    "vertex-platform": "Vertex AI has no Kubernetes settings: they would be lost.",
    "vertex-pipeline-root": "Vertex AI keeps artifacts in Cloud Storage.",
    "vertex-resource": (
        "Vertex AI takes limits, up to 96 CPUs and 624 GB, and picks a machine; Kubernetes' names "
        "mean nothing to it."
    ),
}
"""Name -> why: what Kubeflow Pipelines 2.17 says or does."""
