"""The importer: an artifact that is there already."""

from tests.kubeflow.imitation.cluster import Cluster
from tests.kubeflow.imitation.driver import DriverError, RunContext, Scope
from tests.kubeflow.imitation.launcher import from_environment
from tests.kubeflow.imitation.metadata import Artifact
from tests.kubeflow.imitation.package import Json


def imported(cluster: Cluster, run: RunContext, task: Json, scope: Scope) -> dict[str, Artifact]:
    """Its one output: the artifact known by this URI, or a new one. Nothing is read or copied.

    Raises:
        DriverError: Without a URI in an object store.
    """
    component = run.package.components[task["componentRef"]["name"]]
    spec = run.package.executors[component["executorLabel"]]["importer"]
    uri = _uri(spec["artifactUri"], task, scope)
    if "://" not in uri:
        raise DriverError(f"no provider scheme found in artifact URI: {uri}")
    metadata = {**spec.get("metadata", {}), "store_session_info": from_environment(uri)}
    described = (spec["typeSchema"], uri, metadata, run.package.name)
    known = None if spec.get("reimport") else cluster.metadata.find(*described)
    (output,) = component["outputDefinitions"]["artifacts"]
    return {output: known or cluster.metadata.record(*described)}


def _uri(stated: Json, task: Json, scope: Scope) -> str:
    if "constant" in stated:
        return str(stated["constant"])
    parameter = task["inputs"]["parameters"][stated["runtimeParameter"]]
    return str(scope.parameters[parameter["componentInputParameter"]])
