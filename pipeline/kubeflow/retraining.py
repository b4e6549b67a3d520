"""Starts a run of the training pipeline, from the step that decided so, once for each decision.

The decision's id is the run's name. Whatever became of a run of that name, running, failed or
archived, it is this decision's, and there is no second one. The step needs no answer to its
request: tried again, it looks for the run first.
"""

import json
import logging
import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import tenacity

from components.errors import PipelineStop
from pipeline.config import Config
from pipeline.kubeflow.parameters import FINGERPRINT
from pipeline.kubeflow.settings import Target
from pipeline.kubeflow.submit import connection
from pipeline.kubeflow.submit.answers import NoAnswer

if TYPE_CHECKING:
    from pipeline.kubeflow.submit.client import Client
    from pipeline.kubeflow.submit.upload import Version

PATIENCE_SECONDS = 300.0
_LONGEST_WAIT = 30.0


def described(config: Config, target: Target) -> str:
    """What a deciding step has to know to call `start`, as JSON.

    Args:
      config: the training pipeline's.
      target: the cluster's.
    """
    arguments = {
        "pipeline": config.name,
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
      pipeline: the training pipeline's name; its newest version runs.
      experiment: the run's; made if need be.
      service_account: of the steps' pods; None: the installation's.
      pipeline_root: where artifacts go; None: the installation's.
      patience: seconds for which an API that does not answer is asked again.

    Returns:
      The run's id.

    Raises:
      PipelineStop: it could not be started, with what to do.
    """
    from pipeline.kubeflow.submit import runs
    from pipeline.kubeflow.submit.client import Client

    def find_or_start(client: Client) -> str:
        version = _newest(client, pipeline)
        if found := runs.find(client, name, version.pipeline_id):
            return found
        what = runs.contents(version, _parameters(name, retraining), pipeline_root, service_account)
        return runs.create(client, name, runs.experiment(client, experiment), what)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # kfp.Client's about its age
            client = Client(connection.read(os.environ))
            return _patiently(patience)(find_or_start, client)
    except PipelineStop as stop:
        raise PipelineStop(
            f"The retraining {name} was not started. {stop} The decision is filed: when this is "
            "put right, submit the continued evaluation of that span again, and it starts."
        ) from None


def _newest(client: "Client", pipeline: str) -> "Version":
    from pipeline.kubeflow.submit import submission, upload

    submission.greet(client)
    pipeline_id = upload.find_pipeline(client, pipeline)
    version = pipeline_id and upload.newest_version(client, pipeline_id)
    if not version:
        raise PipelineStop(
            f"{client.connection.where} has no pipeline '{pipeline}': upload it (make submit)."
        )
    return version


def _parameters(name: str, retraining: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the training package. No other run has this fingerprint: ingest is never cached."""
    values = {"data_path": retraining["data_path"], FINGERPRINT: name}
    if retraining["spans"]:
        values |= {"span": json.dumps(retraining["spans"]), "test_spans": "newest"}
    if retraining["warm_start"]:
        values["warm_start"] = str(retraining["warm_start"])
    return values


def _patiently(seconds: float) -> tenacity.Retrying:
    def tell(attempt: tenacity.RetryCallState) -> None:
        if attempt.outcome:
            logging.warning("%s Asking again ...", attempt.outcome.exception())

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(NoAnswer),
        wait=tenacity.wait_exponential(max=_LONGEST_WAIT),
        stop=tenacity.stop_before_delay(seconds),
        before_sleep=tell,
        reraise=True,
    )
