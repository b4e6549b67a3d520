"""The package in the installation: a pipeline of its name, and a version for each content."""

import json
from typing import Any, NamedTuple

import kfp_server_api

from pipeline.kubeflow.submit.client import Client
from pipeline.kubeflow.submit.compiled import Compiled

_UPLOAD_SECONDS = 300.0
_EQUALS, _IS_SUBSTRING = 1, 9
"""Operations of the API's filters."""


class Version(NamedTuple):
    """A version of a pipeline that is there."""

    pipeline_id: str
    version_id: str
    name: str
    uploaded: bool
    """False: this content was there already."""


def upload(client: Client, pipeline: str, compiled: Compiled) -> Version:
    """Finds the version with this content, or uploads it.

    A new pipeline is made empty first: `upload_pipeline` would name its first version after the
    pipeline, and nothing would tell later what is in it. If its version is refused, the empty
    pipeline stays, and the next upload goes into it.

    Raises:
        PipelineStop: If the server refuses the name or the package.
    """
    pipeline_id = find_pipeline(client, pipeline) or _make_pipeline(client, pipeline)
    if known := _find_version(client, pipeline_id, compiled.digest):
        return Version(pipeline_id, known.pipeline_version_id, _name(known), False)
    name = compiled.version_name()
    made = client.call(
        f"upload {compiled.path.name}",
        client.pipeline_uploads.upload_pipeline_version,
        str(compiled.path),
        name=name,
        pipelineid=pipeline_id,
        seconds=_UPLOAD_SECONDS,
    )
    return Version(pipeline_id, made.pipeline_version_id, name, True)


def matching(key: str, value: str, operation: int = _EQUALS) -> str:
    """A filter for a list: what has this value there."""
    predicate = {"key": key, "operation": operation, "stringValue": value}
    return json.dumps({"predicates": [predicate]})


def find_pipeline(client: Client, name: str) -> str | None:
    """The id of the pipeline of this name, if it is there."""
    pages = client.pages(
        "look up the pipeline",
        client.pipelines.pipeline_service_list_pipelines,
        filter=matching("name", name),
        **client.in_namespace,
    )
    found = [one for page in pages for one in page.pipelines or [] if _name(one) == name]
    return str(found[0].pipeline_id) if found else None


def newest_version(client: Client, pipeline_id: str) -> Version | None:
    """The version of a pipeline that was uploaded last, if there is any."""
    there = _versions(client, pipeline_id)
    newest = max(there, key=lambda one: (one.created_at, _name(one)), default=None)
    return newest and Version(pipeline_id, newest.pipeline_version_id, _name(newest), False)


def _make_pipeline(client: Client, name: str) -> str:
    body = kfp_server_api.V2beta1Pipeline(display_name=name, **client.in_namespace)
    made = client.call(
        f"make the pipeline '{name}'",
        client.pipelines.pipeline_service_create_pipeline,
        pipeline=body,
    )
    return str(made.pipeline_id)


def _find_version(client: Client, pipeline_id: str, digest: str) -> Any:
    there = _versions(client, pipeline_id, filter=matching("name", digest, _IS_SUBSTRING))
    same = [one for one in there if _name(one).endswith(f"-{digest}")]
    return max(same, key=lambda one: one.created_at, default=None)


def _versions(client: Client, pipeline_id: str, **chosen: str) -> list[Any]:
    pages = client.pages(
        "look up the pipeline's versions",
        client.pipelines.pipeline_service_list_pipeline_versions,
        pipeline_id=pipeline_id,
        **chosen,
    )
    return [one for page in pages for one in page.pipeline_versions or []]


def _name(found: Any) -> str:
    """Before 2.15 the API had only the name that is shown."""
    return str(found.name or found.display_name)
