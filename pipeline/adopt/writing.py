"""What `adopt` says and writes: the columns, the settings with reasons, the project's name."""

import contextlib
import json
import os
import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any

import pyarrow.compute as pc
import yaml
from google.protobuf import text_format
from rich.console import Console
from rich.markup import escape

from components import files
from components.errors import PipelineStop
from pipeline import loading
from pipeline.adopt import proposal, table
from pipeline.adopt.part import Request
from pipeline.adopt.proposal import Decision, Proposal, Reasons, Settings
from pipeline.telling import make, shown, tell_next
from pipeline.telling import table as columns_of

MADE_BY = "# Made by `python -m pipeline adopt`"
_FINDINGS = {
    "leakage": ("Leaks", "known before the label? then --keep"),
    "id": ("Ids", "--keep; or --key if it identifies the row"),
    "time": ("Times", "--time splits by it"),
    "constant": ("Constants", "nothing to learn from it"),
    "duplicate": ("Duplicates", "--keep this one, --exclude the other"),
    "sparse": ("Nearly empty", "--keep"),
    "text": ("Free text", "--keep hashes each whole text; with more rows its words are learned"),
    "categories": ("Too many categories", "--keep hashes them; better group them before"),
    "choice": ("Left out", "leave --exclude out"),
}
"""By reason of `features.exclude`: a heading, and how a person overrules it."""
_BLOCKS = {
    ("data",),
    ("features",),
    ("features", "columns"),
    ("features", "exclude"),
    ("training",),
    ("evaluation",),
}
"""The settings that stand on several lines."""


def adopt(request: Request, console: Console, configs: Path = loading.CONFIGS) -> int:
    """Reads a table, proposes, tells and writes; the exit code comes back.

    Args:
      request: what a person asks for.
      console: for that person.
      configs: the folder that both files go to.

    Raises:
      PipelineStop: what is wrong with the data or the request.
    """
    absent = {
        "no data is named (DATA=...)": request.data,
        "no label is named (LABEL=...)": request.label,
    }
    table.stop("adopt", (sentence for sentence, value in absent.items() if not value))
    form, name = table.csv_format(request), table.chosen_name(request)
    config, schema_file = configs / f"{name}.yaml", configs / f"{name}.schema.pbtxt"
    mistakes = [*table.name_mistakes(name)]
    mistakes += [] if request.dry_run or mistakes else taken(config, schema_file)
    found = table.find(request.data)
    try:
        read = table.read(found, form, request)
    except PipelineStop as error:  # the reader names settings, of which these are options here
        words = re.sub(
            r"data\.csv\.(separator|encoding|decimal|thousands|nulls)", r"--\1", str(error)
        )
        raise PipelineStop(words) from error
    rows, where = read.table, found.names[0]
    table.stop(where, [*mistakes, *table.mistakes(rows, request)])
    labelled = rows.filter(pc.is_valid(rows[request.label]))
    p = proposal.propose(name, labelled, request)
    table.stop(where, proposal.split_mistakes(labelled, p))
    seen = f"{'' if read.is_all else 'the first '}{p.rows:,} rows"
    is_outside = Path(found.path).is_absolute()
    advice = (
        "elsewhere it must be there too: copy the data into the project, or set data.path there"
    )
    outside = [f"data.path is {found.path}; {advice}"] if is_outside else []
    what = f"{request.label}: {p.target.problem}, {p.target.why}."
    tell(
        console,
        p,
        f"{seen}, {rows.num_columns:,} columns. {what}",
        [*read.nulls, *p.remarks, *outside],
    )
    if request.dry_run:
        console.print(f"\n--dry-run: nothing written. It would be {shown(config)}.", markup=False)
        return 0
    data: Settings = {"path": found.path, "pattern": found.pattern}
    if csv := form.model_dump(exclude_defaults=True):
        data["csv"] = csv
    if request.quarantine:  # half as many again as there are now, at least one row in a hundred
        unusable = 1 - len(labelled) / (len(rows) + read.bad)
        limit = min(1.0, max(0.01, round(1.5 * unusable, 2)))
        data["bad_rows"] = {"action": "quarantine", "at_most": limit}
    settings, reasons = proposal.settings(p, shown(schema_file), data)
    head = (
        f"# make run-local CONFIG={name}\n{MADE_BY} from {seen} of {request.data!r}: review it.\n"
    )
    head += "# Every field is documented in pipeline/config.py and components/features/table.py.\n"
    text = head + "\n".join(as_yaml(settings, reasons)) + "\n"
    from pipeline import schema_inference  # TFDV and TensorFlow, which take seconds

    schema = schema_inference.fitting_schema(rows)
    for feature in schema.feature:  # other days than those of today are no anomaly
        is_date = any(d.column.dates and d.column.name == feature.name for d in p.decisions)
        if is_date or (p.target.separator and feature.name == p.label.name):
            feature.ClearField("domain")
    fitting = text_format.MessageToString(schema)
    write(
        {
            schema_file: f"{MADE_BY}; see {config.name}.\n{fitting}",
            config: text,
        }
    )
    console.print(
        f"\nWrote {shown(config)} and {shown(schema_file)}.", markup=False, highlight=False
    )
    for sentence in rename(name, request, p, configs.parent):
        console.print(f"  {sentence}", markup=False, highlight=False)
    tell_next(
        console,
        {
            f"make config CONFIG={name}": "look at the settings, and the reasons in the file",
            make("run-local", name): "from the data to version 1",
        },
    )
    return 0


def tell(console: Console, proposal: Proposal, summary: str, remarks: list[str]) -> None:
    """Prints the columns, what was left out, and what else was seen."""
    console.print(f"\n{summary}\n", markup=False, highlight=False)
    rows = columns_of("column", "type", "missing", "distinct")
    for heading in ("examples", "becomes", "why"):
        rows.add_column(heading, no_wrap=heading != "why")
    for decision in proposal.decisions[:60]:
        style = {"leakage": "red", None: None}.get(decision.excluded, "yellow")
        rows.add_row(*map(escape, _cells(decision)), style=style)
    if more := len(proposal.decisions[60:]):
        rows.add_row(f"... and {more:,} more")
    wide = Console(
        file=console.file,
        width=max(console.width, 160),
        highlight=False,
        force_terminal=console.is_terminal,
    )
    wide.print(rows)
    for reason, (title, overrule) in _FINDINGS.items():
        found = [d for d in proposal.decisions if d.excluded == reason]
        if found:
            console.print(f"\n[bold]{title}[/], left out. To overrule: {overrule}.")
            lines = [f"  {shortened(d.column.name, 40)}: {d.why}" for d in found[:20]]
            lines += [f"  ... and {len(found) - 20:,} more"] if len(found) > 20 else []
            console.print("\n".join(lines), markup=False)
    if remarks:
        console.print("\n[bold]Also seen[/]")
        console.print("\n".join(f"  {remark}" for remark in remarks), markup=False)


def _cells(decision: Decision) -> list[str]:
    column = decision.column
    examples = [f"{v:.5g}" if isinstance(v, float) else v for v, _ in column.frequent[:2]]
    return [
        shortened(column.name),
        {"INT": "integer", "FLOAT": "number", "BYTES": "text"}[column.kind],
        f"{column.missing:.0%}" if column.missing else "",
        f"{column.distinct:,}",
        ", ".join(shortened(example, 12) for example in examples),
        " + ".join(f["kind"] for f, _ in decision.features) or f"- ({decision.excluded})",
        decision.why,
    ]


def as_yaml(settings: Settings, reasons: Reasons, at: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields the lines of settings; a short reason stands beside its setting, a long one above."""
    indent = "  " * len(at)
    for name, value in settings.items():
        is_list = isinstance(value, list) and isinstance((value or [0])[0], dict | list)
        is_block = (*at, name) in _BLOCKS
        reason = " ".join(
            "".join(c if c.isprintable() else " " for c in reasons.get((*at, name), "")).split()
        )
        if not at and isinstance(value, dict):
            yield ""
        if len(reason) > 90:
            yield from textwrap.wrap(
                f"{reason}.", 98, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
            )
        on_line = "" if is_block or is_list else f" {_flow(value)}"
        yield f"{indent}{_flow(name)}:{on_line}" + (
            f"  # {reason}" if 0 < len(reason) <= 90 else ""
        )
        if is_block:
            yield from as_yaml(value, reasons, (*at, name))
        elif is_list:
            yield from (f"{indent}  - {_flow(item)}" for item in value)


def _flow(value: Any) -> str:
    """A value, or a name, on one line; quoted where YAML would read something else."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and not value.isprintable():
        return yaml.safe_dump(value, default_style='"', width=1 << 30).strip()
    return yaml.safe_dump(
        [value], default_flow_style=True, width=1 << 30, allow_unicode=True
    ).strip()[1:-1]


def taken(config: Path, schema: Path) -> Iterator[str]:
    """Yields what is there already; a schema that a killed `adopt` left does not count."""
    there = [path for path in (config, schema) if os.path.lexists(path)]
    if there == [schema] and schema.is_file() and schema.read_text("utf-8").startswith(MADE_BY):
        return
    if there:
        names = f"{' and '.join(map(shown, there))} {'is' if len(there) == 1 else 'are'}"
        yield f"{names} there already, and nothing is overwritten: choose another --name"


def write(texts: Mapping[Path, str]) -> None:
    """Writes all files under temporary names, then renames them in order.

    A kill between two leaves the first: of a configuration the schema, which nothing names then.

    Raises:
      PipelineStop: a folder cannot be written.
    """
    try:
        with contextlib.ExitStack() as stack:
            for path, text in reversed([*texts.items()]):
                temporary = stack.enter_context(files.new_file(str(path)))
                Path(temporary).write_text(text, encoding="utf-8")
    except OSError as error:
        raise PipelineStop(f"{error.filename} cannot be written: {error.strerror}.") from error


_VARIANTS = ("development.yaml", "automated.yaml", "kubeflow.yaml")
_NAMES = re.compile(r"^(extends: |name: |registry: {model: |experiment: )taxi\b", re.M)
"""Where the template's configuration, `taxi`, is named."""
_SAMPLE = re.compile(r"^data: {sample: ([\d.]+)}$", re.M)
_ON_ALL_ROWS = """\
# make run-local
# While you change things: versions in a folder of their own, no promotion. All rows, because they
# are few; once there are many, a sample makes it quick: data: {sample: 0.1}
extends: $name
name: $name-development
registry: {model: $name-development}
"""
_LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")


def rename(name: str, request: Request, proposal: Proposal, project: Path) -> list[str]:
    """Puts the fork's name where the template's example stands: in the variants, and the README.

    It happens once: a project that has a name keeps it; what is adopted later stands beside it.

    Returns:
      A sentence for each thing that changed; none if the project has been renamed before.

    Raises:
      PipelineStop: a file cannot be written; then all are as they were.
    """
    variants = [
        path for path in (project / "configs" / file for file in _VARIANTS) if path.is_file()
    ]
    texts = {path: _renamed(path.read_text("utf-8"), name, proposal.rows) for path in variants}
    texts = {path: text for path, text in texts.items() if text != path.read_text("utf-8")}
    if not texts:
        return []
    told = [f"{path.relative_to(project)} is about '{name}' now" for path in texts]
    readme, moved = project / "README.md", project / "docs" / "template.md"
    old = readme.read_text("utf-8") if readme.is_file() else ""
    if old.startswith("# A workflow pipeline you can fork\n") and not moved.exists():
        seen_from_docs = _LINK.sub(lambda link: f"]({os.path.relpath(link[1], 'docs')})", old)
        new = _readme(name, request, proposal, texts.get(project / "configs" / _VARIANTS[0], ""))
        texts = {moved: seen_from_docs, readme: new, **texts}
        told.append("README.md is your project's; the template's is docs/template.md")
    write(texts)
    return told


def _renamed(text: str, name: str, rows: int) -> str:
    text = _NAMES.sub(rf"\g<1>{name}", text)
    sample = _SAMPLE.search(text)
    is_few = sample is not None and rows * float(sample[1]) < 2_000
    return Template(_ON_ALL_ROWS).substitute(name=name) if is_few else text


def _readme(name: str, request: Request, proposal: Proposal, development: str) -> str:
    sample = _SAMPLE.search(development)
    row = shlex.quote(json.dumps(proposal.row, ensure_ascii=False))
    return Template(Path(__file__).with_name("fork_readme.md").read_text("utf-8")).substitute(
        title=name.replace("-", " ").capitalize(),
        name=name,
        label=request.label,
        problem=proposal.target.problem,
        data=f"`{request.data}`",
        rows=f"all {proposal.rows:,}",
        sample=f"a sample, {float(sample[1]):.0%}" if sample else "all of them",
        row=row if len(proposal.row) <= 40 else "- < row.json  # {column: value, ...}",
        files=shlex.quote(request.data),
        schema=f"{name}.schema.pbtxt",
    )


def shortened(value: object, length: int = 24) -> str:
    """A value on one line, cut where it is long."""
    text = " ".join(str(value)[: 4 * length].split())
    return text if len(text) <= length else text[: length - 3] + "..."
