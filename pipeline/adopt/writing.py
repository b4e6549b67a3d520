"""What `adopt` says and writes: the columns, the settings with reasons, the project's name."""

import contextlib
import json
import os
import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console
from rich.markup import escape

from components import files
from components.errors import PipelineStop
from pipeline import loading
from pipeline.adopt import table
from pipeline.adopt.part import Request
from pipeline.telling import make, print_whole, shown, tell_next
from pipeline.telling import table as columns_of

if TYPE_CHECKING:  # it brings scikit-learn, which takes seconds
    from pipeline.adopt.proposal import Decision, Proposal

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


def adopt(request: Request, console: Console, configs: Path = loading.CONFIGS) -> int:
    """Reads a table, proposes, tells and writes; the exit code comes back.

    Args:
      request: what a person asks for.
      console: for that person.
      configs: the folder that both files go to.

    Raises:
      PipelineStop: what is wrong with the data or the request.
    """
    data, name = table.read(request), table.chosen_name(request)
    config, schema_file = configs / f"{name}.yaml", configs / f"{name}.schema.pbtxt"
    mistakes = [*table.name_mistakes(name)]
    mistakes += [] if request.dry_run or mistakes else taken(config, schema_file)
    table.stop(data.files[0], [*mistakes, *table.mistakes(data.table, request)])
    from pipeline.adopt import proposal

    labelled = data.table.filter(pc.is_valid(data.table[request.label]))
    p = proposal.propose(labelled, request)
    table.stop(data.files[0], proposal.split_mistakes(labelled, p))
    seen = f"{'' if data.is_all else 'the first '}{p.rows:,} rows"
    what = f"{request.label}: {p.target.problem}, {p.target.why}."
    summary = f"{seen}, {data.table.num_columns:,} columns. {what}"
    tell(console, p, summary, [*data.remarks, *p.remarks])
    if request.dry_run:
        console.print(f"\n--dry-run: nothing written. It would be {shown(config)}.", markup=False)
        return 0
    if request.quarantine:  # half as many again as there are now, at least one row in a hundred
        unusable = 1 - len(labelled) / (len(data.table) + data.bad)
        limit = min(1.0, max(0.01, round(1.5 * unusable, 2)))
        data.settings["bad_rows"] = {"action": "quarantine", "at_most": limit}
    head = {"name": name, "seen": seen, "data": repr(request.data), "source": data.settings}
    text = configuration(p, {**head, "schema_file": shown(schema_file), "made_by": MADE_BY})
    schema = f"{MADE_BY}; see {config.name}.\n{_schema(data.table, p)}"
    write({schema_file: schema, config: text})
    console.print(f"\nWrote {shown(config)} and {shown(schema_file)}.", markup=False)
    for sentence in rename(name, request, p, configs.parent):
        console.print(f"  {sentence}", markup=False)
    look = "look at the settings, and the reasons in the file"
    run = {make("run-local", name): "from the data to version 1"}
    tell_next(console, {f"make config CONFIG={name}": look, **run})
    return 0


def tell(console: Console, p: "Proposal", summary: str, remarks: list[str]) -> None:
    """Prints the columns, what was left out, and what else was seen."""
    console.print(f"\n{summary}\n", markup=False, highlight=False)
    rows = columns_of("column", "type", "missing", "distinct")
    for heading in ("examples", "becomes", "why"):
        rows.add_column(heading, no_wrap=True)
    for decision in p.decisions[:60]:
        style = {"leakage": "red", None: None}.get(decision.excluded, "yellow")
        rows.add_row(*map(escape, _cells(decision)), style=style)
    if more := len(p.decisions[60:]):
        rows.add_row(f"... and {more:,} more")
    print_whole(console, rows)
    for reason, (title, overrule) in _FINDINGS.items():
        found = [d for d in p.decisions if d.excluded == reason]
        if found:
            console.print(f"\n[bold]{title}[/], left out. To overrule: {overrule}.")
            lines = [f"  {shortened(d.column.name, 40)}: {d.why}" for d in found[:20]]
            lines += [f"  ... and {len(found) - 20:,} more"] if len(found) > 20 else []
            console.print("\n".join(lines), markup=False)
    if remarks:
        console.print("\n[bold]Also seen[/]")
        console.print("\n".join(f"  {remark}" for remark in remarks), markup=False)


def _cells(decision: "Decision") -> list[str]:
    column = decision.column
    examples = [f"{v:.5g}" if isinstance(v, float) else v for v, _ in column.frequent[:2]]
    return [
        shortened(column.name),
        {"INT": "integer", "FLOAT": "number", "BYTES": "text"}[column.kind],
        f"{column.missing:.0%}" if column.missing else "",
        f"{column.distinct:,}",
        ", ".join(shortened(example, 12) for example in examples),
        " + ".join(f["kind"] for _, f in decision.features) or f"- ({decision.excluded})",
        decision.why,
    ]


def configuration(p: "Proposal", head: Mapping[str, Any]) -> str:
    """The configuration's text, in which each choice has its reason.

    Args:
      p: the proposal.
      head: `name`, `made_by`, what was `seen` of which `data`, `source` (settings of `data`,
        without the split) and the path `schema_file`.
    """
    test_rows = p.rows * p.split["test"]
    least = int(min(100, max(20, test_rows // 10)))
    features, names = [], {d.column.name for d in p.decisions} | {p.label.name}
    for d in p.decisions:
        for ending, settings in d.features:
            name = d.column.name + ending
            while ending and name in names:
                name += "_"
            names.add(name)
            features.append((name, settings, d.why))
    label: dict[str, Any] = {"column": p.label.name}
    label |= {"classes": [*p.target.classes]} if p.target.classes not in ((), (0, 1)) else {}
    label |= {"separator": p.target.separator} if p.target.separator not in ("", "|") else {}
    is_binary = p.target.problem == "binary"
    limits = [(metric, -float(f"{margin:.2g}")) for metric, margin in p.limits.items()]
    return _rendered(
        "configuration.yaml.j2",
        **head,
        p=p,
        dates=[d.column.name for d in p.decisions if d.column.dates],
        label=label,
        features=features,
        excluded=[d for d in p.decisions if d.excluded and d.column.name != p.key],
        slices=_slices(p, least * p.label.rows / test_rows),
        train_rows=round(p.rows * p.split["train"]),
        few_rows=table.FEW_ROWS,
        test_rows=test_rows,
        rare_share=p.label.frequent[-1][1] / p.label.present if is_binary else 1.0,
        least=least,
        limits=[{"metric": m, "over_heuristic": at, "over_champion": at} for m, at in limits],
    )


def _slices(p: "Proposal", least: float) -> list[list[str]]:
    """Up to three columns of which two values have so many rows, and the first two crossed.

    Those that tell most of the label come first.
    """
    few = [d for d in p.decisions if d.features and d.column.distinct <= 32]
    few = [d for d in few if d.column.kind != "FLOAT" and not d.column.dates]
    found = [d for d in few if sum(count >= least for _, count in d.column.frequent) > 1]
    first = [d.column for d in sorted(found, key=lambda d: -d.explains)[:3]]
    slices = [[column.name] for column in first]
    if len(first) > 1 and first[0].distinct * first[1].distinct * least < p.label.rows:
        slices.append([first[0].name, first[1].name])
    return slices


def _rendered(template: str, **values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {"line": _line, "flow": _flow}
    return environment.get_template(template).render(values)


def _line(indent: int, name: str, value: Any, why: str = "") -> str:
    """A setting as YAML, or its name; a short reason stands beside it, a long one above."""
    space = " " * indent
    why = " ".join("".join(c if c.isprintable() else " " for c in why).split())
    above = textwrap.wrap(f"{why}.", 98 - indent) if len(why) > 90 else []
    text = f"{_flow(name)}:" + ("" if value is None else f" {_flow(value)}")
    text += f"  # {why}" if why and not above else ""
    return "\n".join(space + line for line in [*(f"# {line}" for line in above), text])


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


def _schema(rows: pa.Table, p: "Proposal") -> str:
    """The schema that the rows fit, in protobuf's text format."""
    from google.protobuf import text_format

    from pipeline import schema_inference  # TFDV and TensorFlow, which take seconds

    schema = schema_inference.fitting_schema(rows)
    unlisted = {d.column.name for d in p.decisions if d.column.dates}
    unlisted |= {p.label.name} if p.target.separator else set()
    for feature in schema.feature:  # other days than those of today are no anomaly
        if feature.name in unlisted:
            feature.ClearField("domain")
    return str(text_format.MessageToString(schema))


def taken(config: Path, schema: Path) -> Iterator[str]:
    """Yields what is there already; a schema that a killed `adopt` left does not count."""
    is_left = schema.is_file() and schema.read_text("utf-8").startswith(MADE_BY)
    path = config if os.path.lexists(config) or is_left else schema
    if os.path.lexists(path):
        yield f"{shown(path)} is there already, and nothing is overwritten: choose another --name"


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


_NAMES = re.compile(r"^(extends: |name: |registry: {model: |experiment: )taxi\b", re.M)
"""Where the template's configuration, `taxi`, is named."""
_EPOCHS = re.compile(r"^training: {epochs: \d+}\n", re.M)
"""A table's configuration has a number of steps, which is more passes over a sample."""
_SAMPLE = re.compile(r"^data: {sample: ([\d.]+)}$", re.M)
_ON_ALL_ROWS = """\
# make run-local
# While you change things: versions in a folder of their own, no promotion. All rows, because they
# are few; once there are many, a sample makes it quick: data: {sample: 0.1}
extends: NAME
name: NAME-development
registry: {model: NAME-development}
"""
_LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")


def rename(name: str, request: Request, p: "Proposal", project: Path) -> list[str]:
    """Puts the fork's name where the template's example stands: in the variants, and the README.

    It happens once: a project that has a name keeps it; what is adopted later stands beside it.

    Returns:
      A sentence for each thing that changed; none if the project has been renamed before.

    Raises:
      PipelineStop: a file cannot be written; then all are as they were.
    """
    variants = [project / "configs" / f"{v}.yaml" for v in ("development", "automated", "kubeflow")]
    old = {path: path.read_text("utf-8") for path in variants if path.is_file()}
    texts = {path: _NAMES.sub(rf"\g<1>{name}", text) for path, text in old.items()}
    texts = {path: _EPOCHS.sub("", text) for path, text in texts.items() if text != old[path]}
    if not texts:
        return []
    told = [f"{path.relative_to(project)} is about '{name}' now" for path in texts]
    sample = _SAMPLE.search(texts.get(variants[0], ""))
    if sample and p.rows * float(sample[1]) < 2_000:
        texts[variants[0]], sample = _ON_ALL_ROWS.replace("NAME", name), None
    readme, moved = project / "README.md", project / "docs" / "template.md"
    text = readme.read_text("utf-8") if readme.is_file() else ""
    if text.startswith("# A workflow pipeline you can fork\n") and not moved.exists():
        of_docs = _LINK.sub(lambda link: f"]({os.path.relpath(link[1], 'docs')})", text)
        row = shlex.quote(json.dumps(p.row, ensure_ascii=False))
        new = _rendered(
            "readme.md.j2",
            name=name,
            request=request,
            p=p,
            sample=f"a sample, {float(sample[1]):.0%}" if sample else "all of them",
            row=row if len(p.row) <= 40 else "- < row.json  # {column: value, ...}",
            files=shlex.quote(request.data),
        )
        texts = {moved: of_docs, readme: new, **texts}
        told.append("README.md is your project's; the template's is docs/template.md")
    write(texts)
    return told


def shortened(value: object, length: int = 24) -> str:
    """A value on one line, cut where it is long."""
    text = " ".join(str(value)[: 4 * length].split())
    return text if len(text) <= length else text[: length - 3] + "..."
