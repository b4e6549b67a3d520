"""The configuration as text with a reason beside each choice, and both files at once."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from components.errors import PipelineStop
from pipeline.adopt.judging import min_slice_size
from pipeline.adopt.proposal import Proposal
from pipeline.adopt.reading import Files
from pipeline.adopt.request import Request
from pipeline.console import shown

MADE_BY = "# Made by `python -m pipeline adopt`"
_WIDTH = 1 << 30
_SHORT_COMMENT = 90


def configuration(
    name: str, schema_file: str, files: Files, request: Request, proposal: Proposal
) -> str:
    """The text of `configs/<name>.yaml`."""
    parts = (
        _head(name, request, proposal),
        _data(files, request, proposal),
        [f"schema_file: {_yaml(schema_file)}", ""],
        _features(proposal),
        ["gate: {stop_on: error, tolerate: []}", ""],
        _sizes(proposal),
        _evaluation(name, proposal),
        ["beam: {runner: FnApiRunner, mode: in_memory, workers: 1}"],
    )
    return "\n".join(line for part in parts for line in part) + "\n"


def _head(name: str, request: Request, proposal: Proposal) -> Iterator[str]:
    rows = f"{proposal.rows:,} rows" if proposal.is_all else f"the first {proposal.rows:,} rows"
    yield f"# make run-local CONFIG={name}"
    yield f"{MADE_BY} from {rows} of {_plain(request.data)}: review it."
    yield "# Every field is documented in pipeline/config.py and components/features/table.py."
    yield f"name: {_yaml(name)}"
    yield "workspace: workspace"
    yield ""


def _data(files: Files, request: Request, proposal: Proposal) -> Iterator[str]:
    yield "data:"
    yield f"  path: {_yaml(files.path)}"
    yield f"  pattern: {_yaml(files.pattern)}"
    csv = {"separator": request.separator, "encoding": request.encoding}
    if csv != {"separator": ",", "encoding": "utf-8"}:
        yield f"  csv: {_yaml(csv)}"
    if request.quarantine:
        bad_rows = {"action": "quarantine", "at_most": _tolerated(proposal)}
        yield f"  bad_rows: {_yaml(bad_rows)}  # rows without a label are set aside"
    yield "  sample: 1.0"
    yield from (f"  # {line}" for line in _why_split(proposal))
    yield f"  split: {_yaml(proposal.split)}"
    yield ""


def _tolerated(proposal: Proposal) -> float:
    """Half as many bad rows again as there are now, at least one in a hundred."""
    return min(1.0, max(0.01, round(1.5 * proposal.unlabelled, 2)))


def _why_split(proposal: Proposal) -> Iterator[str]:
    by = proposal.split["by"]
    if by == "row":
        yield "by row: no column identifies a row. Do several rows belong together (a customer's)?"
        yield "  Then {by: key, key: [COLUMN], ...}, so that they are never on both sides."
    elif by == "key" and proposal.key:
        yield "by key: a row stays in its split when its other values are corrected."
    elif by == "key":
        yield "by key: rows with the same value are never on both sides."
    times = [d.column.name for d in proposal.decisions if d.excluded == "time"]
    if times and by != "time":
        first = _plain(times[0])
        yield f"Is the model to predict the future? Then {{by: time, time: {first}, ...}}: the last"
        yield "  rows test it. That is harder, and more honest, than rows drawn from all times."


def _features(proposal: Proposal) -> Iterator[str]:
    target = proposal.target
    yield "features:"
    yield f"  problem: {target.problem}  # {_comment(target.why)}"
    yield from (f"  # {_comment(note)}" for note in target.notes)
    label: dict[str, Any] = {"column": proposal.label.name}
    if target.classes is not None:
        label["classes"] = list(target.classes)
    yield f"  label: {_yaml(label)}"
    if proposal.key is not None:
        yield f"  key: {_yaml(proposal.key)}  # different in each row"
    yield "  columns:"
    why = {d.column.name: d.why for d in proposal.decisions}
    for name, column, settings in proposal.features():
        extra = {} if name == column else {"column": column}
        what, _, reasons = why[column].partition("; ")
        reason = reasons if settings["kind"] == "bucketized" else what
        yield f"    {_yaml(name)}: {_yaml(extra | settings)}  # {_comment(reason)}"
    yield from _excluded(proposal)
    yield from _slices(proposal)
    yield ""


def _excluded(proposal: Proposal) -> Iterator[str]:
    excluded = [d for d in proposal.decisions if d.excluded and d.column.name != proposal.key]
    if excluded:
        yield "  exclude:"
    for d in excluded:
        yield f"    {_yaml(d.column.name)}: {d.excluded}  # {_comment(d.why)}"


def _slices(proposal: Proposal) -> Iterator[str]:
    if not proposal.slices:
        yield "  slices: []  # no column has a few values with enough test rows each"
        return
    yield "  slices:  # columns with a few values, those that tell most of the label first"
    for columns in proposal.slices:
        yield f"    - {_yaml(columns)}"


def _sizes(proposal: Proposal) -> Iterator[str]:
    s = proposal.sizes
    model = {"hidden": list(s.hidden), "dropout": s.dropout, "wide": True, "l2": s.l2}
    stopping = {"metric": "loss", "patience": s.patience} if s.patience else None
    yield f"# {s.why}."
    yield f"model: {_yaml(model)}"
    yield ""
    yield "training:"
    yield "  seed: 42"
    yield f"  epochs: {s.epochs}"
    yield f"  global_batch_size: {s.batch}"
    yield f"  learning_rate: {_yaml({'initial': s.learning_rate, 'schedule': 'cosine'})}"
    yield f"  evaluate_every_steps: {s.evaluate_every_steps}"
    yield f"  early_stopping: {_yaml(stopping)}"
    yield ""


def _evaluation(name: str, proposal: Proposal) -> Iterator[str]:
    yield "evaluation:"
    yield "  heuristic: mined  # the best rule on one column; better: one that your business uses"
    yield f"  min_slice_size: {min_slice_size(proposal.test_rows)}"
    yield "  # At least as good as that rule. over_champion allows for what chance does with"
    yield f"  # {proposal.test_rows:,.0f} test rows. Add what the model has to reach: at_least."
    yield "  thresholds:"
    for threshold in proposal.thresholds:
        yield f"    - {_yaml(threshold)}"
    yield ""
    registry = _yaml({"model": name, "promote": "manual"})
    yield f"registry: {registry}  # make promote CONFIG={name} VERSION=candidate"
    yield ""


def _yaml(value: Any) -> str:
    """A value, or a name, on one line; quoted where YAML would read something else."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_yaml(k)}: {_yaml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, str) and not value.isprintable():
        return yaml.safe_dump(value, default_style='"', width=_WIDTH).strip()
    text = yaml.safe_dump(
        [value], default_flow_style=True, width=_WIDTH, allow_unicode=True, sort_keys=False
    )
    return text.strip()[1:-1]


def _comment(text: str) -> str:
    text = _plain(text)
    return text if len(text) <= _SHORT_COMMENT else f"{text[: _SHORT_COMMENT - 3]}..."


def _plain(text: str) -> str:
    """On one line, and without what ends a comment in YAML."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def what_is_there(config: Path, schema: Path) -> list[str]:
    """What is there already, in a sentence; a schema that a killed `adopt` left does not count."""
    is_left_behind = (
        schema.is_file() and not config.exists() and schema.read_text().startswith(MADE_BY)
    )
    there = [path for path in (config, schema) if os.path.lexists(path)]
    if not there or is_left_behind:
        return []
    names = " and ".join(shown(path) for path in there)
    verb = "is" if len(there) == 1 else "are"
    return [f"{names} {verb} there already, and nothing is overwritten: choose another --name"]


def write(config: Path, config_text: str, schema: Path, schema_text: str) -> None:
    """Writes both files, or none: the configuration last, which is what makes them count.

    A kill between the two leaves a schema that nothing names; the same command replaces it.

    Raises:
      PipelineStop: the folder cannot be written.
    """
    replace({schema: f"{MADE_BY}; see {config.name}.\n{schema_text}", config: config_text})


def replace(texts: Mapping[Path, str]) -> None:
    """Writes all files under temporary names, and then renames them in the order they are given.

    Raises:
      PipelineStop: a folder cannot be written.
    """
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in texts}
    try:
        for path, text in texts.items():
            with open(temporary[path], "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        for path in texts:
            os.replace(temporary[path], path)
    except OSError as error:
        raise PipelineStop(f"{error.filename} cannot be written: {error.strerror}.") from error
    finally:
        for path in temporary.values():
            with contextlib.suppress(OSError):
                path.unlink()
