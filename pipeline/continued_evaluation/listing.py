"""`evaluations`: a row for each evaluation of a model, oldest first, and the page with charts."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from components.continued_evaluation import history
from components.continued_evaluation.decision import Action
from components.continued_evaluation.evidence import OVERALL
from components.continued_evaluation.history import Followed, Record
from components.registry import store
from pipeline.console import make, shown, tell_next
from pipeline.continued_evaluation.wording import (
    TITLES,
    interval,
    judged,
    metrics_to_show,
    outcome,
    span_name,
    worst,
)
from pipeline.versions.model import Model, narrow_table, new_console, open_model

_REASON = 80
_STYLES: dict[Action, str] = {
    "investigate": "red",
    "roll_back": "magenta",
    "retrain": "yellow",
    "keep": "green",
}


def main(config_name: str, overrides: list[str], json_: bool) -> int:
    """Prints the rows and writes the page; or prints all records as JSON.

    Raises:
      PipelineStop: The configuration has mistakes, or an evaluation is damaged.
    """
    model = open_model(config_name, overrides)
    records = history.read_all(model.folder)
    found = {record.id: history.followed(model.folder, record.id) for record in records}
    followed = {id_: what for id_, what in found.items() if what is not None}
    if json_:
        print(json.dumps([_as_json(record, found[record.id]) for record in records], indent=1))
        return 0
    if not records:
        print(f"No version in {model.shown_folder} has been evaluated on fresh data yet.")
        return 0
    _print(model, records, followed)
    return 0


def _as_json(record: Record, followed: Followed | None) -> dict[str, object]:
    what = followed.model_dump(mode="json") if followed else None
    return record.model_dump(mode="json") | {"followed": what}


def _print(model: Model, records: Sequence[Record], followed: Mapping[str, Followed]) -> None:
    from pipeline.continued_evaluation.page import write_page

    console = new_console()
    console.print(f"{model.shown_folder}\n")
    console.print(_table(records, followed), soft_wrap=False)
    name = Path(model.folder).name
    page = model.workspace.reports / f"{name}-evaluations.html"
    console.print(f"\n{shown(write_page(records, followed, name, page))} (charts, and all reasons)")
    tell_next(console, _commands(model, records[-1], followed.get(records[-1].id)))


def _table(records: Sequence[Record], followed: Mapping[str, Followed]) -> Table:
    """All columns but the first three give way where the terminal is narrow."""
    metric = metrics_to_show(records)[0]
    made = narrow_table("span", "rows", "version", metric, "worst drift", "decision")
    made.columns[0].no_wrap = True
    for column in made.columns[3:]:
        column.justify, column.no_wrap, column.overflow = "left", False, "fold"
    for record in records:
        made.add_row(
            span_name(record),
            f"{record.evidence.rows.total:,}",
            str(record.evidence.champion),
            interval(judged(record.evidence).get(OVERALL, {}).get(metric)),
            _drift(record),
            _decision(record, followed.get(record.id)),
        )
    return made


def _drift(record: Record) -> Text:
    """The column that moved farthest, and its distance beside the limit."""
    moved = worst(record.evidence.moved)
    return Text(f"{moved.column} {moved.value:.3f} / {moved.limit:g}" if moved else "-")


def _decision(record: Record, followed: Followed | None) -> Text:
    """The decision and its first reason, shortened; below them what came of it."""
    action, reasons = record.decision.action, record.decision.reasons
    text = Text.assemble((TITLES[action].lower(), _STYLES[action]))
    if reasons:
        text.append(f": {textwrap.shorten(reasons[0].text, _REASON, placeholder=' …')}")
    if len(reasons) > 1:
        text.append(f" (+{len(reasons) - 1})")
    if followed is not None or action != "keep":
        text.append(f"\n-> {outcome(record, followed)}")
    return text


def _commands(model: Model, newest: Record, followed: Followed | None) -> dict[str, str]:
    """What to type next, after the newest decision."""
    action, config = newest.decision.action, model.config_name
    found: dict[str, str] = {}
    candidate = store.read_labels(model.folder).get(store.CANDIDATE)
    if followed is None and action == "roll_back":
        found[make("rollback", config)] = f"bring version {newest.evidence.previous} back"
    if followed is None and action == "retrain":
        found[make("run-local", config)] = "train a successor"
    if followed is not None and followed.version is not None and followed.version == candidate:
        purpose = f"make version {candidate} the champion"
        found[make("promote", config, f"VERSION={candidate}")] = purpose
    found[f"python3 -m pipeline evaluations --json -c {config}"] = "all of it, for programs"
    found[make("versions", config)] = "all versions and their labels"
    return found
