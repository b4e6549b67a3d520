"""The query of `data.sql` over the rows that came lately (book pattern: Windowed Inference).

Training and batch prediction put all rows of a span through it; the server its recent rows, of
which the new ones are predicted. It is the same query, run by the same reader.
"""

import json
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.errors import PipelineStop
from components.inference import instances
from components.inference.columns import Columns, InvalidRows
from components.inference.instances import Keys
from components.ingest import rows
from components.ingest.query import used_rows
from components.ingest.settings import CsvFormat, Kind, Query
from components.registry.signature import Signature

Row = dict[str, Any]


class RecentRows:
    """Reads V1's rows as `components.inference.instances` does, each put through the query.

    A row is known by its key: one that comes again, as when its label is known, takes the place of
    the earlier one.
    """

    def __init__(self, query: Query, types: Mapping[str, Kind], key: Sequence[str], most: int):
        """Takes the query, the schema's types, and the columns of the key, which come out of it.

        Args:
            query: Of `data.sql`.
            types: Of the schema's columns.
            key: By which a row is known.
            most: So many rows are kept.
        """
        self._query, self._types, self._key, self._most = query, dict(types), [*key], most
        self._rows: dict[str, Row] = {}
        self._one_at_a_time = threading.Lock()
        self.count = instances.count

    def read(self, signature: Signature, body: Any) -> tuple[Columns, Keys | None]:
        """Checks a body as parsed from JSON; see `instances.read`.

        Raises:
            InvalidRows: If it cannot be predicted.
        """
        if self.count(body):
            body = {**body, "instances": self._completed(signature, body["instances"])}
        return instances.read(signature, body)

    def _completed(self, signature: Signature, given: list[Any]) -> list[Row]:
        names = [self._name(number, row) for number, row in enumerate(given)]
        with self._one_at_a_time:
            for name, row in zip(names, given, strict=True):
                self._rows.pop(name, None)
                self._rows[name] = {k: v for k, v in row.items() if k != instances.KEY}
            found = self._queried(signature)
            for name in [*self._rows][: -self._most]:
                del self._rows[name]
        if absent := [name for name in names if name not in found]:
            raise InvalidRows([f"the query of data.sql gives no row for {absent[0]:.80}"])
        keys = [{k: row[k] for k in (instances.KEY,) if k in row} for row in given]
        return [{**found[name], **key} for name, key in zip(names, keys, strict=True)]

    def _name(self, number: int, row: Any) -> str:
        if not isinstance(row, dict) or any(row.get(name) is None for name in self._key):
            raise InvalidRows([f"row {number} needs {', '.join(self._key)}, by which it is known"])
        return json.dumps([str(row[name]) for name in self._key])

    def _queried(self, signature: Signature) -> dict[str, Row]:
        """What the query gives, by key."""
        kinds: dict[str, rows.Wanted] = {n: c["type"] for n, c in signature["inputs"].items()}
        wanted = rows.Columns(
            {**dict.fromkeys(self._key, "BYTES"), **kinds}, exact=False, optional=[*kinds]
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "rows.jsonl")
            path.write_text("".join(json.dumps(row) + "\n" for row in self._rows.values()))
            try:
                with used_rows(
                    [str(path)], CsvFormat(), wanted, self._query, types=self._types
                ) as reading:
                    made = [row for batch in reading for row in batch.to_pylist()]
            except PipelineStop as stop:
                raise InvalidRows([str(stop)]) from stop
        texts = ({k: v.decode() if isinstance(v, bytes) else v for k, v in r.items()} for r in made)
        return {
            json.dumps([str(row[name]) for name in self._key]): {
                name: row[name] for name in kinds if name in row
            }
            for row in texts
        }
