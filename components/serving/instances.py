"""The V1 protocol's bodies, which are TF Serving's row format.

{"instances": [{column: value, ...}, ...]} is answered with {"predictions": [[0.12], ...]}, as TF
Serving answers for the signature `raw`; rows with a `key` with [{"key": 7, "predictions": [0.12]},
...], as it does for `keyed`. The version is in a header, since callers of TF Serving know no other
member of the body.
"""

from typing import Any

import numpy as np
import orjson

from components.inference.columns import Columns, InvalidRows, from_rows
from components.registry.signature import Signature
from components.serving import keys
from components.serving.keys import KEY, Keys

_FORM = '{"instances": [{column: value, ...}, ...]}'


def count(body: Any) -> int:
    """How many rows a body seems to have, before it is checked."""
    instances = body.get("instances") if isinstance(body, dict) else None
    return len(instances) if isinstance(instances, list) else 0


def read(signature: Signature, body: Any) -> tuple[Columns, Keys | None]:
    """Checks a body as parsed from JSON.

    Returns:
        Every input column, [rows], and the rows' keys, [rows], if they have any.

    Raises:
        InvalidRows: If it cannot be predicted.
    """
    rows = _rows(body)
    with_key = [isinstance(row, dict) and KEY in row for row in rows]
    if not keys.are_offered(signature) or not any(with_key):
        return from_rows(signature, rows), None
    if not all(with_key):
        raise InvalidRows(
            [f"row {with_key.index(True)} has a '{KEY}', row {with_key.index(False)} has none"]
        )
    found, bare = keys.split(rows)
    if problems := keys.problems(found):
        raise InvalidRows(problems)
    return from_rows(signature, bare), found


def _rows(body: Any) -> list[Any]:
    if not isinstance(body, dict) or "instances" not in body:
        raise InvalidRows([f"the body must be {_FORM}"])
    rows = body["instances"]
    if not isinstance(rows, list) or not rows:
        what = "is empty" if rows == [] else f"is of type {type(rows).__name__}"
        raise InvalidRows([f"'instances' must be a list of rows, and {what}"])
    return rows


def reply(found: Keys | None, predictions: np.ndarray) -> dict[str, Any]:
    """The answer, for `as_json`; predictions are float32 [rows, outputs]."""
    if found is None:
        return {"predictions": predictions}
    pairs = zip(found, predictions, strict=True)
    return {"predictions": [{KEY: key, "predictions": values} for key, values in pairs]}


def as_json(reply: dict[str, Any]) -> bytes:
    """An answer as JSON, its numbers as short as float32 allows: 0.12, not 0.11999999731779099."""
    return orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)
