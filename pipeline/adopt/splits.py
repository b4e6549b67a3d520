"""Whether each split of a small table gets the rows that it needs: divided as ingest will."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.ingest.chronology import find_cuts
from components.ingest.settings import SPLITS, Split
from components.ingest.splitting import assign
from pipeline.adopt.proposal import Proposal

EXACT_ROWS = 20_000
"""With more rows, none is looked for: every split gets enough."""
FEWEST = {"train": 20, "eval": 3, "test": 5}


def mistakes(table: pa.Table, label: str, proposal: Proposal) -> Iterator[str]:
    """Yields what a split lacks, a sentence each.

    Args:
      table: all rows, in the schema's types.
      label: its column.
      proposal: how it is divided, and the problem.
    """
    if table.num_rows > EXACT_ROWS:
        return
    counts = count(table, label, Split.model_validate(proposal.split))
    for split, least in FEWEST.items():
        rows = counts[split].total()
        if rows < least:
            yield (
                f"{split} would get {rows} of the {table.num_rows} rows, and needs {least}. Bring "
                f"more rows{_or_key(proposal)}"
            )
    if proposal.target.problem == "binary":
        for split in ("train", "test"):
            for value, total in proposal.label.frequent:
                if counts[split].total() and not counts[split][value]:
                    yield (
                        f"{split} would get none of the {total} rows with the label '{value}'. "
                        f"Bring more of them, at least 20 or so"
                    )


def _or_key(proposal: Proposal) -> str:
    if proposal.split["by"] == "row":
        return ""
    return f", or divide them otherwise than by {proposal.split['by']}"


def count(table: pa.Table, label: str, split: Split) -> dict[str, Counter[object]]:
    """How many rows of each label each split gets, as ingest divides them."""
    counts: dict[str, Counter[object]] = {name: Counter() for name in SPLITS}
    for number, value in zip(assigned(table, split), table[label].to_pylist(), strict=True):
        counts[SPLITS[number]][value] += 1
    return counts


def assigned(table: pa.Table, split: Split) -> npt.NDArray[np.int64]:
    """The split of each row, as an index into SPLITS, as ingest assigns it."""
    batch = _as_ingested(table)
    cuts = find_cuts(dict(Counter(batch[split.time].to_pylist())), split) if split.time else None
    return assign(batch, split, cuts)


def _as_ingested(table: pa.Table) -> pa.RecordBatch:
    """In ingest's types and order of columns."""
    types = {pa.string(): pa.binary(), pa.float64(): pa.float32(), pa.int64(): pa.int64()}
    names = sorted(table.column_names)
    columns = [pc.cast(table[n].combine_chunks(), types[table[n].type], safe=False) for n in names]
    columns = [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns]
    return pa.RecordBatch.from_arrays(columns, names=names)
