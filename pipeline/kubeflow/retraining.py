"""Starts a run of the training pipeline, from the step that decided so, once for each decision.

The decision's id is the run's name. Whatever became of a run of that name, running, failed or
archived, it is this decision's, and there is no second one.
"""

import json
from collections.abc import Mapping
from typing import Any

from components.errors import PipelineStop
from pipeline.kubeflow import client
from pipeline.kubeflow.parameters import FINGERPRINT
from pipeline.kubeflow.settings import Target


def described(pipeline: str, digest: str, target: Target) -> str:
    """What a deciding step has to know to call `start`, as JSON."""
    arguments = target.model_dump(include={"experiment", "service_account", "pipeline_root"})
    arguments |= {"pipeline": pipeline, "digest": digest}
    return json.dumps({"function": f"{__name__}:start", "arguments": arguments}, sort_keys=True)


def start(
    name: str,
    retraining: Mapping[str, Any],
    *,
    pipeline: str,
    digest: str,
    patience: float = 300.0,
    **how: Any,
) -> str:
    """Makes sure that the training run of a decision is there; does not wait for it.

    Args:
      name: the decision's id, and the run's name.
      retraining: `spans` (as in the setting `data.spans`, or None), `warm_start` (a version, or
        None) and `data_path`.
      pipeline: the training pipeline's name.
      digest: which of its versions runs: the one with this content, whose name ends so.
      patience: seconds for which an API that does not answer is asked again.
      how: `experiment`, `service_account` and `pipeline_root` of the run.

    Returns:
      The run's id.

    Raises:
      PipelineStop: it could not be started, with what to do.
    """
    params = {"data_path": retraining["data_path"], FINGERPRINT: name}  # its ingest is never cached
    if retraining["spans"]:
        params |= {"span": json.dumps(retraining["spans"]), "test_spans": "newest"}
    if retraining["warm_start"]:
        params["warm_start"] = str(retraining["warm_start"])
    api = client.Api()

    def find_or_start() -> str:
        api.greet()
        pipeline_id = api.find_pipeline(pipeline)
        version_id = pipeline_id and api.find_version(pipeline_id, digest)
        if not pipeline_id or not version_id:
            raise PipelineStop(
                f"{api.where} has no version of the pipeline '{pipeline}' whose name ends "
                f"with {digest}: the one that this continued evaluation was compiled with. Submit "
                "the continued evaluation again, which uploads both."
            )
        how.update(params=params, pipeline_id=pipeline_id, version_id=version_id)
        return api.find_run(name, pipeline_id) or api.start_run(name, **how)

    try:
        return client.patiently(patience, find_or_start)
    except PipelineStop as stop:
        raise PipelineStop(
            f"The retraining {name} was not started. {stop} The decision is filed: when this is "
            "put right, submit the continued evaluation of that span again, and it starts."
        ) from None
