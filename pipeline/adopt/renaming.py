"""The fork's name where the template's example stands: in the variants, and in the README.

It happens once. A project that has a name keeps it; what is adopted later stands beside it.
"""

import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from string import Template

from pipeline.adopt.writing import replace

EXAMPLE = "taxi"
"""The template's configuration, from which its variants start."""
_VARIANTS = ("development.yaml", "automated.yaml", "kubeflow.yaml")
_NAMES = re.compile(rf"^(extends: |name: |registry: {{model: |experiment: ){EXAMPLE}\b", re.M)
_SAMPLE = re.compile(r"^data: {sample: ([\d.]+)}$", re.M)
_ENOUGH = 2000
_MOST_COLUMNS = 40
_ON_ALL_ROWS = """\
# make run-local
# While you change things: versions in a folder of their own, no promotion. All rows, because they
# are few; once there are many, a sample makes it quick: data: {sample: 0.1}
extends: $name
name: $name-development
registry: {model: $name-development}
"""
_TEMPLATES_FIRST_LINE = "# A workflow pipeline you can fork\n"
_LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")


@dataclass(frozen=True)
class Fork:
    """What the README tells of a fork."""

    name: str
    """Of its configuration."""
    label: str
    problem: str
    data: str
    """As the person named it."""
    rows: int
    row: dict[str, object]
    """A row to predict: JSON's values."""


def rename(fork: Fork, project: Path) -> list[str]:
    """Renames the template's example to the fork, all files or none.

    Args:
      fork: the fork.
      project: its folder.

    Returns:
      A sentence for each thing that changed; none if the project has been renamed before.

    Raises:
      PipelineStop: a file cannot be written.
    """
    configs = project / "configs"
    variants = [configs / name for name in _VARIANTS if (configs / name).is_file()]
    before = {path: path.read_text(encoding="utf-8") for path in variants}
    texts = {path: _renamed(text, fork) for path, text in before.items()}
    changed = [path for path in variants if texts[path] != before[path]]
    if not changed:
        return []
    readme, moved = project / "README.md", project / "docs" / "template.md"
    is_templates = readme.is_file() and readme.read_text("utf-8").startswith(_TEMPLATES_FIRST_LINE)
    if is_templates and not moved.exists():
        texts[moved] = _as_seen_from_docs(readme.read_text("utf-8"))
        texts[readme] = _readme(fork, configs)
    new = {path: text for path, text in texts.items() if text != before.get(path)}
    replace(dict(sorted(new.items(), key=lambda item: item[0] != moved)))
    told = [f"{path.relative_to(project)} is about '{fork.name}' now" for path in changed]
    if readme in texts:
        told.append("README.md is your project's; the template's is docs/template.md")
    return told


def _renamed(text: str, fork: Fork) -> str:
    text = _NAMES.sub(rf"\g<1>{fork.name}", text)
    sample = _SAMPLE.search(text)
    if sample and fork.rows * float(sample[1]) < _ENOUGH:
        return Template(_ON_ALL_ROWS).substitute(name=fork.name)
    return text


def _as_seen_from_docs(readme: str) -> str:
    """The text with its links as they are from `docs/`."""
    return _LINK.sub(lambda link: f"]({os.path.relpath(link[1], 'docs')})", readme)


def _readme(fork: Fork, configs: Path) -> str:
    development = configs / "development.yaml"
    sample = _SAMPLE.search(_renamed(development.read_text("utf-8"), fork))
    return Template(Path(__file__).with_name("fork_readme.md").read_text("utf-8")).substitute(
        title=fork.name.replace("-", " ").replace("_", " ").capitalize(),
        name=fork.name,
        label=fork.label,
        problem=fork.problem,
        data=f"`{fork.data}`",
        rows=f"all {fork.rows:,}",
        sample=f"a sample, {float(sample[1]):.0%}" if sample else "all of them",
        row=_argument(fork.row),
        files=shlex.quote(fork.data),
        schema=f"{fork.name}.schema.pbtxt",
    )


def _argument(row: dict[str, object]) -> str:
    """The row as it is typed; of a wide table, what is typed for a file of one."""
    if len(row) > _MOST_COLUMNS:
        return "- < row.json  # {column: value, ...}"
    return shlex.quote(json.dumps(row, ensure_ascii=False))
