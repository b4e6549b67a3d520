"""The command group `versions`: list, show, diff, promote, rollback, label, verify."""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ParamSpec

import typer
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.errors import PipelineStop
from components.registry import labels, store
from components.registry.labels import CONFIG_FILE
from pipeline.command_line import ConfigName, Overrides, told
from pipeline.console import make, shown, tell_next
from pipeline.versions import differences
from pipeline.versions.differences import OVERALL
from pipeline.versions.model import (
    Fact,
    Model,
    Version,
    day_and_minute,
    describe_moves,
    held_by,
    mapping,
    mover,
    narrow_table,
    needed_width,
    new_console,
    number,
    open_model,
    part,
    print_section,
    print_table,
    value,
)

app = typer.Typer(
    help="The model's versions in the registry: list, compare, promote, roll back.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Everything that is known, for programs.")]
NumberOrLabel = Annotated[str, typer.Argument(metavar="N", help="A version: number or label.")]
Why = Annotated[str, typer.Option(metavar="TEXT", help="For the history of the labels.")]
P = ParamSpec("P")

_METRICS, _WORST, _MOVED = 3, 8, 5
"""So many metrics are listed, and slices shown and compared; --json has all."""
_DAMAGED = "damaged: versions verify"
_TITLES = {
    "settings": "Settings",
    "searched": "Settings that a search had found",
    "features": "Features",
    "signature": "Signature",
    "data": "Data",
    "hashes": "Code, schema, transform",
    "libraries": "Libraries",
    "training": "Training",
}


def _command(work: Callable[P, Any]) -> Callable[P, None]:
    """A command that ends with the code that it returns, and tells what stops it."""

    def without_traceback(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return int(work(*args, **kwargs) or 0)
        except OSError as error:
            raise PipelineStop(f"{error.filename} cannot be read: {error.strerror}.") from error

    @functools.wraps(work)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        raise SystemExit(told(lambda: without_traceback(*args, **kwargs)))

    return command


@app.command("list")
@_command
def list_(
    config: ConfigName = "development", set_: Overrides = None, json_: AsJson = False
) -> None:
    """List the versions, newest first, with their labels and metrics."""
    model, console = _open(config, set_), new_console()
    held = store.read_labels(model.folder)
    numbers = reversed(store.list_versions(model.folder))
    rows = [_row(model, number, held_by(held, number)) for number in numbers]
    if json_:
        print(json.dumps(rows, indent=1))
    elif not rows:
        console.print(model.none_yet())
    else:
        tables = [_table(rows, count) for count in range(_METRICS, 0, -1)]
        fitting = [made for made in tables if needed_width(made) <= console.width]
        console.print(f"{model.shown_folder}\n")
        console.print([*fitting, tables[-1]][0], soft_wrap=False)
        console.print(f"\n{_champion(model, held)}")


@app.command()
@_command
def show(
    version: NumberOrLabel,
    config: ConfigName = "development",
    set_: Overrides = None,
    json_: AsJson = False,
) -> None:
    """Show what a version was made of, how good it is, and who moved its labels."""
    model, console = _open(config, set_), new_console()
    shown_one = model.version(version)
    if json_:
        known = {"version": shown_one.number, "labels": shown_one.labels}
        known |= {"moves": labels.moves_of(model.folder, shown_one.number)}
        print(json.dumps(known | {"manifest": shown_one.manifest}, indent=1))
        return
    manifest = shown_one.manifest
    console.print(f"{manifest.get('model')}, {shown_one.title}")
    console.print(f"in {model.shown_folder}/{shown_one.number}")
    report = f"{part(manifest, 'config', 'name')}-{manifest.get('run_id')}.md"
    if (model.workspace.reports / report).is_file():
        console.print(f"report {shown(model.workspace.reports / report)}")
    print_section(console, "Moves of its labels (UTC)", _moves(model, shown_one.number))
    rest = {name: v for name, v in manifest.items() if name not in ("metrics", "rows_by_slice")}
    text = yaml.safe_dump(rest, default_flow_style=None, sort_keys=False, width=100)
    console.print(f"\nManifest\n{text}")
    _print_metrics(console, shown_one)
    console.print(f"\nEverything: {model.command(f'show {shown_one.number}')} --json")


@app.command()
@_command
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A version: number or label.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    config: ConfigName = "development",
    set_: Overrides = None,
    json_: AsJson = False,
) -> None:
    """Show what differs between two versions: settings, data, code, metrics."""
    model, console = _open(config, set_), new_console()
    before, after = model.version(a), model.version(b)
    found = differences.compare(before.manifest, after.manifest)
    broken = {
        "promoting_to_over_from": differences.breaks(before.manifest, after.manifest),
        "promoting_from_over_to": differences.breaks(after.manifest, before.manifest),
    }
    if json_:
        both = {"from": before.number, "to": after.number}
        print(json.dumps({**both, **found, "breaks": broken}, indent=1))
        return
    console.print(f"{before.title} -> {after.title}")
    if not any(found.values()):
        console.print("They are the same version.")
        return
    for name, title in _TITLES.items():
        print_section(console, title, _facts(found[name]))
    if not any(found[name] for name in _TITLES if name != "hashes"):
        console.print("\nNothing else differs in what they were made of.")
    there, back = broken.values()
    callers = [_callers(after, before, there), _callers(before, after, back)]
    print_section(console, "Callers", callers)
    _print_changes(console, before, after, found)


@app.command()
@_command
def promote(
    version: NumberOrLabel,
    why: Why = "by hand",
    force: Annotated[
        bool, typer.Option("--force", help="Even if it breaks the champion's callers.")
    ] = False,
    config: ConfigName = "development",
    set_: Overrides = None,
    json_: AsJson = False,
) -> None:
    """Make a version the champion."""
    model = open_model(config, set_ or [])
    wanted, before = model.version(version).number, store.read_labels(model.folder)
    champion = before.get(store.CHAMPION)
    after = labels.promote(model.folder, wanted, mover(why), over=champion, force=force)
    if champion == wanted:
        _tell(model, before, after, f"Version {wanted} is champion already.", {}, json_)
        return
    commands = {model.command(f"show {wanted}"): "what it was made of, and who moved it"}
    if champion is not None:
        commands[make("rollback", model.config_name)] = f"version {champion} again"
    _tell(model, before, after, f"Version {wanted} is champion now.", commands, json_)


@app.command()
@_command
def rollback(
    why: Why = "by hand",
    config: ConfigName = "development",
    set_: Overrides = None,
    json_: AsJson = False,
) -> None:
    """Bring the champion before this one back; again, the one before that."""
    model = _with_versions(config, set_)
    before = store.read_state(model.folder)
    last = before.last
    if CONFIG_FILE in labels.mend(model.folder) and last and last["action"] == "rollback":
        # Typed again, by somebody who could not know that it had happened.
        words = f"Version {before.labels.get(store.CHAMPION)} is champion again: the rollback of "
        words += f"{day_and_minute(last['time'])} was cut off, and is finished now."
        command = {make("rollback", model.config_name): "one further back"}
        _tell(model, before.labels, before.labels, words, command, json_)
        return
    after = labels.rollback(model.folder, mover(why))
    back, left = after[store.CHAMPION], before.labels.get(store.CHAMPION)
    words = f"Version {back} is champion again, in place of version {left}."
    gone, further = _around(model.folder, before.champions[:-1], back)
    if gone:
        words += f" Passed over, because they are gone: {', '.join(map(str, gone))}."
    commands = {
        make("promote", model.config_name, f"VERSION={left}"): "the other way again",
        model.command(f"diff {back} {left}"): "what differs between them",
    }
    if further is None:
        words += " No champion is left for a further rollback."
    else:
        commands[make("rollback", model.config_name)] = f"one further back: version {further}"
    _tell(model, before.labels, after, words, commands, json_)


@app.command()
@_command
def label(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The label.")],
    version: Annotated[
        str | None, typer.Argument(metavar="[N]", help="A version: number or label.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the label away.")] = False,
    why: Why = "by hand",
    config: ConfigName = "development",
    set_: Overrides = None,
    json_: AsJson = False,
) -> None:
    """Give a version a label of your own, or take it away."""
    model = _with_versions(config, set_)
    if remove == (version is not None):
        raise PipelineStop(
            f"Name the version that '{name}' is for, or take the label away with --remove: "
            f"`{model.command(f'label {name} 3')}` or `{model.command(f'label {name} --remove')}`."
        )
    wanted = None if version is None else model.version(version).number
    before = store.read_labels(model.folder)
    after = labels.assign(model.folder, name, wanted, mover(why))
    words = f"Version {wanted} is '{name}'{' already' if before == after else ' now'}."
    if wanted is None:
        words = f"No version is '{name}' any more."
    _tell(model, before, after, words, {}, json_)


@app.command()
@_command
def verify(
    config: ConfigName = "development", set_: Overrides = None, json_: AsJson = False
) -> int:
    """Check that everything in the registry is as it was filed."""
    model, console = _open(config, set_), new_console()
    found = labels.verify(model.folder)
    damaged = any(found.values())
    if json_:
        print(json.dumps(found, indent=1))
    elif not damaged and not store.list_versions(model.folder):
        console.print(model.none_yet())
    else:
        width = max(map(len, found))
        for name, problems in found.items():
            console.print(f"{name:<{width}}  {'damaged' if problems else 'OK'}")
            for problem in problems:
                console.print(f"  {problem}")
            if problems:
                console.print(f"  -> {_what_to_do(model, name)}")
    return int(damaged)


def _open(config: str, overrides: list[str] | None) -> Model:
    """The model, after catching up with a move that was cut off, where that can be written."""
    model = open_model(config, overrides or [])
    with contextlib.suppress(PipelineStop):
        labels.mend(model.folder)
    return model


def _with_versions(config: str, overrides: list[str] | None) -> Model:
    """The model; stops before a folder is made for one that was spelt wrong."""
    model = open_model(config, overrides or [])
    if not store.list_versions(model.folder):
        raise PipelineStop(model.none_yet())
    return model


def _tell(
    model: Model,
    before: store.Labels,
    after: store.Labels,
    words: str,
    commands: dict[str, str],
    as_json: bool,
) -> None:
    """What moved, and what to type next."""
    moved = labels.moves(before, after)
    if as_json:
        print(json.dumps({"moved": moved, "labels": after}, indent=1))
        return
    console = new_console()
    console.print(words)
    console.print(f"  {describe_moves(moved)}\n" if moved else "  Nothing was moved.\n")
    tell_next(console, {**commands, make("versions", model.config_name): "all versions"})


def _around(folder: str, earlier: list[int], back: int) -> tuple[list[int], int | None]:
    """Which champions a rollback to `back` passed over, and which a further one would bring."""
    there, passed = store.list_versions(folder), []
    while earlier and earlier[-1] != back:
        passed.append(earlier.pop())
    left = [version for version in earlier[:-1] if version in there]
    return passed, left[-1] if left else None


def _row(model: Model, number: int, held: list[str]) -> dict[str, Any]:
    """What a version's row has; `damage` is None if its manifest can be read."""
    row: dict[str, Any] = {"version": number, "labels": held, "damage": None}
    try:
        manifest = store.read_manifest(model.folder, number)
    except PipelineStop as stop:
        return row | {"damage": str(stop)}
    return row | {
        "filed": str(part(manifest, "time") or "-"),
        "run": manifest.get("run_id"),
        "judged_against": part(manifest, "baseline", "version") or "heuristic",
        "training_rows": part(manifest, "training", "rows") or None,
        "metrics": differences.metrics_of(manifest)[OVERALL],
    }


def _table(rows: list[dict[str, Any]], count: int) -> Table:
    """The rows with so many metrics; long labels give way to them."""
    whole = [row["metrics"] for row in rows if row["damage"] is None]
    metrics = list(whole[0])[:count] if whole else []
    made = narrow_table("version", "labels", "filed (UTC)", "against", "rows", *metrics)
    made.columns[1].justify = made.columns[2].justify = "left"
    made.columns[1].no_wrap, made.columns[1].overflow = False, "fold"
    for row in rows:
        name = str(row["version"]), ", ".join(row["labels"])
        if row["damage"] is not None:
            made.add_row(*name, Text(_DAMAGED, style="red"))
            continue
        judged = row["judged_against"]
        against = judged if isinstance(judged, str) else f"version {judged}"
        numbers = (number(row["metrics"].get(metric)) for metric in metrics)
        filed, trained_on = day_and_minute(row["filed"]), _count(row["training_rows"])
        made.add_row(*name, filed, against, trained_on, *numbers)
    return made


def _champion(model: Model, held: store.Labels) -> str:
    """Which version is champion, and since when, by whom and why."""
    champion = held.get(store.CHAMPION)
    if champion is None:
        return "No version is champion yet."
    crowned = [fact for fact in _moves(model, champion) if fact[1].startswith("champion ")]
    since, why = (crowned or _moves(model, champion))[-1]
    return f"Champion: version {champion}, since {since}\n  {why}"


def _moves(model: Model, version: int) -> list[Fact]:
    """Each move of a label to this version or away from it."""
    try:
        moves = labels.moves_of(model.folder, version)
    except PipelineStop as stop:
        return [("not known", str(stop))]
    facts = [
        (day_and_minute(e["time"]), f"{describe_moves(e['moves'])}, by {e['who']}: {e['why']}")
        for e in moves
    ]
    return facts or [("none", "no label has ever pointed to it")]


def _print_metrics(console: Console, version: Version) -> None:
    """All metrics over all rows, then the first metric in the slices where it is worst."""
    manifest, own = version.manifest, differences.metrics_of(version.manifest)
    rows, names = mapping(manifest, "rows_by_slice"), list(mapping(manifest, "metrics"))
    models = [differences.metrics_of(manifest, name) for name in names]
    titles = {
        "candidate": f"version {version.number}",
        "baseline": f"version {part(manifest, 'baseline', 'version')}",
    }
    made = narrow_table("", "rows", *(titles.get(name, name) for name in names))
    metric = next(iter(own[OVERALL]), "")
    worst = differences.worst_slices(own, metric)
    shown_ones = [(OVERALL, name, name) for name in own[OVERALL]]
    shown_ones += [(name, metric, name) for name in worst[:_WORST]]
    for at, name, title in shown_ones:
        numbers = [number(by_slice.get(at, {}).get(name)) for by_slice in models]
        made.add_row(title, _count(rows.get(at)), *numbers)
    slices = f", then {metric} of the worst slices{_of(_WORST, worst)}" if worst else ""
    print_table(console, f"\nMetrics on the test rows{slices}", made)


def _print_changes(
    console: Console, before: Version, after: Version, found: Mapping[str, Any]
) -> None:
    """Every metric over all rows, then the first metric in the slices where it moved most."""
    old, new = (differences.metrics_of(version.manifest) for version in (before, after))
    made = narrow_table("", f"version {before.number}", f"version {after.number}", "change")
    metric = next(iter(new[OVERALL]), "")
    moved = differences.most_moved(old, new, metric)
    shown_ones = [(OVERALL, name, name) for name in {**old[OVERALL], **new[OVERALL]}]
    shown_ones += [(name, metric, name) for name in moved[:_MOVED]]
    for at, name, title in shown_ones:
        made.add_row(title, *_change(name, old[at].get(name), new[at].get(name)))
    same = not found["data"] and not any(path.startswith("data.") for path in found["settings"])
    where = "the test split" if same else "each one's own test split: the data differ"
    slices = f"; then the slices whose {metric} moved most{_of(_MOVED, moved)}" if moved else ""
    print_table(console, f"\nMetrics on {where}{slices}", made)


def _change(metric: str, old: float | None, new: float | None) -> list[str]:
    """A metric in both, and how it changed."""
    if old is None or new is None:
        return [number(old), number(new), ""]
    better = differences.direction(metric) * (new - old)
    word = "better" if better > 0 else "worse" if better < 0 else ""
    return [number(old), number(new), f"{new - old:+.4f} {word:<6}"]


def _count(rows: Any) -> str:
    return f"{rows:,}" if isinstance(rows, int) else "-"


def _of(limit: int, names: list[str]) -> str:
    """', 8 of 26; --json has all', if that is so."""
    return f", {limit} of {len(names)}; --json has all" if len(names) > limit else ""


def _facts(changed: Mapping[str, Any]) -> Iterator[Fact]:
    """The changes of a part, by path; features that came and went have no two sides."""
    for name, what in changed.items():
        if name in ("added", "removed"):
            yield from ((f"{feature} {name}", value(v)) for feature, v in what.items())
        elif name == "changed":
            yield from _facts(what)
        else:
            old, new = (value(what[side]) if side in what else "none" for side in ("from", "to"))
            yield name, f"{old} -> {new}"


def _callers(new: Version, over: Version, problems: list[str] | None) -> Fact:
    said = f"would break callers: {'; '.join(problems)}" if problems else "would break nobody"
    if problems is None:
        said = "nobody knows what it would break: one of them has no signature"
    return f"promoting {new.number} over {over.number}", said


def _what_to_do(model: Model, name: str) -> str:
    again = model.command("promote N")
    if name.startswith("version "):
        folder = f"{model.shown_folder}/{name.removeprefix('version ')}"
        return f"restore {folder} from a copy, or delete it and promote another with `{again}`"
    if name == CONFIG_FILE:
        return f"once {model.shown_folder} can be written, this command writes it"
    if name == store.LAST_VERSION:
        return "the next version that is filed finds it again, from the folders and the labels"
    return (
        f"restore the folders that labels point to, and {store.JOURNAL} in {model.shown_folder}, "
        f"from a copy; or take damaged lines out of it; or point the labels to other versions with "
        f"`{again}` and `{model.command('label NAME N')}`"
    )
