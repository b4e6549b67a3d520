"""A small good package, and changes that each break one rule."""

from typing import Any, NamedTuple

import yaml

Document = dict[str, Any]

SPEC, PLATFORM = yaml.safe_load_all(
    """
pipelineInfo: {name: taxi}
schemaVersion: 2.1.0
sdkVersion: kfp-2.16.1
root:
  inputDefinitions:
    parameters:
      data: {parameterType: STRING, defaultValue: "s3://bucket/data"}
      steps: {parameterType: NUMBER_INTEGER, defaultValue: 100}
  dag:
    tasks:
      examples:
        taskInfo: {name: examples}
        componentRef: {name: comp-examples}
        inputs: {parameters: {uri: {componentInputParameter: data}}}
      trainer:
        taskInfo: {name: trainer}
        componentRef: {name: comp-trainer}
        dependentTasks: [examples]
        retryPolicy:
          {maxRetryCount: 2, backoffDuration: 5s, backoffFactor: 2, backoffMaxDuration: 3600s}
        inputs:
          artifacts:
            examples:
              taskOutputArtifact: {producerTask: examples, outputArtifactKey: examples}
          parameters:
            steps: {componentInputParameter: steps}
            rate: {runtimeValue: {constant: 0.1}}
            run: {runtimeValue: {constant: "{{$.pipeline_job_uuid}}"}}
            note: {runtimeValue: {constant: 'costs $5 {"a": {"b": 1}}'}}
      evaluator:
        taskInfo: {name: evaluator}
        componentRef: {name: comp-evaluator}
        dependentTasks: [trainer]
        triggerPolicy:
          condition: >-
            inputs.parameter_values['loss'] < 0.5 &&
            inputs.artifacts['model'].artifacts[0].metadata['whole'] == 1
        inputs:
          artifacts:
            model: {taskOutputArtifact: {producerTask: trainer, outputArtifactKey: model}}
          parameters:
            loss: {taskOutputParameter: {producerTask: trainer, outputParameterKey: loss}}
components:
  comp-examples:
    executorLabel: exec-examples
    inputDefinitions: {parameters: {uri: {parameterType: STRING}}}
    outputDefinitions:
      artifacts: {examples: {artifactType: {instanceSchema: "title: tfx.Examples"}}}
  comp-trainer:
    executorLabel: exec-trainer
    inputDefinitions:
      artifacts: {examples: {artifactType: {instanceSchema: "title: tfx.Examples"}}}
      parameters:
        steps: {parameterType: NUMBER_INTEGER}
        rate: {parameterType: NUMBER_DOUBLE}
        run: {parameterType: STRING}
        note: {parameterType: STRING}
        depth: {parameterType: NUMBER_INTEGER, defaultValue: 3, isOptional: true}
    outputDefinitions:
      artifacts:
        model:
          artifactType: {instanceSchema: "title: tfx.Model\\ntype: object"}
          metadata: {whole: 0}
      parameters: {loss: {parameterType: NUMBER_DOUBLE}}
  comp-evaluator:
    executorLabel: exec-evaluator
    inputDefinitions:
      artifacts: {model: {artifactType: {instanceSchema: "title: tfx.Model"}}}
      parameters: {loss: {parameterType: NUMBER_DOUBLE}}
deploymentSpec:
  executors:
    exec-examples:
      importer:
        artifactUri: {runtimeParameter: uri}
        typeSchema: {instanceSchema: "title: tfx.Examples"}
    exec-trainer:
      container:
        image: registry.example/taxi:1
        command: [python, -m, steps]
        args:
          - --input={{$}}
          - "{{$.inputs.artifacts['examples'].path}}"
          - "{{$.inputs.parameters['steps']}}"
          - "{{$.outputs.artifacts['model'].uri}}"
          - "{{$.outputs.parameters['loss'].output_file}}"
          - '{"IfPresent": {"InputName": "depth", "Then": "{{$.inputs.parameters[''depth'']}}"}}'
        env:
          - {name: TOKENIZERS_PARALLELISM, value: "false"}
          - {name: KEY_FILE, value: /etc/key}
        resources:
          resourceCpuRequest: 500m
          resourceCpuLimit: "2"
          resourceMemoryRequest: 1G
          resourceMemoryLimit: 8Gi
          accelerator: {resourceType: nvidia.com/gpu, resourceCount: "1"}
    exec-evaluator:
      container: {image: registry.example/taxi:1, command: [python, -m, steps]}
---
platforms:
  kubernetes:
    deploymentSpec:
      executors:
        exec-trainer:
          pvcMount:
            - mountPath: /mnt/registry
              pvcNameParameter: {runtimeValue: {constant: registry}}
            - mountPath: /mnt/data
              pvcNameParameter: {componentInputParameter: data}
          secretAsEnv:
            - secretNameParameter: {runtimeValue: {constant: tracking}}
              keyToEnv: [{secretKey: token, envVar: TRACKING_TOKEN}]
          emptyDirMounts:
            - {volumeName: shm, mountPath: /dev/shm, medium: Memory, sizeLimit: 1Gi}
          imagePullPolicy: IfNotPresent
          activeDeadlineSeconds: "3600"
          nodeSelector: {labels: {disk: fast}}
"""
)

VERTEX_RESOURCES = {
    "resourceCpuRequest": None,
    "resourceMemoryRequest": None,
    "cpuLimit": 2,
    "memoryLimit": 8,
    "accelerator": {"type": "NVIDIA_TESLA_T4", "count": 1},
}
"""What the good package needs for Vertex AI, beside doing without the platform document."""


class Bad(NamedTuple):
    """A change that breaks a rule: merge patches, as in RFC 7396, of the good package."""

    rule: str
    step: str
    spec: Document
    platform: Document | None = None
    target: str = "kubeflow"


def task(name: str, **change: Any) -> Document:
    return {"root": {"dag": {"tasks": {name: change}}}}


def component(name: str, **change: Any) -> Document:
    return {"components": {f"comp-{name}": change}}


def executor(name: str, **change: Any) -> Document:
    return {"deploymentSpec": {"executors": {f"exec-{name}": change}}}


def container(name: str, **change: Any) -> Document:
    return executor(name, container=change)


def resources(**change: Any) -> Document:
    return container("trainer", resources=change)


def constant(name: str, value: Any) -> Document:
    """A constant input of the trainer."""
    return task("trainer", inputs={"parameters": {name: {"runtimeValue": {"constant": value}}}})


def parameter(name: str, **change: Any) -> Document:
    """An input of the trainer."""
    return task("trainer", inputs={"parameters": {name: change}})


def definition(name: str, **change: Any) -> Document:
    """A parameter of the trainer's component."""
    return component("trainer", inputDefinitions={"parameters": {name: change}})


def config(label: str = "exec-trainer", **change: Any) -> Document:
    """What Kubernetes is told about an executor."""
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {label: change}}}}}


def claim(path: str, name: str = "registry") -> Document:
    return {"mountPath": path, "pvcNameParameter": {"runtimeValue": {"constant": name}}}


def model_of_trainer(**change: Any) -> Document:
    return component("trainer", outputDefinitions={"artifacts": {"model": change}})


EVALUATOR = SPEC["root"]["dag"]["tasks"]["evaluator"]
LIKE_EVALUATOR = {
    **task("second", taskInfo={"name": "second"}, componentRef={"name": "comp-second"}),
    **component("second", executorLabel="exec-evaluator"),
}
TPU = {"resourceType": "google.com/tpu", "resourceCount": "4"}

BAD = [
    Bad("spec-format", "", {"pipelineInfo": {"owner": "me"}}),
    Bad("spec-format", "trainer", task("trainer", retryPolicy={"backoffDuration": "5m"})),
    Bad("spec-format", "evaluator", task("evaluator", triggerPolicy={"strategy": "SOMETIMES"})),
    Bad("executor-format", "evaluator", container("evaluator", workingDir="/work")),
    Bad("platform-format", "trainer", {}, config(priorityClassName="high")),
    Bad("schema-version", "", {"schemaVersion": "2.0.0"}),
    Bad("schema-version", "", {"schemaVersion": "2.2.0"}, target="vertex"),
    Bad("pipeline-name", "", {"pipelineInfo": {"name": "my_taxi"}}),
    Bad("pipeline-name", "", {"pipelineInfo": {"name": "t" * 129}}),
    Bad("pipeline-root", "", {"defaultPipelineRoot": "minio://mlpipeline/v2/artifacts"}),
    Bad("task-id", "the_last", task("the_last", **EVALUATOR | {"taskInfo": {"name": "the_last"}})),
    Bad("task-name", "evaluator", task("evaluator", taskInfo=None)),
    Bad("name-prefix", "evaluator", {
        **task("evaluator", componentRef={"name": "evaluator"}),
        "components": {"comp-evaluator": None, "evaluator": SPEC["components"]["comp-evaluator"]},
    }),
    Bad("reserved-output", "trainer", component("trainer", outputDefinitions={
        "artifacts": {"executor-logs": {"artifactType": {"schemaTitle": "system.Artifact"}}}
    })),
    Bad("unknown-component", "second", task(
        "second", taskInfo={"name": "second"}, componentRef={"name": "comp-second"}
    )),
    Bad("unknown-executor", "second", LIKE_EVALUATOR | component(
        "second", executorLabel="exec-second"
    )),
    Bad("unused", "", component("second", executorLabel="exec-evaluator")),
    Bad("unused", "", executor("second", container={"image": "a", "command": ["b"]})),
    Bad("cycle", "evaluator", task("trainer", dependentTasks=["examples", "evaluator"])),
    Bad("unknown-task", "trainer", task("trainer", dependentTasks=["examples", "gone"])),
    Bad("unknown-output", "evaluator", task("evaluator", inputs={
        "artifacts": {"model": {"taskOutputArtifact": {"outputArtifactKey": "weights"}}}
    })),
    Bad("dependency-missing", "evaluator", task("evaluator", dependentTasks=None)),
    Bad("unknown-component-input", "trainer", parameter("steps", componentInputParameter="step")),
    Bad("runtime-parameter", "trainer", parameter(
        "note", runtimeValue={"constant": None, "runtimeParameter": "data"}
    )),
    Bad("constant-value", "trainer", parameter(
        "note", runtimeValue={"constant": None, "constantValue": {"stringValue": "plain"}}
    )),
    Bad("undeclared-input", "trainer", constant("extra", "plain")),
    Bad("missing-input", "trainer", definition("depth", isOptional=None)),
    Bad("missing-input", "trainer", parameter("depth", runtimeValue={})),
    Bad("parameter-type", "trainer", constant("rate", "fast")),
    Bad("parameter-type", "trainer", parameter("steps", componentInputParameter="data")),
    Bad("parameter-type", "evaluator", component("trainer", outputDefinitions={
        "parameters": {"loss": {"parameterType": "LIST"}}
    })),
    Bad("artifact-type", "evaluator", model_of_trainer(
        artifactType={"instanceSchema": "title: tfx.Examples"}
    )),
    Bad("artifact-schema", "trainer", component("trainer", outputDefinitions={
        "artifacts": {"log": {"artifactType": {"instanceSchema": "type: object"}}}
    })),
    Bad("artifact-schema", "examples", executor("examples", importer={"typeSchema": None})),
    Bad("root-parameter", "", {"root": {"inputDefinitions": {
        "parameters": {"data": {"defaultValue": None}}
    }}}),
    Bad("default-type", "", {"root": {"inputDefinitions": {
        "parameters": {"steps": {"defaultValue": 1.5}}
    }}}),
    Bad("default-type", "trainer", definition("depth", defaultValue="3")),
    Bad("untyped-parameter", "trainer", definition("note", parameterType=None, type="STRING")),
    Bad("executor-kind", "evaluator", executor("evaluator", container=None, resolver={})),
    Bad("no-command", "evaluator", container("evaluator", command=None)),
    Bad("no-image", "evaluator", container("evaluator", image=None)),
    Bad("pre-cache-check", "evaluator", container("evaluator", lifecycle={
        "preCacheCheck": {"command": ["python"]}
    })),
    Bad("secret-in-env", "evaluator", container("evaluator", env=[
        {"name": "AWS_SECRET_ACCESS_KEY", "value": "abc"}
    ])),
    Bad("twin-containers", "second", LIKE_EVALUATOR),
    Bad("importer-condition", "examples", task("examples", triggerPolicy={"condition": "true"})),
    Bad("importer-uri", "examples", task("examples", inputs={"parameters": {"uri": {
        "componentInputParameter": None, "runtimeValue": {"constant": "s3://bucket/data"}
    }}})),
    Bad("importer-uri", "examples", executor("examples", importer={
        "artifactUri": {"runtimeParameter": None, "constant": "/mnt/data"}
    })),
    Bad("condition-input", "evaluator", task("evaluator", triggerPolicy={
        "condition": "inputs.artifacts['_trainer.model'].artifacts[0].uri != ''"
    })),
    Bad("condition-input", "evaluator", task("evaluator", triggerPolicy={
        "condition": "inputs.parameters['loss'].double_value < 0.5"
    })),
    Bad("condition-metadata", "evaluator", model_of_trainer(metadata=None)),
    Bad("retry-limit", "trainer", task("trainer", retryPolicy={"backoffMaxDuration": None})),
    Bad("retry-limit", "trainer", task("trainer", retryPolicy={"backoffMaxDuration": "0.5s"})),
    Bad("retry-limit", "trainer", task("trainer", retryPolicy={"maxRetryCount": None})),
    Bad("retry-factor", "trainer", task("trainer", retryPolicy={"backoffFactor": 1.5})),
    Bad("cached-in-vain", "trainer", task("trainer", cachingOptions={"enableCache": True})),
    Bad("never-cached", "evaluator", task("evaluator", cachingOptions={"enableCache": True})),
    Bad("too-large", "evaluator", container("evaluator", args=["x" * 102_400])),
    Bad("too-large", "evaluator", container("evaluator", args=["<" * 20_000])),
    Bad("rewritten-text", "trainer", constant("note", "process $$")),
    Bad("rewritten-text", "evaluator", container("evaluator", env=[
        {"name": "HOME", "value": "$(HOME)/work"}
    ])),
    Bad("rewritten-text", "", {"root": {"inputDefinitions": {
        "parameters": {"data": {"defaultValue": "$$data"}}
    }}}),
    Bad("placeholder", "trainer", constant("note", "{{workflow.name}}")),
    Bad("placeholder", "trainer", constant("note", "run {{$.pipeline_job_uuid}}")),
    Bad("placeholder", "evaluator", container("evaluator", args=["{{$.outputs.output_file}}"])),
    Bad("placeholder", "evaluator", container("evaluator", args=["{{$.pipeline_job_uuid}}"])),
    Bad("placeholder", "examples", executor("examples", importer={
        "artifactUri": {"runtimeParameter": None, "constant": "s3://{{workflow.name}}"}
    })),
    Bad("placeholder", "evaluator", container(
        "evaluator", args=["{{$.inputs.parameters['steps']}}"]
    )),
    Bad("placeholder", "evaluator", container("evaluator", env=[{"name": "A", "value": "{{$}}"}])),
    Bad("placeholder", "trainer", {}, config(podMetadata={"annotations": {"run": "{{retries}}"}})),
    Bad("resource-field", "trainer", resources(resourceCpuLimit=None, cpuLimit=2)),
    Bad("quantity", "trainer", resources(resourceMemoryLimit="8GB")),
    Bad("quantity", "trainer", {}, config(emptyDirMounts=[
        {"volumeName": "shm", "mountPath": "/dev/shm", "sizeLimit": "1 Gi"}
    ])),
    Bad("request-above-limit", "trainer", resources(resourceMemoryRequest="9000M")),
    Bad("accelerator", "trainer", resources(accelerator={"resourceType": "gpu"})),
    Bad("accelerator", "trainer", resources(accelerator={"resourceCount": None})),
    Bad("tpu-node", "trainer", resources(accelerator=TPU)),
    Bad("platform-kubernetes", "", {}, {"platforms": {"other": {}}}),
    Bad("platform-executor", "", {}, config("exec-gone", imagePullPolicy="Always")),
    Bad("ignored-field", "trainer", {}, config(enabledSharedMemory={"size": "1Gi"})),
    Bad("ignored-field", "trainer", {}, config(podAffinity=[{"topologyKey": "zone"}])),
    Bad("ignored-field", "trainer", {}, config(activeDeadlineSeconds="-1")),
    Bad("platform-incomplete", "trainer", {}, config(secretAsEnv=[
        {"secretName": "tracking", "keyToEnv": [{"secretKey": "token"}]}
    ])),
    Bad("platform-incomplete", "trainer", {}, config(pvcMount=[{"mountPath": "/mnt/data"}])),
    Bad("pull-policy", "trainer", {}, config(imagePullPolicy="Sometimes")),
    Bad("platform-reference", "trainer", {}, config(pvcMount=[
        {"mountPath": "/mnt/data", "componentInputParameter": "claim"}
    ])),
    Bad("platform-reference", "trainer", {}, config(tolerations=[
        {"tolerationJson": {"taskOutputParameter": {"producerTask": "examples"}}}
    ])),
    Bad("mount-path", "trainer", {}, config(pvcMount=[claim("mnt/data")])),
    Bad("mount-path", "trainer", {}, config(pvcMount=[claim("/mnt/data"), claim("/mnt/data/")])),
    Bad("mount-path", "trainer", {}, config(pvcMount=[claim("/tmp/kfp/outputs")])),
    Bad("volume-name", "trainer", {}, config(pvcMount=[claim("/mnt/data", "my.data")])),
    Bad("vertex-platform", "", {}, config(imagePullPolicy="Always"), target="vertex"),
    Bad("vertex-pipeline-root", "", {"defaultPipelineRoot": "s3://bucket"}, target="vertex"),
    Bad("vertex-resource", "trainer", resources(cpuLimit=None), target="vertex"),
    Bad("vertex-resource", "trainer", resources(memoryRequest=4), target="vertex"),
    Bad("vertex-resource", "trainer", resources(cpuLimit=128), target="vertex"),
    Bad("vertex-resource", "trainer", resources(memoryLimit=1000), target="vertex"),
]  # fmt: skip
"""At least one for each rule."""
