"""Stands for the entrypoint of the recorded package: a step that tells what the recorded one told.

It writes a file into each output, and the metadata that the recorded runs' next steps were handed.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
RECORDINGS = {"taxi": "taxi-first-run.json", "taxi-small-imp": "importer.json"}
"""By the pipeline's name."""
ADDED_BY_LAUNCHER = ("display_name", "store_session_info")


def recorded_metadata(recording: str, task: str) -> dict[str, dict[str, Any]]:
    """What a task said of its outputs, found among the inputs of those after it."""
    found: dict[str, dict[str, Any]] = {}
    for step in json.loads((HERE / recording).read_text()):
        for artifacts in step["executor_input"]["inputs"].get("artifacts", {}).values():
            *_, producer, _, output = artifacts["artifacts"][0]["uri"].split("/")
            if producer == task:
                metadata = artifacts["artifacts"][0]["metadata"].items()
                found[output] = {k: v for k, v in metadata if k not in ADDED_BY_LAUNCHER}
    return found


def blessing(metadata: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """The Evaluator's words about the models of this run."""
    this_run = dict(metadata)
    for words, name in (("baseline_model", "baseline_model"), ("current_model", "model")):
        artifact = inputs["artifacts"][name]["artifacts"][0]
        this_run |= {words: artifact["uri"], f"{words}_id": artifact["name"]}
    return this_run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json_serialized_invocation_args")
    invocation = json.loads(parser.parse_known_args()[0].json_serialized_invocation_args)
    inputs, outputs = invocation["inputs"], invocation["outputs"]
    output_file = Path(outputs["outputFile"])
    pipeline, _, task, _, _ = output_file.parts[-5:]
    metadata = recorded_metadata(RECORDINGS[pipeline], task)
    told = {}
    for name, artifacts in outputs["artifacts"].items():
        if name == "executor-logs":
            continue
        said = metadata.get(name, {})
        if name == "blessing":
            said = blessing(said, inputs)
        if os.path.exists("/mnt/registry/champion") and "registry_version" in said:
            said["registry_version"] = Path("/mnt/registry/champion").read_text()
        uri = artifacts["artifacts"][0]["uri"]
        folder = Path(uri.replace("minio://", "/minio/"))
        folder.mkdir()
        (folder / "file").write_text(name)
        told[name] = {"artifacts": [{"name": name, "uri": uri, "metadata": said}]}
    output_file.write_text(json.dumps({"artifacts": told}))


if __name__ == "__main__":
    main()
