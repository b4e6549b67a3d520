"""Whether everything in a model's registry is as it was filed."""

import os

from components.errors import PipelineStop
from components.registry import labels, store
from components.registry.tf_serving import CONFIG_FILE, models_config


def verify(folder: str) -> dict[str, list[str]]:
    """Reads every byte of every version again.

    Returns:
        By what is looked at ("version 3", "labels", ...) what is wrong with it; empty if nothing.
    """
    found = {
        f"version {number}": _version(folder, number) for number in store.list_versions(folder)
    }
    found["labels"] = _labels(folder)
    found[CONFIG_FILE] = _models_config(folder)
    return found


def _version(folder: str, number: int) -> list[str]:
    try:
        return store.damage(folder, number)
    except KeyError as error:
        return [f"{store.MANIFEST} has no {error}"]
    except (PipelineStop, OSError) as error:
        return [str(error)]


def _labels(folder: str) -> list[str]:
    """Labels must point to versions that are there, and be what the history says."""
    try:
        held, history = store.read_labels(folder), labels.read_history(folder)
    except (PipelineStop, ValueError) as error:
        return [str(error)]
    there = store.list_versions(folder)
    problems = [
        f"'{label}' is version {version}, which is not there"
        for label, version in held.items()
        if version not in there
    ]
    return problems + _history(history, held)


def _history(history: list[labels.Entry], held: store.Labels) -> list[str]:
    """Each move must begin where the one before it ended, and the last end at the labels."""
    told: dict[str, int] = {}
    problems = []
    for entry in history:
        for label, move in entry["moves"].items():
            before = told.get(label)
            if move["from"] != before:
                text = f"{labels.HISTORY}: move {entry['n']} took '{label}' from {move['from']}"
                problems.append(f"{text}, and it was {before}")
            told[label] = move["to"]
    led_to = {label: version for label, version in told.items() if version is not None}
    if led_to != held:
        problems.append(f"{labels.HISTORY} leads to {led_to}, and the labels are {held}")
    return problems


def _models_config(folder: str) -> list[str]:
    """Out of date only if a process was killed in the middle of a move."""
    try:
        held = store.read_labels(folder)
        with open(os.path.join(folder, CONFIG_FILE)) as file:
            written = file.read()
    except PipelineStop:
        return []  # told already
    except FileNotFoundError:
        written = ""
    if written == models_config(os.path.basename(os.path.normpath(folder)), held) or not held:
        return []
    return ["is not what the labels say; the next move of a label writes it anew"]
