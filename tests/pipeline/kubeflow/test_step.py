"""A step's entrypoint, as a launcher calls it: real executors in real processes."""

import json
import subprocess
import sys

import pandas as pd
import pytest
import tensorflow_data_validation as tfdv

from pipeline import loading
from pipeline.fingerprint import code_fingerprint
from pipeline.kubeflow.step import artifacts, paths
from pipeline.schema import read_schema

SCHEMA = {
    "component": "CuratedSchema",
    "executor": "components.features.schema.CuratedSchema_Executor",
    "inputs": {},
    "outputs": {"schema": "tfx.types.standard_artifacts.Schema"},
    "optional": [],
    "messages": {},
    "beam": [],
    "code": {},
}


def run(folder, step, inputs=None, **values):
    """Runs a step on plain paths; returns how it ended, and what it wrote."""
    read = {name: {"artifacts": [one]} for name, one in (inputs or {}).items()}
    made = {
        name: {"artifacts": [{"name": name, "uri": str(folder / name), "metadata": {}}]}
        for name in (*step["outputs"], "executor-logs")
    }
    outputs = {"artifacts": made, "outputFile": str(folder / "deep" / "output_metadata.json")}
    given = {"inputs": {"parameterValues": values, "artifacts": read}, "outputs": outputs}
    command = [sys.executable, "-m", "pipeline.kubeflow.step", "--step", json.dumps(step)]
    done = subprocess.run(
        [*command, "--input", json.dumps(given)],
        cwd=loading.PROJECT,
        capture_output=True,
        text=True,
    )
    written = folder / "deep" / "output_metadata.json"
    return done, json.loads(written.read_text()) if written.exists() else None


def test_an_executor_runs_and_its_outputs_are_described(tmp_path):
    step = SCHEMA | {"code": {m: code_fingerprint(m) for m in ["components.features.schema"]}}
    done, written = run(tmp_path, step, file="tests/taxi/taxi.schema.pbtxt", fingerprint="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "CuratedSchema is done."
    [schema] = written["artifacts"]["schema"]["artifacts"]
    assert schema["uri"] == str(tmp_path / "schema")
    assert schema["metadata"].keys() == {"tfx_version"}
    assert written["artifacts"].keys() == {"schema"}
    original = read_schema(loading.CONFIGS / "taxi.schema.pbtxt")
    [file] = (tmp_path / "schema").iterdir()
    assert [*read_schema(file).feature] == [*original.feature]


DRIFT = {
    "component": "DriftFromTraining",
    "executor": "tfx.components.distribution_validator.executor.Executor",
    "inputs": {
        name: "tfx.types.standard_artifacts.ExampleStatistics"
        for name in ("statistics", "baseline_statistics")
    },
    "outputs": {"anomalies": "tfx.types.standard_artifacts.ExampleAnomalies"},
    "optional": [],
    "messages": {
        "distribution_validator_config": (
            "tfx.proto.distribution_validator_pb2.DistributionValidatorConfig"
        )
    },
    "beam": [],
    "code": {},
}


def test_a_property_that_is_a_message_is_one_again(tmp_path):
    """And a property of several values is written, as TFX's DistributionValidator sets it."""
    limits = [{"path": {"step": ["fare"]}, "distribution_comparator": {
        "jensen_shannon_divergence": {"threshold": 0.1}
    }}]  # fmt: skip
    inputs = {}
    for name, split, fares in (
        ("statistics", "test", [1.0, 2.0, 9.0]),
        ("baseline_statistics", "training", [1.0, 2.0, 3.0]),
    ):
        folder = tmp_path / name / f"Split-{split}"
        folder.mkdir(parents=True)
        found = tfdv.generate_statistics_from_dataframe(pd.DataFrame({"fare": fares}))
        (folder / "FeatureStats.pb").write_bytes(found.SerializeToString())
        metadata = {"split_names": json.dumps([split])}
        inputs[name] = {"uri": str(tmp_path / name), "metadata": metadata}
    done, written = run(
        tmp_path,
        DRIFT,
        inputs,
        distribution_validator_config=json.dumps({"default_slice_config": {"feature": limits}}),
        include_split_pairs='[["test", "training"]]',
    )
    assert done.returncode == 0, done.stderr
    [anomalies] = written["artifacts"]["anomalies"]["artifacts"]
    assert anomalies["metadata"]["blessed"] == {"test_training": 0.0}
    assert (tmp_path / "anomalies" / "SplitPair-test_training" / "SchemaDiff.pb").is_file()


def test_other_code_than_the_package_was_compiled_from(tmp_path):
    step = SCHEMA | {"code": {"components.features.schema": "0123456789abcdef"}}
    done, written = run(tmp_path, step, file="tests/taxi/taxi.schema.pbtxt", fingerprint="1")
    assert (done.returncode, written) == (1, None)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("CuratedSchema failed: The image's code of components.features.schema")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "schema").exists()


def test_the_last_line_says_in_a_sentence_why_a_step_failed(tmp_path):
    done, written = run(tmp_path, SCHEMA, file="configs/nothing.pbtxt", fingerprint="1")
    assert (done.returncode, written) == (1, None)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("CuratedSchema failed: FileNotFoundError: ")
    assert "configs/nothing.pbtxt" in last


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("minio://mlpipeline/v2/x", "/minio/mlpipeline/v2/x"),
        ("s3://b/k", "/s3/b/k"),
        ("gs://b/k", "/gcs/b/k"),
        ("/mnt/workspace/x", "/mnt/workspace/x"),
    ],
)
def test_uris_are_paths_and_become_uris_again(uri, path):
    assert paths.local(uri) == path
    assert paths.remote(path) == uri


def test_a_link_to_a_folder_becomes_a_folder(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    made = tmp_path / "made"
    made.mkdir()
    (made / "link").symlink_to(tmp_path / "real")
    paths.resolve_links(made)
    assert not (made / "link").is_symlink()
    assert (made / "link" / "file").read_text() == "x"


def test_what_a_path_says_in_metadata_goes_back_as_a_uri():
    given = {"model": {"artifacts": [{"name": "9", "uri": "minio://b/m", "metadata": {}}]}}
    made = artifacts.read(given, {"model": "tfx.types.standard_artifacts.Model"})
    [model] = made["model"]
    assert model.uri == "/minio/b/m"
    model.set_string_custom_property("current_model", "/minio/b/other")
    [described] = artifacts.described(made)["artifacts"]["model"]["artifacts"]
    assert described["uri"] == "minio://b/m"
    assert described["metadata"]["current_model"] == "minio://b/other"


def test_what_kfp_adds_to_an_artifact_is_no_property_of_it():
    metadata = {"display_name": "model", "store_session_info": "{}", "kind": "x"}
    given = {"model": {"artifacts": [{"name": "9", "uri": "s3://b/m", "metadata": metadata}]}}
    made = artifacts.read(given, {"model": "tfx.types.standard_artifacts.Model"})
    assert set(made["model"][0].mlmd_artifact.custom_properties) == {"kind"}
