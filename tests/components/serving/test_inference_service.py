"""The InferenceService against the schema of KServe's own CRD, and the real command line.

inferenceservice-v1beta1.json.gz is `spec.versions[v1beta1].schema.openAPIV3Schema`, without its
descriptions and `status`, of charts/kserve-crd/templates/serving.kserve.io_inferenceservices.yaml
in github.com/kserve/kserve, v0.20.0 (commit 1fb781055dd1567164358233e1125142ca6ef1fe).
"""

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from components.serving.settings import GRACE_SECONDS
from pipeline.cli import app

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


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """What the command prints."""
    arguments = ["--image", "registry.example/pipeline:1", "--config", "taxi"]
    arguments += ["--set", "registry.model=Taxi_2", "--claim", "models"]
    printed = CliRunner().invoke(app, ["inference-service", *arguments])
    assert printed.exit_code == 0, printed.output
    document: dict[str, Any] = yaml.safe_load(printed.stdout)
    return document


def test_it_fits_the_schema_in_which_a_misspelt_field_is_refused(
    validator: jsonschema.Draft202012Validator, made: dict[str, Any]
) -> None:
    assert list(validator.iter_errors(made)) == []
    document = copy.deepcopy(made)
    document["spec"]["predictor"]["containers"][0]["livenesProbe"] = {}
    assert not validator.is_valid(document)


def test_the_values_are_filled_in_and_fit_each_other(made: dict[str, Any]) -> None:
    predictor = made["spec"]["predictor"]
    (container,) = predictor["containers"]
    (volume,) = predictor["volumes"]
    names = (
        made["metadata"]["name"],
        container["image"],
        volume["persistentVolumeClaim"]["claimName"],
    )
    assert names == ("taxi-2", "registry.example/pipeline:1", "models")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probes = [container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")]
    assert {probe["httpGet"]["port"] for probe in probes} == {ports["http1"]}
    sets = {f"--set=serving.http_port={ports['http1']}", f"--set=serving.grpc_port={ports['grpc']}"}
    assert sets <= {*container["args"]}
    assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/app/workspace"}]
    assert predictor["terminationGracePeriodSeconds"] > GRACE_SECONDS + 5


def test_the_command_line_takes_the_arguments(tmp_path: Path, made: dict[str, Any]) -> None:
    container = made["spec"]["predictor"]["containers"][0]
    assert container["command"] == ["python", "-m", "pipeline"]
    found = CliRunner().invoke(app, [*container["args"], f"--set=workspace={tmp_path}"])
    # Past the arguments and the settings, as far as one gets without a model.
    assert "There are no versions" in found.output, found.output
