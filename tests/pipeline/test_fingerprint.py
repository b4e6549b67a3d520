"""Code fingerprints: sensitive to what a component runs, and to nothing else."""

from pathlib import Path

import pytest

from pipeline.fingerprint import code_fingerprint

FILES = {
    "parts/__init__.py": "",
    "parts/model.py": "from parts.layers import dense\nimport json\n",
    "parts/layers.py": "import parts.deep.math\ndense = 1\n",
    "parts/deep/__init__.py": "",
    "parts/deep/math.py": "pi = 3\n",
    "parts/unused.py": "x = 1\n",
    "README.md": "words\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("changed", ["parts/model.py", "parts/layers.py", "parts/deep/math.py"])
def test_change_of_imported_code_changes_it(project: Path, changed: str) -> None:
    before = code_fingerprint("parts.model", project=project)
    (project / changed).write_text(FILES[changed] + "y = 2\n")
    assert _fresh(project) != before


@pytest.mark.parametrize("changed", ["parts/unused.py", "README.md"])
def test_change_of_other_files_leaves_it(project: Path, changed: str) -> None:
    before = code_fingerprint("parts.model", project=project)
    (project / changed).write_text("different = 1\n")
    assert _fresh(project) == before


def test_it_does_not_depend_on_the_place(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name, text in FILES.items():
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / name).write_text(text)
    here = code_fingerprint("parts.model", project=project)
    assert here == code_fingerprint("parts.model", project=elsewhere)


def _fresh(project: Path) -> str:
    from pipeline import fingerprint

    fingerprint._imports.cache_clear()
    return code_fingerprint("parts.model", project=project)
