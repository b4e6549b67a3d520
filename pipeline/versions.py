"""The commands `versions`: list, show, diff, promote, rollback, label, verify."""

import contextlib
import getpass
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from components.errors import PipelineStop
from components.registry import labels, signature, store
from components.registry.store import CHAMPION
from pipeline import loading, telling
from pipeline.command_line import DEFAULT
from pipeline.telling import make, shown, tell_next

_METRICS, _SLICES = 2, 8
"""So many metrics are listed, and slices shown and compared; --json has all."""
_HASH = re.compile(r"([0-9a-f]{12})[0-9a-f]{20,}(\+?)")
_NOT_COMPARED = re.compile(
    r"(version|time|run_id|parent|digest|files|metrics|rows_by_slice|baseline|heuristic)\b"
    r"|training\.(seconds|checkpoints)\b|data\.\d+\.(uri|name|tfx_version)$"
)
"""Paths of a manifest in which two versions differ anyway, or that are compared as metrics."""


@dataclass(frozen=True)
class Model:
    """A configuration's model in the registry; its folder need not be there."""

    config_name: str
    folder: str
    """`registry/<model>`, absolute."""
    reports: Path

    def number(self, wanted: str) -> int:
        """The number of a version that is named by number or label.

        Raises:
          PipelineStop: there is none.
        """
        from components.inference.model import choose

        return int(choose(self.folder, wanted).version)

    def title(self, number: int) -> str:
        """'version 3 (champion)'."""
        held = self.held(number)
        return f"version {number}" + (f" ({', '.join(held)})" if held else "")

    def held(self, number: int) -> list[str]:
        """The labels of a version."""
        return [label for label, n in store.read_labels(self.folder).items() if n == number]

    def command(self, arguments: str) -> str:
        """A command of the group, as a person types it."""
        chosen = "" if self.config_name == DEFAULT else f" -c {self.config_name}"
        return f"python3 -m pipeline versions {arguments}{chosen}"

    def none_yet(self) -> str:
        """What to say while there are no versions, and what to type."""
        again = make("run-local", self.config_name)
        return f"No versions in {shown(Path(self.folder))} yet. Make one with: {again}"


def list_(model: Model, as_json: bool) -> None:
    """Prints a row for each version, newest first."""
    rows = [_row(model, number) for number in reversed(store.list_versions(model.folder))]
    console = telling.new_console()
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    if not rows:
        console.print(model.none_yet())
        return
    metrics = list(next((row["metrics"] for row in rows if row["metrics"]), {}))[:_METRICS]
    lines = telling.table("version", "labels", "filed (UTC)", "against", "rows", *metrics, left=4)
    lines.padding = 0, 1
    for row in rows:
        name = str(row["version"]), Text(", ".join(row["labels"]))
        if row["damage"]:
            lines.add_row(*name, Text("damaged: versions verify", style="red"))
            continue
        judged = row["judged_against"]
        against = judged if isinstance(judged, str) else f"version {judged}"
        numbers = (telling.number(row["metrics"].get(metric)) for metric in metrics)
        trained_on = f"{row['training_rows']:,}" if row["training_rows"] else "-"
        lines.add_row(*name, _minute(row["filed"]), against, trained_on, *numbers)
    console.print(f"{shown(Path(model.folder))}\n")
    telling.print_whole(console, lines)
    champion = store.read_labels(model.folder).get(CHAMPION)
    if champion is None:
        console.print("\nNo version is champion yet.")
        return
    moves = list(_moves(model, champion))
    crowned = [move for move in moves if "champion " in move]
    since, gap, move = (crowned or moves)[-1].partition("  ")
    console.print(f"\nChampion: version {champion}, since {since}\n{gap}{move}".rstrip())


def show(model: Model, wanted: str, as_json: bool) -> None:
    """Prints a version's manifest, who moved its labels, and its metrics."""
    number = model.number(wanted)
    manifest = store.read_manifest(model.folder, number)
    if as_json:
        known = {"version": number, "labels": model.held(number)}
        known |= {"moves": labels.moves_of(model.folder, number), "manifest": manifest}
        print(json.dumps(known, indent=1))
        return
    console = telling.new_console()
    console.print(f"{manifest.get('model')}, {model.title(number)}")
    console.print(f"in {shown(Path(model.folder))}/{number}")
    report = f"{_part(manifest, 'config').get('name')}-{manifest.get('run_id')}.html"
    if (model.reports / report).is_file():
        console.print(f"report {shown(model.reports / report)}")
    console.print("\nMoves of its labels (UTC)")
    console.print("\n".join(f"  {move}" for move in _moves(model, number)))
    rest = {name: v for name, v in manifest.items() if name not in ("metrics", "rows_by_slice")}
    text = yaml.safe_dump(rest, default_flow_style=None, sort_keys=False, width=100)
    console.print(f"\nManifest\n{text}")
    metrics = {name: _metrics(manifest, name) for name in _part(manifest, "metrics")}
    own = metrics.get("candidate", {})
    first = next(iter(own.get(telling.OVERALL, {})), "")
    places = [(name, name, first) for name in telling.worst_slices(own, first)[:_SLICES]]
    heading = f"test rows, then the worst slices' {first}" if places else "test rows"
    titles = {"candidate": f"version {number}"}
    titles["baseline"] = f"version {_part(manifest, 'baseline').get('version')}"
    rows, places = _part(manifest, "rows_by_slice"), telling.overall(own) + places
    telling.print_whole(console, telling.metrics_table(heading, metrics, places, titles, rows))
    console.print(f"\nEverything: {model.command(f'show {number}')} --json")


def diff(model: Model, a: str, b: str, as_json: bool) -> None:
    """Prints what differs between two manifests, what a promotion would break, and the metrics."""
    old, new = model.number(a), model.number(b)
    before, after = (store.read_manifest(model.folder, number) for number in (old, new))
    changes = dict(changed(before, after))
    breaks = {f"{new} over {old}": _breaks(before, after)}
    breaks[f"{old} over {new}"] = _breaks(after, before)
    metrics = {f"version {old}": _metrics(before), f"version {new}": _metrics(after)}
    if as_json:
        found = {"from": old, "to": new, "changes": changes, "breaks": breaks, "metrics": metrics}
        print(json.dumps(found, indent=1))
        return
    console = telling.new_console()
    console.print(f"{model.title(old)} -> {model.title(new)}\n")
    if old == new:
        console.print("They are the same version.")
        return
    for path, (was, is_) in changes.items():
        console.print(f"  {path:<{max(map(len, changes))}}  {_short(was)} -> {_short(is_)}")
    if not changes.keys() - {"fingerprint"}:
        console.print("Nothing else differs in what they were made of.")
    for promotion, problems in breaks.items():
        said = f"would break callers: {'; '.join(problems)}" if problems else "would break nobody"
        if problems is None:
            said = "nobody knows what it would break: one of them has no signature"
        console.print(f"\nPromoting {promotion}: {said}")
    own = any(path.startswith("data.") for path in changes)
    console.print("\nMetrics, on each one's own test rows: the data differ" if own else "\nMetrics")
    _compare_metrics(console, metrics)


def promote(model: Model, wanted: str, why: str, force: bool, as_json: bool) -> None:
    """Makes a version the champion."""
    number, before = model.number(wanted), store.read_labels(model.folder)
    champion = before.get(CHAMPION)
    after = labels.promote(model.folder, number, _mover(why), over=champion, force=force)
    commands = {model.command(f"show {number}"): "what it was made of, and who moved it"}
    if champion not in (None, number):
        commands[make("rollback", model.config_name)] = f"version {champion} again"
    now = "already" if champion == number else "now"
    _tell(model, before, after, f"Version {number} is champion {now}.", commands, as_json)


def rollback(model: Model, why: str, as_json: bool) -> None:
    """Brings the champion before this one back; again, the one before that."""
    before = store.read_state(model.folder)
    again = make("rollback", model.config_name)
    if labels.mend(model.folder) and before.last and before.last["action"] == "rollback":
        # Typed again, by somebody who could not know that it had happened.
        words = f"Version {before.labels.get(CHAMPION)} is champion again: the rollback of "
        words += f"{_minute(before.last['time'])} was cut off, and is finished now."
        _tell(model, before.labels, before.labels, words, {again: "one further back"}, as_json)
        return
    after = labels.rollback(model.folder, _mover(why))
    back, left = after[CHAMPION], before.labels.get(CHAMPION)
    words = f"Version {back} is champion again, in place of version {left}."
    at = max(n for n, version in enumerate(before.champions[:-1]) if version == back)
    if gone := before.champions[at + 1 : -1]:
        words += f" Passed over, because they are gone: {', '.join(map(str, reversed(gone)))}."
    further = [v for v in before.champions[:at] if v in store.list_versions(model.folder)]
    commands = {
        make("promote", model.config_name, f"VERSION={left}"): "the other way again",
        model.command(f"diff {back} {left}"): "what differs between them",
    }
    if further:
        commands[again] = f"one further back: version {further[-1]}"
    else:
        words += " No champion is left for a further rollback."
    _tell(model, before.labels, after, words, commands, as_json)


def label(
    model: Model, name: str, wanted: str | None, remove: bool, why: str, as_json: bool
) -> None:
    """Gives a version a label of the user's own, or takes it away."""
    if remove == (wanted is not None):
        raise PipelineStop(
            f"Name the version that '{name}' is for, or take the label away with --remove: "
            f"`{model.command(f'label {name} 3')}` or `{model.command(f'label {name} --remove')}`."
        )
    number, before = model.number(wanted) if wanted else None, store.read_labels(model.folder)
    after = labels.assign(model.folder, name, number, _mover(why))
    words = f"Version {number} is '{name}'{' already' if before == after else ' now'}."
    if number is None:
        words = f"No version is '{name}' any more."
    _tell(model, before, after, words, {}, as_json)


def verify(model: Model, as_json: bool) -> int:
    """Reads every byte of the registry again; 1 if anything is not as it was filed."""
    problems = labels.verify(model.folder)
    if as_json:
        print(json.dumps(problems, indent=1))
    elif not store.list_versions(model.folder) and not any(problems.values()):
        print(model.none_yet())
    else:
        for name, sentences in problems.items():
            print(f"{name:<{max(map(len, problems))}}  {'damaged' if sentences else 'OK'}")
            print("".join(f"  {sentence}\n" for sentence in sentences), end="")
            if sentences:
                print(f"  -> {_what_to_do(model, name)}")
    return int(any(problems.values()))


def open_model(config_name: str, overrides: list[str] | None, there: bool = False) -> Model:
    """The model of a configuration.

    Args:
      config_name: the configuration.
      overrides: of it.
      there: its labels are to be moved, so it must have versions. Otherwise a move that was cut
        off is caught up with, where that can be written.

    Raises:
      PipelineStop: the configuration has mistakes, or there is no version.
    """
    config = loading.load(config_name, overrides or [])
    workspace = loading.PROJECT / config.workspace
    folder = str(workspace / "registry" / config.registry.model)
    model = Model(config_name, folder, workspace / "reports")
    if there and not store.list_versions(folder):
        raise PipelineStop(model.none_yet())
    if not there:
        with contextlib.suppress(PipelineStop):
            labels.mend(folder)
    return model


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields (dotted path, (old value, new value)) of two manifests; null is as if not there.

    What a search may have set stands under `hyperparameters`; where that differs as the
    configuration does, the configuration's path alone is named.
    """
    old, new = dict(_leaves(before)), dict(_leaves(after))
    for path in {**old, **new}:
        both = old.get(path), new.get(path)
        configured = path.replace("hyperparameters.", "config.", 1)
        same = path != configured and both == (old.get(configured), new.get(configured))
        if both[0] != both[1] and not same and not _NOT_COMPARED.match(path):
            yield path, both


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested mappings and of lists of mappings, with its dotted path."""
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        yield at, value
        return
    for name, inner in value.items():
        yield from _leaves(inner, f"{at}.{name}" if at else str(name))


def _compare_metrics(console: Console, metrics: Mapping[str, telling.BySlice]) -> None:
    """Prints all metrics over all rows, then the first one in the slices where it moved most."""
    old, new = metrics.values()
    first = next(iter(new.get(telling.OVERALL, {})), "")
    change: dict[str, dict[str, str]] = {}
    gains: dict[str, float] = {}
    for place, metric in [(at, metric) for at in old for metric in old[at]]:
        if telling.is_number(old[place], metric) and telling.is_number(new.get(place, {}), metric):
            gain = new[place][metric] - old[place][metric]
            better = telling.direction(metric) * gain
            word = " better" if better > 0 else " worse" if better < 0 else ""
            change.setdefault(place, {})[metric] = f"{gain:+.4f}{word}"
            if metric == first and place != telling.OVERALL and gain:
                gains[place] = abs(gain)
    slices = sorted(gains, key=lambda place: (-gains[place], place))[:_SLICES]
    places = telling.overall(new) + [(place, place, first) for place in slices]
    heading = f"test rows, then {first} where it moved most" if slices else "test rows"
    lines = telling.metrics_table(heading, {**metrics, "change": change}, places, {})
    telling.print_whole(console, lines)


def _tell(
    model: Model,
    before: store.Labels,
    after: store.Labels,
    words: str,
    commands: Mapping[str, str],
    as_json: bool,
) -> None:
    """What moved, and what to type next."""
    moved = labels.moves(before, after)
    if as_json:
        print(json.dumps({"moved": moved, "labels": after}, indent=1))
        return
    console = telling.new_console()
    console.print(words)
    console.print(f"  {_steps(moved)}\n" if moved else "  Nothing was moved.\n")
    tell_next(console, {**commands, make("versions", model.config_name): "all versions"})


def _row(model: Model, number: int) -> dict[str, Any]:
    """What a version's row has; `damage` is None if its manifest can be read."""
    row = {"version": number, "labels": model.held(number), "damage": None, "metrics": {}}
    try:
        manifest = store.read_manifest(model.folder, number)
    except PipelineStop as stop:
        return row | {"damage": str(stop)}
    return row | {
        "filed": str(manifest.get("time", "-")),
        "run": manifest.get("run_id"),
        "judged_against": _part(manifest, "baseline").get("version") or "heuristic",
        "training_rows": _part(manifest, "training").get("rows"),
        "metrics": _metrics(manifest).get(telling.OVERALL, {}),
    }


def _moves(model: Model, version: int) -> Iterator[str]:
    """Each move of a label to this version or away from it, oldest first."""
    try:
        moves = labels.moves_of(model.folder, version)
    except PipelineStop as stop:
        yield f"not known: {stop}"
        return
    for e in moves:
        yield f"{_minute(e['time'])}  {_steps(e['moves'])}, by {e['who']}: {e['why']}"
    if not moves:
        yield "no label has ever pointed to it"


def _steps(moves: Mapping[str, store.Step]) -> str:
    """'champion 2 -> 3, candidate 3 -> none'."""
    steps = (f"{label} {m['from'] or 'none'} -> {m['to'] or 'none'}" for label, m in moves.items())
    return ", ".join(steps)


def _part(manifest: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A mapping within a manifest; {} where it is not there, or something else."""
    value = manifest.get(name)
    return value if isinstance(value, Mapping) else {}


def _metrics(manifest: Mapping[str, Any], model: str = "candidate") -> telling.BySlice:
    by_slice = _part(_part(manifest, "metrics"), model)
    return {name: _part(by_slice, name) for name in by_slice}


def _breaks(callers: Mapping[str, Any], new: Mapping[str, Any]) -> list[str] | None:
    """What promoting `new` over `callers` would break; None if it cannot be known."""
    try:
        return signature.breaks(signature.of(callers), signature.of(new))
    except PipelineStop:
        return None


def _mover(why: str) -> labels.Mover:
    """The person, as user@host; a user without a name is told by number."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"user {os.getuid()}"
    return labels.Mover(f"{user}@{socket.gethostname()}", why)


def _minute(time: str) -> str:
    """A time of the registry, in UTC, for people."""
    return time[:16].replace("T", " ")


def _short(value: Any) -> str:
    """A value in one line; of a hash the first digits."""
    text = value if isinstance(value, str) else json.dumps(value)
    return _HASH.sub(r"\1\2", text)


def _what_to_do(model: Model, name: str) -> str:
    again, folder = model.command("promote N"), shown(Path(model.folder))
    if name.startswith("version "):
        own = f"{folder}/{name.removeprefix('version ')}"
        return f"restore {own} from a copy, or delete it and promote another with `{again}`"
    if name == labels.CONFIG_FILE:
        return f"once {folder} can be written, this command writes it"
    if name == store.LAST_VERSION:
        return "the next version that is filed finds it again, from the folders and the labels"
    return (
        f"restore the folders that labels point to, and {store.JOURNAL} in {folder}, from a copy; "
        f"or take damaged lines out of it; or point the labels to other versions with `{again}` "
        f"and `{model.command('label NAME N')}`"
    )
