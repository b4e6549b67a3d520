"""`python -m pipeline adopt`: reads, decides, shows and writes."""

from pathlib import Path

import pyarrow.compute as pc
from google.protobuf import text_format
from rich.console import Console
from tensorflow_metadata.proto.v0 import schema_pb2

from pipeline import loading, schema
from pipeline.adopt import checking, profiling, reading, renaming, telling, writing
from pipeline.adopt.proposal import Proposal, propose
from pipeline.adopt.request import Request
from pipeline.console import shown


def adopt(request: Request, console: Console, configs: Path = loading.CONFIGS) -> int:
    """Adopts a table; the exit code comes back.

    Args:
      request: what a person asks for.
      console: for that person.
      configs: the folder that both files go to.

    Raises:
      PipelineStop: what is wrong with the data or the request.
    """
    checking.stop("adopt", checking.absent(request))
    name = checking.chosen_name(request)
    config, schema_file = configs / f"{name}.yaml", configs / f"{name}.schema.pbtxt"
    mistakes = list(checking.name_mistakes(name))
    mistakes += [] if request.dry_run else writing.what_is_there(config, schema_file)
    files = reading.find(request.data)
    proposal, inferred = _proposed(files, request, mistakes)
    telling.tell(console, proposal)
    if request.dry_run:
        console.print(f"\n--dry-run: nothing written. It would be {shown(config)}.", markup=False)
        return 0
    text = writing.configuration(name, shown(schema_file), files, request, proposal)
    writing.write(config, text, schema_file, text_format.MessageToString(inferred))
    renamed = renaming.rename(_fork(name, request, proposal), configs.parent)
    telling.tell_written(console, name, [shown(config), shown(schema_file)], renamed)
    return 0


def _fork(name: str, request: Request, proposal: Proposal) -> renaming.Fork:
    return renaming.Fork(
        name=name,
        label=request.label,
        problem=proposal.target.problem,
        data=request.data,
        rows=proposal.rows,
        row=proposal.row,
    )


def _proposed(
    files: reading.Files, request: Request, mistakes: list[str]
) -> tuple[Proposal, schema_pb2.Schema]:
    """What is proposed for the files, and the schema that they fit; unless there are mistakes."""
    from pipeline import schema_inference  # TFDV and TensorFlow, which take seconds
    from pipeline.adopt import splits

    csv = reading.csv_format(request)
    table, is_all = reading.read(files, csv)
    checking.stop(files.shown, [*mistakes, *checking.table_mistakes(table, request)])
    inferred = schema_inference.proposed_schema([Path(f) for f in files.files], None, csv)
    typed = profiling.as_in_schema(table, schema.column_types(inferred))
    labelled = typed.filter(pc.is_valid(typed[request.label]))
    proposal = propose(labelled, request, is_all, 1 - len(labelled) / len(typed))
    checking.stop(files.shown, splits.mistakes(labelled, request.label, proposal))
    return proposal, inferred
