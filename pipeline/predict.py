"""`python -m pipeline predict`: rows from the command line, predicted in this process."""

import json
import sys
from typing import Annotated, Any

import typer

from components.errors import PipelineStop
from pipeline.command_line import ConfigName, Overrides

Uncertainty = Annotated[
    bool, typer.Option("--uncertainty", help="With how far the network's members differ.")
]
Distribution = Annotated[
    bool, typer.Option("--distribution", help="With quantiles and buckets (model.buckets).")
]
Explain = Annotated[
    bool, typer.Option("--explain", help="With what each column adds (model.explain).")
]
Version = Annotated[str, typer.Option("--version", metavar="VERSION", help="A number or a label.")]


def predict(
    rows: Annotated[
        str, typer.Argument(metavar="JSON", help="A row {column: value}, a list of rows, or '-'.")
    ],
    config: ConfigName = "development",
    set_: Overrides = None,
    version: Version = "champion",
    uncertainty: Uncertainty = False,
    distribution: Distribution = False,
    explain: Explain = False,
    two_phase: Annotated[
        bool,
        typer.Option(
            "--two-phase", help="The small model answers what it is sure of, and says so."
        ),
    ] = False,
) -> int:
    """Predict rows in this process, as the server would."""
    detail = detail_of(uncertainty, distribution, explain)
    if two_phase and detail:
        raise PipelineStop("--two-phase: the small model gives predictions alone.")
    return _predict(config, set_ or [], version, rows, _TWO_PHASE if two_phase else detail)


_TWO_PHASE = "two_phase"


def detail_of(uncertainty: bool, distribution: bool, explain: bool) -> str:
    """The detail that the options ask for, as in `components.inference.model.DETAILS`.

    Raises:
      PipelineStop: they ask for several.
    """
    asked = {"uncertain": uncertainty, "distribution": distribution, "explain": explain}
    wanted = [name for name, is_asked in asked.items() if is_asked]
    if len(wanted) > 1:
        raise PipelineStop("--uncertainty, --distribution, --explain: choose one of them.")
    return wanted[0] if wanted else ""


def _predict(config_name: str, overrides: list[str], version: str, text: str, detail: str) -> int:
    from pipeline import loading, parts
    from pipeline.telling import output_to
    from pipeline.workspace import Workspace

    rows = _read_rows(text)
    config = loading.load(config_name, overrides)
    workspace = Workspace(loading.PROJECT / config.workspace)
    with output_to():  # what TensorFlow has to say helps nobody here
        folder = str(workspace.registry / config.registry.model)
        answer = _answer(folder, version, parts.row_reader(config), rows, detail)
    print(answer)
    return 0


def _answer(folder: str, version: str, reader: Any, rows: list[Any], detail: str) -> str:
    from components.inference import instances
    from components.inference.columns import InvalidRows
    from components.inference.first_phase import FirstPhase
    from components.inference.model import LoadedVersion, choose

    chosen = choose(folder, version)
    loaded = LoadedVersion(chosen)
    try:
        columns, keys = reader.read(loaded.signature, {"instances": rows})
        if detail == _TWO_PHASE:
            parts = FirstPhase(chosen).predict(loaded, columns)
        else:
            parts = loaded.split(detail, loaded.predict_with(detail, columns))
        reply = instances.reply(loaded.signature, keys, parts)
    except InvalidRows as error:
        raise PipelineStop(f"Version {loaded.version} of '{chosen.name}': {error}.") from error
    answer = {"model": chosen.name, "version": loaded.version, **reply}
    return instances.as_json(answer).decode()


def _read_rows(text: str) -> list[Any]:
    try:
        rows = json.loads(sys.stdin.read() if text == "-" else text)
    except ValueError as error:
        raise PipelineStop(
            f'That is not JSON: {error}. A row is {{"column": value, ...}}, in single quotes on '
            "the command line; several are [{...}, {...}]."
        ) from error
    return rows if isinstance(rows, list) else [rows]
