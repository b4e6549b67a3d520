"""Labels: `champion`, `previous`, `candidate` and the user's own, and the moves between versions.

A move is one line that is appended to the journal under the lock and synced: it is whole, or it
did not happen. `labels.json`, for people, and `models.config`, for TF Serving, are copies of what
the last line says. A process that was killed before it wrote them is caught up with by the next
command (`mend`).
"""

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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
            return dict(state.labels)
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
        return _move(folder, state, State(labels, state.champions, None), mover, "label")


def mend(folder: str) -> list[str]:
    """Writes the copies anew that are not what the labels say, and returns their names.

    Raises:
        PipelineStop: The labels cannot be read, or the copies cannot be written.
    """
    if not _stale(folder, store.read_state(folder)):
        return []
    with store.writing(folder):
        return _write_copies(folder, store.read_state(folder))


def moves(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, Step]:
    """What moved: {label: {"from": version or None, "to": version or None}}."""
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: {"from": before.get(name), "to": after.get(name)} for name in changed}


def read_history(folder: str) -> list[Entry]:
    """Every move, oldest first.

    Raises:
        PipelineStop: A line is damaged.
    """
    damaged: list[str] = []
    entries = _entries(folder, damaged)
    if damaged:
        raise PipelineStop(damaged[0])
    return entries


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
    problems = {f"version {n}": _version_problems(folder, n) for n in store.list_versions(folder)}
    problems["labels"], problems[CONFIG_FILE] = [], []
    problems[store.LAST_VERSION] = store.counter_problems(folder)
    try:
        state = store.read_state(folder)
        problems["labels"] = [*_label_problems(folder, state), *_history_problems(folder, state)]
        for name in _stale(folder, state):
            where = CONFIG_FILE if name == CONFIG_FILE else "labels"
            problems[where].append(f"{name} is not what the labels say, and cannot be written")
    except PipelineStop as stop:
        problems["labels"] = [str(stop)]
    return problems


def models_config(model: str, labels: Mapping[str, int]) -> str:
    """TF Serving's configuration file: all versions of a model, and their labels.

    https://www.tensorflow.org/tfx/serving/serving_config#model_server_configuration

    Args:
        model: The model's name; its folder is `/models/<model>` where TF Serving runs, which is
            where its image looks.
        labels: The version of each label. Without any, TF Serving takes the newest version.
    """
    lines = [
        "model_config_list {",
        "  config {",
        f'    name: "{model}"',
        f'    base_path: "/models/{model}"',
        '    model_platform: "tensorflow"',
    ]
    if labels:
        # TF Serving moves a label only to a version that is loaded, and checks that before it loads
        # what a new file names: a list of versions would never get a version without a label in.
        lines.append("    model_version_policy { all {} }")
    lines += [
        f'    version_labels {{ key: "{label}" value: {version} }}'
        for label, version in sorted(labels.items())
    ]
    return "\n".join([*lines, "  }", "}"]) + "\n"


@contextlib.contextmanager
def _moving(folder: str) -> Iterator[State]:
    """Keeps other writers out, catches up with a killed move, and yields what holds now."""
    with store.writing(folder):
        state = store.read_state(folder)
        _write_copies(folder, state)
        yield state


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
    after = State({**leading, **others}, champions[-_MOST_CHAMPIONS:], None)
    return _move(folder, state, after, mover, action)


def _move(folder: str, before: State, after: State, mover: Mover, action: str) -> Labels:
    """Appends the move, which decides, then writes the copies."""
    entry: Entry = {
        "n": before.last["n"] + 1 if before.last else 1,
        "time": store.now(),
        "who": mover.who,
        "why": mover.why,
        "action": action,
        "moves": moves(before.labels, after.labels),
        "labels": after.labels,
        "champions": after.champions,
    }
    _append(folder, before, entry)
    try:
        _write_copies(folder, State(after.labels, after.champions, entry))
    except OSError as error:
        raise PipelineStop(
            f"The labels are moved ({after.labels}), but not for TF Serving: "
            f"{store.unwritable(folder, error)} Then `versions verify` writes it."
        ) from error
    return after.labels


def _append(folder: str, before: State, entry: Entry) -> None:
    """Appends a line to the journal and syncs it; where the disk refuses, nothing is changed."""
    path, lines = os.path.join(folder, JOURNAL), store.journal_lines(folder)
    last = [store.parse_line(folder, len(lines), line) for line in lines[-1:]]
    text = "".join(json.dumps(e) + "\n" for e in [*_unwritten(before, last), entry]).encode()
    with open(path, "a+b", buffering=0) as file:
        file.seek(0)
        end = file.read().rfind(b"\n") + 1  # what a killed process left half begins there
        try:
            file.truncate(end)
            if file.write(text) != len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def _entries(folder: str, damaged: list[str]) -> list[Entry]:
    """The moves that can be read, oldest first; adds a sentence for each line that cannot."""
    entries = []
    for number, line in enumerate(store.journal_lines(folder), start=1):
        try:
            entries.append(store.parse_line(folder, number, line))
        except PipelineStop as stop:
            damaged.append(str(stop))
    return entries + _unwritten(store.read_state(folder), entries[-1:])


def _unwritten(state: State, last: list[Entry]) -> list[Entry]:
    """The last move of an older registry, if it was killed before it stood in the history."""
    if state.last is None or (last and last[0]["n"] >= state.last["n"]):
        return []
    return [state.last]


def _copies(folder: str, state: State) -> dict[str, str]:
    """What follows from the labels: the text of each file, in the order of writing."""
    if state.last is None and not state.labels:
        return {}
    copies = {}
    if state.last and "labels" in state.last:
        after = {"labels": state.labels, "champions": state.champions}
        last = {name: value for name, value in state.last.items() if name not in after}
        copies[store.LABELS] = json.dumps({**after, "last": last}, indent=1)
    name = os.path.basename(os.path.normpath(folder))
    return {**copies, CONFIG_FILE: models_config(name, state.labels)}


def _stale(folder: str, state: State) -> dict[str, str]:
    """The copies that are not what they should be."""
    stale = {}
    for name, text in _copies(folder, state).items():
        path = os.path.join(folder, name)
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            if file.read() == text.encode():
                continue
        stale[name] = text
    return stale


def _write_copies(folder: str, state: State) -> list[str]:
    stale = _stale(folder, state)
    for name, text in stale.items():
        files.write_atomically(os.path.join(folder, name), text)
    return list(stale)


def _version_problems(folder: str, number: int) -> list[str]:
    try:
        return store.damage(folder, number)
    except (PipelineStop, OSError) as error:
        return [str(error)]


def _label_problems(folder: str, state: State) -> Iterator[str]:
    there = store.list_versions(folder)
    for label, version in state.labels.items():
        if version not in there:
            yield f"'{label}' is version {version}, which is not there"


def _history_problems(folder: str, state: State) -> Iterator[str]:
    """Each move must begin where the one before it ended, and the last end at the labels."""
    damaged: list[str] = []
    held: dict[str, int | None] = {}
    for entry in _entries(folder, damaged):
        for label, step in entry["moves"].items():
            if step["from"] != held.get(label):
                text = f"{JOURNAL}: move {entry['n']} took '{label}' from {step['from']}"
                yield f"{text}, and it was {held.get(label)}"
            held[label] = step["to"]
    yield from damaged
    led_to = {label: version for label, version in held.items() if version is not None}
    if led_to != state.labels:
        yield f"{JOURNAL} leads to {led_to}, and the labels are {state.labels}"
