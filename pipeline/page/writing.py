"""Writes the pages: of a run, and the index over all. They need no network and no server."""

import json
import logging
import os
import re
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from components.errors import PipelineStop
from components.files import write_atomically
from components.registry import store
from pipeline import loading
from pipeline.config import Config
from pipeline.page.contents import Facts, gather, versions
from pipeline.versions import changed
from pipeline.workspace import Workspace

_HERE = Path(__file__).parent
_RECORD = re.compile(r'<script type="application/json" id="record">(.*?)</script>')
INDEX = "index.html"
_HEAD = 4096
"""Characters of a page among which its record is."""


def render(template: Path, **values: Any) -> str:
    """A page from a template that extends `base.html.j2`, with what the template shows."""
    loader = FileSystemLoader([template.parent, _HERE])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["yaml"] = lambda value: yaml.safe_dump(value, sort_keys=False, width=100)
    shared = {"style": Markup((_HERE / "style.css").read_text("utf-8")), "record": None}
    return environment.get_template(template.name).render({**shared, **values})


def run_page(facts: Facts, alone: bool = False) -> str:
    """The page of a run; `alone` is one without an index beside it."""
    values = gather(facts)
    name, found = values["lines"][0][:2] if values["lines"] else ("", {"candidate": [None]})
    record = {
        "name": facts.config.name,
        "run": facts.run_id,
        "model": facts.config.registry.model,
        "metric": name,
        "value": found["candidate"][0],
        **{key: values[key] for key in ("state", "version")},
    }
    return render(_HERE / "run.html.j2", record=record, alone=alone, **values)


def write(path: Path, text: str) -> Path:
    """Writes a page, whole or not at all, into a folder that is made; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(str(path), text)
    return path


def write_run(facts: Facts, workspace: Workspace) -> Path | None:
    """Writes the page of a run and the index; its path, or None if that failed: see the log.

    What the run made is filed by then, so a page that cannot be written fails nothing.
    """
    path = workspace.reports / f"{facts.config.name}-{facts.run_id}.html"
    try:
        write(path, run_page(facts))
        write_index(workspace)
    except Exception:
        logging.exception("The page %s was not written.", path)
        return None
    return path


def changes(config_name: str, config: Config) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """What differs from the configuration that this one extends, or from the file without --set."""
    settings = yaml.safe_load((loading.CONFIGS / f"{config_name}.yaml").read_text("utf-8"))
    try:
        base = loading.load(str(settings.get("extends", config_name)))
    except PipelineStop:  # a base need not be whole
        return
    yield from changed(base.model_dump(mode="json"), config.model_dump(mode="json"))


def write_index(workspace: Workspace) -> Path:
    """Writes the index of all runs that have a page, and of all versions; returns its path."""
    runs, others = [], []
    for page in sorted(workspace.reports.glob("*.html")):
        with page.open(encoding="utf-8") as file:
            found = _RECORD.search(file.read(_HEAD))
        if found:
            runs.append({**json.loads(found[1]), "page": page.name})
        elif page.name != INDEX:
            others.append(page.name)
    runs.sort(key=lambda run: run["run"], reverse=True)
    models = sorted(path.parent for path in workspace.registry.glob("*/labels.json"))
    text = render(
        _HERE / "index.html.j2",
        runs=runs,
        others=others,
        models={model.name: versions(model) for model in models},
        champions={
            model.name: store.read_labels(str(model)).get(store.CHAMPION) for model in models
        },
    )
    return write(workspace.reports / INDEX, text)


def show(workspace: Workspace) -> str:
    """Brings the index up to date, and opens it where there is a screen; returns its address."""
    address = write_index(workspace).as_uri()
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)
    return address
