"""Labels: `champion`, `previous`, `candidate` and the user's own, and the moves between versions.

A move is one more line of the journal, which is replaced whole, under the lock: it is there, or it
did not happen. `labels.json`, for people, and `models.config`, for TF Serving, are copies of what
the last line says. A process that was killed before it wrote them is caught up with by the next
command (`mend`).
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from components import files
from components.errors import PipelineStop
from components.registry import signature, store
from components.registry.store import (
    CANDIDATE,
    CHAMPION,
    JOURNAL,
    PREVIOUS,
    Entry,
    Labels,
    State,
    Step,
)

CONFIG_FILE = "models.config"

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_MOST_CHAMPIONS = 100
"""So many a rollback can go back through; each line of the journal has them."""


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
            meanwhile, callers of the champion could not call it, or the registry cannot be
            written.
    """
    with _moving(folder) as state:
        champion = state.labels.get(CHAMPION)
        _check_there(folder, version)
        if champion not in (over, version):
            raise PipelineStop(
                f"Version {version} was to replace champion {over}, but by now the champion is "
                f"{champion}. Run again to compare them, or promote it by hand."
            )
        if champion == version:
            return state.labels
        _check_whole(folder, version)
        if champion is not None and not force:
            _check_callers(folder, champion, version)
        labels = {name: n for name, n in state.labels.items() if (name, n) != (CANDIDATE, version)}
        return _crown(folder, state, labels, [*state.champions, version], mover, "promote")


def rollback(folder: str, mover: Mover) -> Labels:
    """Brings the champion before this one back, in one step; again, the one before that.

    Champions that are no longer there are passed over. Callers are not asked for: they called
    this version before.

    Raises:
        PipelineStop: If there is no earlier champion, it is damaged, or the registry cannot be
            written.
    """
    with _moving(folder) as state:
        there = store.list_versions(folder)
        earlier = [version for version in state.champions[:-1] if version in there]
        if not earlier:
            raise PipelineStop(
                f"There is no earlier champion in {folder} to go back to. Versions: "
                f"{', '.join(map(str, there)) or 'none'}; any of them can be promoted."
            )
        _check_whole(folder, earlier[-1])
        return _crown(folder, state, state.labels, earlier, mover, "rollback")


def assign(folder: str, label: str, version: int | None, mover: Mover) -> Labels:
    """Sets one of the user's own labels, or `candidate`; None takes it away.

    Raises:
        PipelineStop: If the label or the version cannot be used, or the registry cannot be
            written.
    """
    if label in (CHAMPION, PREVIOUS):
        raise PipelineStop(
            f"'{label}' is not set by hand: `versions promote` and `versions rollback` move it."
        )
    if not _NAME.fullmatch(label):
        raise PipelineStop(
            f"'{label}' cannot be a label: small letters, digits, '-' and '_', a letter first."
        )
    with _moving(folder) as state:
        labels = {name: number for name, number in state.labels.items() if name != label}
        if version is not None:
            _check_there(folder, version)
            labels[label] = version
        elif label not in state.labels:
            raise PipelineStop(f"There is no label '{label}' in {folder}.")
        if labels == state.labels:
            return labels
        return _move(folder, state, labels, state.champions, mover, "label")


def mend(folder: str) -> list[str]:
    """Writes the copies anew that are not what the labels say, and returns their names.

    Raises:
        PipelineStop: The labels cannot be read, or the copies cannot be written.
    """
    if not _stale(folder, store.read_state(folder)):
        return []
    with store.writing(folder):
        return _write_copies(folder)


def moves(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, Step]:
    """What moved: {label: {"from": version or None, "to": version or None}}."""
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: {"from": before.get(name), "to": after.get(name)} for name in changed}


def read_history(folder: str) -> list[Entry]:
    """Every move, oldest first.

    Raises:
        PipelineStop: A line is damaged.
    """
    lines = enumerate(store.journal_lines(folder), start=1)
    return [store.parse_line(folder, number, line) for number, line in lines]


def moves_of(folder: str, version: int) -> list[Entry]:
    """The moves that gave a label to a version or took one from it, oldest first."""
    return [
        entry
        for entry in read_history(folder)
        if any(version in (step["from"], step["to"]) for step in entry["moves"].values())
    ]


def verify(folder: str) -> dict[str, list[str]]:
    """Reads every byte of every version again.

    Returns:
        By what is looked at ("version 3", "labels", ...) what is wrong with it; empty if nothing.
    """
    problems = {f"version {n}": version_problems(folder, n) for n in store.list_versions(folder)}
    problems["labels"], problems[CONFIG_FILE] = [], []
    problems[store.LAST_VERSION] = store.counter_problems(folder)
    try:
        state = store.read_state(folder)
        problems["labels"] = [*_label_problems(folder, state)]
        for name in _stale(folder, state):
            problems[CONFIG_FILE].append(f"{name} is not what the labels say")
        problems["labels"] += _history_problems(read_history(folder))
    except PipelineStop as stop:
        problems["labels"].append(str(stop))
    return problems


def models_config(model: str, labels: Mapping[str, int]) -> str:
    """TF Serving's configuration file: all versions of a model, and their labels.

    https://www.tensorflow.org/tfx/serving/serving_config#model_server_configuration

    Args:
        model: The model's name; its folder is `/models/<model>` where TF Serving runs, which is
            where its image looks.
        labels: The version of each label.
    """
    # TF Serving moves a label only to a version that is loaded, and checks that before it loads
    # what a new file names: a list of versions would never get a version without a label in.
    lines = [
        "model_config_list {",
        "  config {",
        f'    name: "{model}"',
        f'    base_path: "/models/{model}"',
        '    model_platform: "tensorflow"',
        "    model_version_policy { all {} }",
        *(f'    version_labels {{ key: "{k}" value: {v} }}' for k, v in sorted(labels.items())),
    ]
    return "\n".join([*lines, "  }", "}", ""])


@contextlib.contextmanager
def _moving(folder: str) -> Iterator[State]:
    """Keeps other writers out, catches up with a killed move, and yields what holds now."""
    with store.writing(folder):
        _write_copies(folder)
        yield store.read_state(folder)


def _check_there(folder: str, version: int) -> None:
    there = store.list_versions(folder)
    if version not in there:
        known = ", ".join(map(str, there)) or "none"
        raise PipelineStop(f"There is no version {version} in {folder}. Versions: {known}.")


def _check_whole(folder: str, version: int) -> None:
    if problems := store.damage(folder, version):
        raise store.damaged(folder, version, problems)


def _check_callers(folder: str, champion: int, version: int) -> None:
    try:
        now = signature.of(store.read_manifest(folder, champion))
    except PipelineStop as stop:
        raise PipelineStop(
            f"{stop} So nobody knows what callers of champion {champion} send; promote version "
            f"{version} with --force if they can call it."
        ) from stop
    if problems := signature.breaks(now, signature.of(store.read_manifest(folder, version))):
        raise PipelineStop(
            f"Version {version} would break the callers of champion {champion}: "
            f"{'; '.join(problems)}. Once the callers know it, promote it with --force."
        )


def _crown(
    folder: str,
    state: State,
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
    folder: str, before: State, labels: Labels, champions: list[int], mover: Mover, action: str
) -> Labels:
    """Adds the move to the journal, which decides, then writes the copies."""
    entry: Entry = {
        "n": before.last["n"] + 1 if before.last else 1,
        "time": store.now(),
        "who": mover.who,
        "why": mover.why,
        "action": action,
        "moves": moves(before.labels, labels),
        "labels": labels,
        "champions": champions[-_MOST_CHAMPIONS:],
    }
    lines = [line.decode(errors="replace") for line in store.journal_lines(folder)]
    text = "".join(f"{line}\n" for line in [*lines, json.dumps(entry)])
    files.write_atomically(os.path.join(folder, JOURNAL), text)
    try:
        _write_copies(folder)
    except OSError as error:
        raise PipelineStop(
            f"The labels are moved ({labels}), but not for TF Serving: "
            f"{store.unwritable(folder, error)} Then `versions verify` writes it."
        ) from error
    return labels


def _stale(folder: str, state: State) -> dict[str, str]:
    """The text of each copy that is not what it should be."""
    copies = {}
    if state.last and "labels" in state.last:
        shown = state.model_dump(exclude={"last": {"labels", "champions"}})
        copies[store.LABELS] = json.dumps(shown, indent=1)
    if state.last or state.labels:
        name = os.path.basename(os.path.normpath(folder))
        copies[CONFIG_FILE] = models_config(name, state.labels)
    return {name: text for name, text in copies.items() if _text(folder, name) != text}


def _text(folder: str, name: str) -> str | None:
    path = os.path.join(folder, name)
    with contextlib.suppress(FileNotFoundError), open(path, errors="replace") as file:
        return file.read()
    return None


def _write_copies(folder: str) -> list[str]:
    stale = _stale(folder, store.read_state(folder))
    for name, text in stale.items():
        files.write_atomically(os.path.join(folder, name), text)
    return list(stale)


def version_problems(folder: str, number: int) -> list[str]:
    """What about a version is not as it was filed, also if its manifest cannot be read."""
    try:
        return store.damage(folder, number)
    except (PipelineStop, OSError) as error:
        return [str(error)]


def _label_problems(folder: str, state: State) -> Iterator[str]:
    there = store.list_versions(folder)
    for label, version in state.labels.items():
        if version not in there:
            yield f"'{label}' is version {version}, which is not there"


def _history_problems(history: list[Entry]) -> Iterator[str]:
    """Each move must lead from the labels of the line before it to its own."""
    for before, after in pairwise(history):
        if "labels" in before and moves(before["labels"], after["labels"]) != after["moves"]:
            yield f"{JOURNAL}: move {after['n']} does not begin where the one before it ended"
