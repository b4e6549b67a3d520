"""Optional parts: a folder of `components/` or `pipeline/` that has a `part.py` is one.

Nothing names the parts that there are. Delete a part's folder and its tests
(`rm -r components/serving tests/components/serving`), and it is gone; the rest lints, tests and
runs. A part imports the core, never another part; the core never imports a part (`make lint`
checks both). What the two have to do with each other goes through `part.py`.

A `part.py` is imported by every command, so it imports light modules only (typer,
`pipeline.command_line`), and everything else inside its functions. It may define:

- `register(app)`: adds its commands to the typer app.
- `settings()`: its settings, by their key at the top of a configuration: {key: (type, default)} as
  `pydantic.create_model` takes them. Read them with `config.part(key)`.
- `training()`: a subclass of `pipeline.config.Training` with further settings of `training`. It
  may extend `problems()`.
- `problems(config)`: yields the contradictions between its settings and others, each with its
  whole path, e.g. `("tuning", "search", "model.hidden"), "is empty"`.
- `TRAINERS`: values that it adds to `training.strategy`, each with the module whose `run_fn`
  trains.
- `take_part(folder, run, show) -> int`: called in place of `run()` where its strategy is chosen, in
  each process of a cluster. It calls `run()` where this process runs the pipeline; the exit code
  comes back. All processes of the cluster see `folder`; `show(line)` speaks to the person.
- `RUNNERS`: values that it adds to `beam.runner`, each with a function from the settings, a
  `pipeline.config.BeamOptions`, to Beam's flags.
- `tuner(config, arguments)`: a component before the Trainer, whose output `best_hyperparameters`
  the Trainer gets, or None. `arguments(module)` is what a component is told that trains with that
  module's code.
- `joined_data(config, folder) -> Path`: the folder to train from, by that of `data.path`.
- `row_reader(config)`: what reads the rows of `predict` and of the server's V1 in place of
  `components.inference.instances` (its `count` and `read`), or None.

Beside it may lie a `part.mk` with its Make targets. Settings of a part in a shared configuration
have a key with a question mark, `continued_evaluation?: {...}`: they are passed over where the part
is not there.
"""

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent


@functools.cache
def present() -> dict[str, ModuleType]:
    """The `part.py` of each part that is there, by folder, e.g. "components.serving"."""
    files = [*PROJECT.glob("components/*/part.py"), *PROJECT.glob("pipeline/*/part.py")]
    names = sorted(".".join(file.parent.relative_to(PROJECT).parts) for file in files)
    return {name: importlib.import_module(f"{name}.part") for name in names}


def offers(name: str) -> list[Any]:
    """What the parts define under a name of the list above."""
    return [getattr(part, name) for part in present().values() if hasattr(part, name)]


def trainers() -> dict[str, str]:
    """The modules that train, by the strategies that parts add."""
    return {name: module for added in offers("TRAINERS") for name, module in added.items()}


def row_reader(config: Any) -> Any:
    """`components.inference.instances`, or what a part has in its place."""
    from components.inference import instances

    readers = (reader(config) for reader in offers("row_reader"))
    return next((reader for reader in readers if reader), instances)


def runners() -> dict[str, Callable[[Any], list[str]]]:
    """What makes Beam's flags, by the runners that parts add."""
    return {name: flags for added in offers("RUNNERS") for name, flags in added.items()}


def of_strategy(strategy: str) -> ModuleType | None:
    """The part that adds a strategy; None for the core's own."""
    parts = present().values()
    return next((part for part in parts if strategy in getattr(part, "TRAINERS", {})), None)
