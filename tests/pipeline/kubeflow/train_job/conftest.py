"""A compiled project, which takes half a minute to make."""

import pytest

from tests.pipeline.kubeflow.train_job import compiled
from tests.pipeline.kubeflow.train_job.compiled import Compiled


@pytest.fixture(scope="package")
def small_project(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compiled.make(tmp_path_factory.mktemp("compiled"), silence_seconds=10)
