"""`versions list`: a row for each version, newest first."""

import json
from typing import Any

from rich.table import Table
from rich.text import Text

from components.errors import PipelineStop
from components.registry import labels, store
from pipeline.versions.layout import narrow_table, needed_width, new_console, number
from pipeline.versions.model import Model, day_and_minute, held_by

Row = dict[str, Any]

_METRICS = 3
"""So many at most; `versions show` has them all."""
_DAMAGED = "damaged: versions verify"


def main(model: Model, as_json: bool) -> int:
    """Prints the rows, or as JSON everything in them; a version that cannot be read has one too."""
    held = store.read_labels(model.folder)
    numbers = reversed(store.list_versions(model.folder))
    rows = [_row(model, number, held_by(held, number)) for number in numbers]
    if as_json:
        print(json.dumps(rows, indent=1))
        return 0
    console = new_console()
    if not rows:
        console.print(model.none_yet())
        return 0
    console.print(f"{model.shown_folder}\n")
    console.print(_fitting(rows, console.width), soft_wrap=False)
    console.print(f"\n{_champion(model, held)}")
    return 0


def _row(model: Model, number: int, held: list[str]) -> Row:
    """What a version's row has; `damage` is None if its manifest can be read."""
    known = {"version": number, "labels": held, "damage": None}
    try:
        manifest = store.read_manifest(model.folder, number)
        return known | {
            "filed": manifest["time"],
            "run": manifest["run_id"],
            "judged_against": manifest["baseline"]["version"] or "heuristic",
            "training_rows": manifest["training"]["rows"],
            "metrics": manifest["metrics"]["candidate"]["overall"],
        }
    except PipelineStop as stop:
        return known | {"damage": str(stop)}
    except (KeyError, TypeError) as error:
        return known | {"damage": f"{store.MANIFEST} is not a manifest: {error!r}"}


def _fitting(rows: list[Row], width: int) -> Table:
    """The table with as many metrics as fit, at least one; long labels give way to it."""
    whole = [row for row in rows if row["damage"] is None]
    metrics = list(whole[0]["metrics"])[:_METRICS] if whole else []
    while True:
        made = _table(rows, metrics)
        if needed_width(made) <= width or len(metrics) <= 1:
            return made
        metrics.pop()


def _table(rows: list[Row], metrics: list[str]) -> Table:
    made = narrow_table("version", "labels", "filed (UTC)", "against", "rows", *metrics)
    made.columns[1].justify = made.columns[2].justify = "left"
    made.columns[1].no_wrap, made.columns[1].overflow = False, "fold"
    for row in rows:
        name = str(row["version"]), ", ".join(row["labels"])
        if row["damage"] is not None:
            made.add_row(*name, Text(_DAMAGED, style="red"))
            continue
        values = (number(row["metrics"].get(metric)) for metric in metrics)
        against = row["judged_against"]
        against = against if isinstance(against, str) else f"version {against}"
        filed, count = day_and_minute(row["filed"]), f"{row['training_rows']:,}"
        made.add_row(*name, filed, against, count, *values)
    return made


def _champion(model: Model, held: store.Labels) -> str:
    """Which version is champion, and since when, by whom and why."""
    champion = held.get(store.CHAMPION)
    if champion is None:
        return "No version is champion yet."
    text = f"Champion: version {champion}"
    try:
        moves = labels.moves_of(model.folder, champion)
    except PipelineStop as stop:
        return f"{text}, since when is not known: {stop}"
    for entry in reversed(moves):
        if entry["moves"].get(store.CHAMPION, {}).get("to") == champion:
            return (
                f"{text}, since {day_and_minute(entry['time'])}\n  {entry['who']}: {entry['why']}"
            )
    return text
