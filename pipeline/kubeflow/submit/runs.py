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


def find(client: Client, name: str, pipeline_id: str) -> str | None:
    """The id of the first run of this name and pipeline, in whatever state, archived ones too."""
    pages = client.pages(
        "look up the run",
        client.runs.run_service_list_runs,
        filter=matching("display_name", name),
        **client.in_namespace,
    )
    found = [
        one
        for page in pages
        for one in page.runs or []
        if one.display_name == name and _pipeline_of(one) == pipeline_id
    ]
    return str(min(found, key=lambda one: one.created_at).run_id) if found else None


def _pipeline_of(run: Any) -> str | None:
    """None for a run of a package that was never uploaded."""
    reference = run.pipeline_version_reference
    return reference and reference.pipeline_id


def create(client: Client, name: str, experiment_id: str, what: dict[str, Any]) -> str:
    """Makes a run, with one request, and returns its id.

    Raises:
        NoAnswer: If it may have been made or not.
        PipelineStop: If the server refuses it, in its own words.
    """
    body = kfp_server_api.V2beta1Run(display_name=name, experiment_id=experiment_id, **what)
    made = client.call("create the run", client.runs.run_service_create_run, run=body)
    return str(made.run_id)


def start(
    client: Client, name: str, experiment_id: str, what: dict[str, Any], compiled: Compiled
) -> str:
    """Starts a run of a package for a person, and returns its id.

    Raises:
        PipelineStop: If the server refuses it, in its own words.
    """
    try:
        with naming_parameters(compiled):
            return create(client, name, experiment_id, what)
    except NoAnswer as stop:
        place = client.connection.ui("/runs")
        raise PipelineStop(
            f"{stop} Before you submit again, look whether the run began all the same: {place}"
        ) from None


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
