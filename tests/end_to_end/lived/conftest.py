"""A project that has lived through its first run; the tests of this folder get it as it was then.

ML Metadata holds absolute paths, so that it is always restored at the same place: these tests are
one worker's (`tests/conftest.py`).
"""

import pytest

from tests.end_to_end.project import Project, Result


@pytest.fixture(scope="session")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Result]:
    """A project after its first run, and what that run printed; saved to be restored."""
    project = Project(tmp_path_factory.mktemp("lived") / "project")
    process = project.start()  # by the very command that a person types
    output, _ = process.communicate()
    first = Result(process.returncode, output)
    assert first.code == 0, first.output
    project.save()
    return project, first


@pytest.fixture
def project(lived: tuple[Project, Result]) -> Project:
    """A project after its first run, for one test to do with as it likes."""
    lived[0].restore()
    return lived[0]
