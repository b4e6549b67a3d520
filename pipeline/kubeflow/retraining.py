"""Starts a run of the training pipeline, from the step that decided so, once for each decision.

The decision's id is the run's name. Whatever became of a run of that name, running, failed or
archived, it is this decision's, and there is no second one. The step needs no answer to its
request: tried again, it looks for the run first.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

from components.errors import PipelineStop
from pipeline.kubeflow import client
from pipeline.kubeflow.parameters import FINGERPRINT
from pipeline.kubeflow.settings import Target

PATIENCE_SECONDS = 300.0


def described(pipeline: str, digest: str, target: Target) -> str:
    """What a deciding step has to know to call `start`, as JSON.

    Args:
      pipeline: the training pipeline's name.
      digest: of the training package's content, which its version's name ends with.
      target: the cluster's.
    """
    arguments = {
        "pipeline": pipeline,
        "digest": digest,
        "experiment": target.experiment,
        "service_account": target.service_account,
        "pipeline_root": target.pipeline_root,
    }
    return json.dumps({"function": f"{__name__}:start", "arguments": arguments}, sort_keys=True)


def start(
    name: str,
    retraining: Mapping[str, Any],
    *,
    pipeline: str,
    digest: str,
    experiment: str,
    service_account: str | None,
    pipeline_root: str | None,
    patience: float = PATIENCE_SECONDS,
) -> str:
    """Makes sure that the training run of a decision is there; does not wait for it.

    Args:
      name: the decision's id, and the run's name.
      retraining: `spans` (as in the setting `data.spans`, or None), `warm_start` (a version, or
        None) and `data_path`.
      pipeline: the training pipeline's name.
      digest: which of its versions runs: the one with this content.
      experiment: the run's; made if need be.
      service_account: of the steps' pods; None: the installation's.
      pipeline_root: where artifacts go; None: the installation's.
      patience: seconds for which an API that does not answer is asked again.

    Returns:
      The run's id.

    Raises:
      PipelineStop: it could not be started, with what to do.
    """
    reached = client.connection(os.environ)

    def find_or_start() -> str:
        api = client.connect(reached)
        pipeline_id = client.find_pipeline(api, pipeline)
        version = pipeline_id and client.find_version(api, pipeline_id, digest)
        if not pipeline_id or not version:
            raise PipelineStop(
                f"{api.connection.where} has no version of the pipeline '{pipeline}' whose name "
                f"ends with {digest}: the one that this continued evaluation was compiled with. "
                "Submit the continued evaluation again, which uploads both."
            )
        if found := client.find_run(api, name, pipeline_id):
            return found
        return client.start_run(
            api,
            name,
            experiment,
            pipeline_id=pipeline_id,
            version_id=version,
            params=_parameters(name, retraining),
            pipeline_root=pipeline_root,
            service_account=service_account,
        )

    try:
        return client.patiently(patience, find_or_start)
    except PipelineStop as stop:
        raise PipelineStop(
            f"The retraining {name} was not started. {stop} The decision is filed: when this is "
            "put right, submit the continued evaluation of that span again, and it starts."
        ) from None


def _parameters(name: str, retraining: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the training package. No other run has this fingerprint: ingest is never cached."""
    values = {"data_path": retraining["data_path"], FINGERPRINT: name}
    if retraining["spans"]:
        values |= {"span": json.dumps(retraining["spans"]), "test_spans": "newest"}
    if retraining["warm_start"]:
        values["warm_start"] = str(retraining["warm_start"])
    return values
