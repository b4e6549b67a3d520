"""`versions verify`: whether everything in the registry is as it was filed."""

import json
import re

from components.registry import labels, store
from components.registry.tf_serving import CONFIG_FILE
from components.registry.verify import verify
from pipeline.versions.layout import new_console
from pipeline.versions.model import Model

_VERSION = re.compile(r"version (\d+)")


def main(model: Model, as_json: bool) -> int:
    """Prints a line for each version and file; the exit code is 1 if anything is damaged."""
    found = verify(model.folder)
    damaged = any(found.values())
    if as_json:
        print(json.dumps(found, indent=1))
        return int(damaged)
    console = new_console()
    if not damaged and not store.list_versions(model.folder):
        console.print(model.none_yet())
        return 0
    width = max(map(len, found))
    for name, problems in found.items():
        console.print(f"{name:<{width}}  {'damaged' if problems else 'OK'}")
        for problem in problems:
            console.print(f"  {problem}")
        if problems:
            console.print(f"  -> {_what_to_do(model, name)}")
    return int(damaged)


def _what_to_do(model: Model, name: str) -> str:
    if numbered := _VERSION.fullmatch(name):
        folder = store.version_folder(model.shown_folder, int(numbered[1]))
        return (
            f"restore {folder} from a copy, or delete it and promote another version with "
            f"`{model.command('promote N')}`"
        )
    if name == CONFIG_FILE:
        anew = model.command("label check champion"), model.command("label check --remove")
        return f"any move of a label writes it anew: `{anew[0]}`, then `{anew[1]}`"
    return (
        f"restore the folders that labels point to, and labels.json and {labels.HISTORY} in "
        f"{model.shown_folder} from a copy; or point the labels to other versions with "
        f"`{model.command('promote N')}` and `{model.command('label NAME N')}`"
    )
