"""The InferenceService against the schema of KServe's own CRD, and the real command line.

inferenceservice-v1beta1.json.gz is `spec.versions[v1beta1].schema.openAPIV3Schema`, without its
descriptions and `status`, of charts/kserve-crd/templates/serving.kserve.io_inferenceservices.yaml
in github.com/kserve/kserve, v0.20.0 (commit 1fb781055dd1567164358233e1125142ca6ef1fe).
"""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from components.serving import inference_service
from components.serving.settings import GRACE_SECONDS

_HERE = Path(__file__).parent


def strict(schema: Any) -> Any:
    """The schema with unknown fields refused: a cluster drops them silently."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(part) for name, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        made["properties"] = {name: strict(part) for name, part in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    return made


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    packed = (_HERE / "inferenceservice-v1beta1.json.gz").read_bytes()
    return jsonschema.Draft202012Validator(strict(json.loads(gzip.decompress(packed))))


def made() -> dict[str, Any]:
    text = inference_service.make("taxi", "registry.example/pipeline:1", "workspace", "automated")
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def errors(validator: jsonschema.Draft202012Validator, document: dict[str, Any]) -> list[str]:
    return [f"{e.json_path}: {e.message}" for e in validator.iter_errors(document)]


def test_it_fits_the_schema(validator: jsonschema.Draft202012Validator) -> None:
    assert errors(validator, made()) == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ((), "predictor"),
        (("predictor",), "minReplica"),
        (("predictor", "containers", 0), "livenesProbe"),
        (("predictor", "containers", 0, "readinessProbe", "httpGet"), "url"),
        (("predictor", "containers", 0, "securityContext"), "runAsRoot"),
        (("predictor", "volumes", 0, "persistentVolumeClaim"), "claim"),
    ],
)
def test_a_field_that_is_misspelt_is_refused(
    validator: jsonschema.Draft202012Validator, path: tuple[Any, ...], name: str
) -> None:
    document = made()
    place = document["spec"]
    for step in path:
        place = place[step]
    place[f"{name}x"] = {}
    assert any(f"'{name}x' was unexpected" in error for error in errors(validator, document))


def test_a_wrong_type_is_refused(validator: jsonschema.Draft202012Validator) -> None:
    document = made()
    document["spec"]["predictor"]["minReplicas"] = "one"
    assert errors(validator, document)


def test_probes_ask_the_port_and_the_volume_is_the_mounted_one() -> None:
    predictor = made()["spec"]["predictor"]
    container = predictor["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probes = [container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")]
    assert {probe["httpGet"]["port"] for probe in probes} == {ports["http1"]}
    assert f"--set=serving.http_port={ports['http1']}" in container["args"]
    assert f"--set=serving.grpc_port={ports['grpc']}" in container["args"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted == {predictor["volumes"][0]["name"]: "/app/workspace"}
    assert predictor["terminationGracePeriodSeconds"] > GRACE_SECONDS


def test_the_command_line_takes_the_arguments(tmp_path: Path) -> None:
    container = made()["spec"]["predictor"]["containers"][0]
    command = [sys.executable, *container["command"][1:], *container["args"]]
    found = subprocess.run(
        [*command, f"--set=workspace={tmp_path}"],
        cwd=_HERE.parents[2],
        capture_output=True,
        text=True,
    )
    # Past the arguments and the settings, as far as one gets without a model.
    assert "There are no versions" in found.stderr, found.stderr
