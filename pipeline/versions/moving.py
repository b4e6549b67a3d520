"""`versions promote`, `rollback` and `label`: moves of labels, by hand."""

import getpass
import json
import os
import socket

from components.errors import PipelineStop
from components.registry import labels, store
from pipeline.console import make, tell_next
from pipeline.versions.layout import new_console
from pipeline.versions.model import Model, describe_moves


def promote(model: Model, wanted: str, why: str, force: bool, as_json: bool) -> int:
    """Makes a version the champion.

    Raises:
        PipelineStop: It isn't there, is damaged, or would break the champion's callers.
    """
    version = model.find(wanted)
    before = store.read_labels(model.folder)
    champion = before.get(store.CHAMPION)
    after = labels.promote(model.folder, version, mover(why), over=champion, force=force)
    if champion == version:
        return _tell(model, before, after, f"Version {version} is champion already.", {}, as_json)
    commands = {model.command(f"show {version}"): "what it was made of, and who moved it"}
    if champion is not None:
        commands[make("rollback", model.config_name)] = f"version {champion} again"
    return _tell(model, before, after, f"Version {version} is champion now.", commands, as_json)


def rollback(model: Model, why: str, as_json: bool) -> int:
    """Brings the champion before this one back.

    Raises:
        PipelineStop: There is none, or it is damaged.
    """
    _check_any(model)
    before = store.read_state(model.folder)
    after = labels.rollback(model.folder, mover(why))
    back, left = after[store.CHAMPION], before["labels"].get(store.CHAMPION)
    words = f"Version {back} is champion again, in place of version {left}."
    gone, further = _around(model.folder, labels.champions(before)[:-1], back)
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
    return _tell(model, before["labels"], after, words, commands, as_json)


def _around(folder: str, earlier: list[int], back: int) -> tuple[list[int], int | None]:
    """Which champions a rollback to `back` passed over, and which a further one would bring."""
    there = store.list_versions(folder)
    passed = []
    while earlier and earlier[-1] != back:
        passed.append(earlier.pop())
    left = [version for version in earlier[:-1] if version in there]
    return [version for version in passed if version not in there], left[-1] if left else None


def label(
    model: Model, name: str, wanted: str | None, remove: bool, why: str, as_json: bool
) -> int:
    """Sets a label, or takes it away.

    Raises:
        PipelineStop: The label or the version cannot be used, or both or neither are named.
    """
    if remove == (wanted is not None):
        raise PipelineStop(
            f"Name the version that '{name}' is for, or take the label away with --remove: "
            f"`{model.command(f'label {name} 3')}` or `{model.command(f'label {name} --remove')}`."
        )
    _check_any(model)
    version = None if wanted is None else model.find(wanted)
    before = store.read_labels(model.folder)
    after = labels.assign(model.folder, name, version, mover(why))
    if before == after:
        words = f"Version {version} is '{name}' already."
    elif version is None:
        words = f"No version is '{name}' any more."
    else:
        words = f"Version {version} is '{name}' now."
    return _tell(model, before, after, words, {}, as_json)


def _check_any(model: Model) -> None:
    """Before the folder is made for a model that was spelt wrong."""
    if not store.list_versions(model.folder):
        raise PipelineStop(model.none_yet())


def mover(why: str) -> labels.Mover:
    """The person, as user@host; a user without a name is told by number."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"user {os.getuid()}"
    return labels.Mover(f"{user}@{socket.gethostname()}", why)


def _tell(
    model: Model,
    before: store.Labels,
    after: store.Labels,
    words: str,
    commands: dict[str, str],
    as_json: bool,
) -> int:
    moved = labels.moves(before, after)
    if as_json:
        print(json.dumps({"moved": moved, "labels": after}, indent=1))
        return 0
    console = new_console()
    console.print(words)
    console.print(f"  {describe_moves(moved)}" if moved else "  Nothing was moved.")
    console.print()
    tell_next(console, {**commands, make("versions", model.config_name): "all versions"})
    return 0
