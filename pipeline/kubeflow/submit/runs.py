"""The experiment, and a run in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kfp_server_api

from components.errors import PipelineStop
from pipeline.kubeflow.submit.answers import NoAnswer
from pipeline.kubeflow.submit.client import Client
from pipeline.kubeflow.submit.compiled import Compiled
from pipeline.kubeflow.submit.upload import Version, matching


def experiment(client: Client, name: str) -> str:
    """The id of the experiment of this name, made if need be."""
    service = client.experiments
    pages = client.pages(
        "look up the experiment",
        service.experiment_service_list_experiments,
        filter=matching("display_name", name),
        **client.in_namespace,
    )
    found = [one for page in pages for one in page.experiments or [] if one.display_name == name]
    if not found:
        body = kfp_server_api.V2beta1Experiment(display_name=name, **client.in_namespace)
        made = client.call(
            f"make the experiment '{name}'",
            service.experiment_service_create_experiment,
            experiment=body,
        )
        found = [made]
    return str(found[0].experiment_id)


def contents(
    version: Version,
    parameters: dict[str, Any],
    pipeline_root: str | None,
    service_account: str | None,
) -> dict[str, Any]:
    """What a run and a recurring run have in common.

    Caching isn't mentioned: `enable_caching` would override what each task of the package says.
    """
    return {
        "pipeline_version_reference": kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=version.pipeline_id, pipeline_version_id=version.version_id
        ),
        "runtime_config": kfp_server_api.V2beta1RuntimeConfig(
            parameters=parameters, pipeline_root=pipeline_root
        ),
        "service_account": service_account,
    }


def start(
    client: Client, name: str, experiment_id: str, what: dict[str, Any], compiled: Compiled
) -> str:
    """Starts a run and returns its id.

    Raises:
        PipelineStop: If the server refuses it, in its own words.
    """
    body = kfp_server_api.V2beta1Run(display_name=name, experiment_id=experiment_id, **what)
    try:
        with naming_parameters(compiled):
            made = client.call("create the run", client.runs.run_service_create_run, run=body)
    except NoAnswer as stop:
        place = client.connection.ui("/runs")
        raise PipelineStop(
            f"{stop} Before you submit again, look whether the run began all the same: {place}"
        ) from None
    return str(made.run_id)


@contextmanager
def naming_parameters(compiled: Compiled) -> Iterator[None]:
    """Adds to a refusal that speaks of parameters which ones the package takes."""
    try:
        yield
    except PipelineStop as stop:
        if isinstance(stop, NoAnswer) or "parameter" not in str(stop):
            raise
        taken = ", ".join(f"{name} ({kind})" for name, kind in compiled.parameters.items())
        raise PipelineStop(f"{stop} The package takes: {taken or 'none'}.") from None
