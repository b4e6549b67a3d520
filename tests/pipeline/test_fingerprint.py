"""Code fingerprints: sensitive to what a component runs, and to nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.fingerprint import PROJECT, code_fingerprint

FILES = {
    "parts/__init__.py": "",
    "parts/model.py": "from parts.layers import dense\nimport json\n",
    "parts/layers.py": "import parts.deep.math\ndense = 1\n",
    "parts/deep/__init__.py": "",
    "parts/deep/math.py": "pi = 3\n",
    "parts/deep/beside.py": "from . import math\nfrom ..more import much\n",
    "parts/more.py": "much = 1\n",
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


@pytest.mark.parametrize("changed", ["parts/deep/math.py", "parts/more.py", "parts/deep/beside.py"])
def test_change_behind_a_relative_import_changes_it(project: Path, changed: str) -> None:
    before = code_fingerprint("parts.deep.beside", project=project)
    (project / changed).write_text(FILES[changed] + "y = 2\n")
    assert _fresh(project, "parts.deep.beside") != before


def test_another_version_of_a_library_changes_it(project: Path) -> None:
    other = project / "other" / "keras-99.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: keras\nVersion: 99.0\n")
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(other.parent)!r})
from pipeline.fingerprint import code_fingerprint
print(code_fingerprint("parts.model", project=Path({str(project)!r})), end="")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert len(done.stdout) == 16, done.stderr
    assert done.stdout != code_fingerprint("parts.model", project=project)


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


def _fresh(project: Path, module: str = "parts.model") -> str:
    from pipeline import fingerprint

    fingerprint._imports.cache_clear()
    return code_fingerprint(module, project=project)
