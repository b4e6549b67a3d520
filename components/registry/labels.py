"""Labels: `champion`, `previous`, `candidate` and the user's own, and the moves between versions.

All labels lie in one file that is replaced in one step, so a move is whole or did not happen. The
file decides; the history (append-only, one JSON line a move) and TF Serving's `models.config` are
written after it, and a process killed in between loses neither: the file carries its own last
move, and the next move writes what is missing.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components import files
from components.errors import PipelineStop
from components.registry import signature, store
from components.registry.store import CANDIDATE, CHAMPION, PREVIOUS, Labels
from components.registry.tf_serving import CONFIG_FILE, models_config

HISTORY = "history.jsonl"
NAME = re.compile(r"[a-z][a-z0-9_-]*")

Entry = dict[str, Any]


@dataclass(frozen=True)
class Mover:
    """Who or what moves a label, and why: for the history."""

    who: str
    why: str


def promote(
    folder: str, version: int, mover: Mover, over: int | None, force: bool = False
) -> Labels:
    """Makes a version the champion and the old champion `previous`, in one step.

    Args:
        folder: `registry/<model>`.
        version: The new champion.
        mover: For the history.
        over: The champion (None: there is none) that this is known to be right for.
        force: Promote it even if it breaks the champion's callers.

    Raises:
        PipelineStop: If the version isn't there or damaged, another process moved the champion
            meanwhile, or callers of the champion could not call it.
    """
    with files.locked(folder):
        state = store.read_state(folder)
        champion = state["labels"].get(CHAMPION)
        _check_there(folder, version)
        if champion not in (over, version):
            raise PipelineStop(
                f"Version {version} was to replace champion {over}, but by now the champion is "
                f"{champion}. Run again to compare them, or promote it by hand."
            )
        if champion == version:
            return dict(state["labels"])
        _check_whole(folder, version)
        if champion is not None and not force:
            _check_callers(folder, champion, version)
        items = state["labels"].items()
        labels = {name: held for name, held in items if (name, held) != (CANDIDATE, version)}
        return _crown(folder, state, labels, [*champions(state), version], mover, "promote")


def rollback(folder: str, mover: Mover) -> Labels:
    """Brings the champion before this one back, in one step; again, the one before that.

    Champions that are no longer there are passed over. Callers are not asked for: they called
    this version before.

    Raises:
        PipelineStop: If there is no earlier champion, or it is damaged.
    """
    with files.locked(folder):
        state = store.read_state(folder)
        there = store.list_versions(folder)
        earlier = [version for version in champions(state)[:-1] if version in there]
        if not earlier:
            raise PipelineStop(
                f"There is no earlier champion in {folder} to go back to. Versions: "
                f"{', '.join(map(str, there)) or 'none'}; any of them can be promoted."
            )
        _check_whole(folder, earlier[-1])
        return _crown(folder, state, state["labels"], earlier, mover, "rollback")


def assign(folder: str, label: str, version: int | None, mover: Mover) -> Labels:
    """Sets one of the user's own labels, or `candidate`; None takes it away.

    Raises:
        PipelineStop: If the label or the version cannot be used.
    """
    if label in (CHAMPION, PREVIOUS):
        raise PipelineStop(
            f"'{label}' is not set by hand: `versions promote` and `versions rollback` move it."
        )
    if not NAME.fullmatch(label):
        raise PipelineStop(
            f"'{label}' cannot be a label: small letters, digits, '-' and '_', a letter first."
        )
    with files.locked(folder):
        state = store.read_state(folder)
        labels = {name: number for name, number in state["labels"].items() if name != label}
        if version is not None:
            _check_there(folder, version)
            labels[label] = version
        elif label not in state["labels"]:
            raise PipelineStop(f"There is no label '{label}' in {folder}.")
        if labels == state["labels"]:
            return labels
        return _move(folder, state, labels, champions(state), mover, "label")


def champions(state: Mapping[str, Any]) -> list[int]:
    """Those that a rollback goes back through, the present one last."""
    found: list[int] = state["champions"]
    return found


def moves(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, dict[str, int | None]]:
    """What moved: {label: {"from": version or None, "to": version or None}}."""
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: {"from": before.get(name), "to": after.get(name)} for name in changed}


def read_history(folder: str) -> list[Entry]:
    """Every move, oldest first: n, time (UTC), who, why, action, moves.

    Raises:
        PipelineStop: If the file is damaged.
    """
    lines = _lines(folder)
    try:
        entries = [json.loads(line) for line in lines]
    except ValueError as error:
        raise PipelineStop(
            f"{os.path.join(folder, HISTORY)} is damaged ({error}). The labels are not: they lie "
            "in labels.json. Restore the file from a copy, or take the damaged line out; `versions "
            "verify` says whether it then leads to the labels."
        ) from error
    return entries + _unwritten(store.read_state(folder), lines)


def moves_of(folder: str, version: int) -> list[Entry]:
    """The moves that gave a label to a version or took one from it, oldest first."""
    return [
        entry
        for entry in read_history(folder)
        if any(version in move.values() for move in entry["moves"].values())
    ]


def _check_there(folder: str, version: int) -> None:
    there = store.list_versions(folder)
    if version not in there:
        known = ", ".join(map(str, there)) or "none"
        raise PipelineStop(f"There is no version {version} in {folder}. Versions: {known}.")


def _check_whole(folder: str, version: int) -> None:
    if problems := store.damage(folder, version):
        raise store.damaged(folder, version, problems)


def _check_callers(folder: str, champion: int, version: int) -> None:
    now, new = (signature.of(store.read_manifest(folder, v)) for v in (champion, version))
    if problems := signature.breaks(now, new):
        raise PipelineStop(
            f"Version {version} would break the callers of champion {champion}: "
            f"{'; '.join(problems)}. Once the callers know it, promote it with --force."
        )


def _crown(
    folder: str,
    state: Mapping[str, Any],
    labels: Mapping[str, int],
    champions: list[int],
    mover: Mover,
    action: str,
) -> Labels:
    """Moves with `champion` and `previous` as the list of champions says."""
    others = {name: v for name, v in labels.items() if name not in (CHAMPION, PREVIOUS)}
    leading = dict(zip((CHAMPION, PREVIOUS), reversed(champions[-2:]), strict=False))
    return _move(folder, state, {**leading, **others}, champions, mover, action)


def _move(
    folder: str,
    state: Mapping[str, Any],
    labels: Labels,
    champions: list[int],
    mover: Mover,
    action: str,
) -> Labels:
    """Replaces the labels, which decides, then writes what follows from them."""
    before = state["last"]
    entry = {
        "n": before["n"] + 1 if before else 1,
        "time": store.now(),
        "who": mover.who,
        "why": mover.why,
        "action": action,
        "moves": moves(state["labels"], labels),
    }
    _append(folder, _unwritten(state, _lines(folder)))
    store.write_state(folder, {"labels": labels, "champions": champions, "last": entry})
    _append(folder, [entry])
    name = os.path.basename(os.path.normpath(folder))
    files.write_atomically(os.path.join(folder, CONFIG_FILE), models_config(name, labels))
    return labels


def _unwritten(state: Mapping[str, Any], lines: list[bytes]) -> list[Entry]:
    """The last move, if its process was killed before it stood in the history."""
    last = state["last"]
    return [last] if last and lines[-1:] != [json.dumps(last).encode()] else []


def _append(folder: str, entries: list[Entry]) -> None:
    """Appends whole lines, after cutting off one that a killed process left half."""
    with open(os.path.join(folder, HISTORY), "a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write("".join(json.dumps(entry) + "\n" for entry in entries).encode())
        file.flush()
        os.fsync(file.fileno())


def _lines(folder: str) -> list[bytes]:
    """The history's whole lines."""
    try:
        with open(os.path.join(folder, HISTORY), "rb") as file:
            return file.read().rpartition(b"\n")[0].splitlines()
    except FileNotFoundError:
        return []
