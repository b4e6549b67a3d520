"""Rows in JSON, as the V1 protocol and `predict` have them, which is TF Serving's row format.

{"instances": [{column: value, ...}, ...]} is answered with {"predictions": [[0.12], ...]}, as TF
Serving answers for the signature `raw`; rows with a `key` with [{"key": 7, "predictions": [0.12]},
...], as it does for `keyed`. Where the label has classes, their names are in the answer too:
`classes` in the order of the scores, and `labels`, or `label` beside a key, the likeliest. With
`"signature_name": "uncertain"` each row also has its `uncertainty`, the standard deviation of the
predictions of the network's members: {"predictions": [0.12], "uncertainty": [0.03]}.

A key (book pattern 20, Keyed Predictions) is a text or a 64-bit integer, by which callers match
answers to rows. If a model has a column `key`, it is the column, and its rows have no keys.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from components.inference.columns import Columns, InvalidRows, as_utf8, from_rows
from components.inference.model import likeliest
from components.registry.signature import Signature

KEY = "key"
Keys = list[str | int]
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
    if not isinstance(body, dict) or "instances" not in body:
        raise InvalidRows([f"the body must be {_FORM}"])
    rows = body["instances"]
    if not isinstance(rows, list) or not rows:
        what = "is empty" if rows == [] else f"is of type {type(rows).__name__}"
        raise InvalidRows([f"'instances' must be a list of rows, and {what}"])
    with_key = [isinstance(row, dict) and KEY in row for row in rows]
    if not has_keys(signature) or not any(with_key):
        return from_rows(signature, rows), None
    if not all(with_key):
        raise InvalidRows(
            [f"row {with_key.index(True)} has a '{KEY}', row {with_key.index(False)} has none"]
        )
    keys = [row[KEY] for row in rows]
    if problems := key_problems(keys):
        raise InvalidRows(problems)
    bare = [{name: value for name, value in row.items() if name != KEY} for row in rows]
    return from_rows(signature, bare), keys


def has_keys(signature: Signature) -> bool:
    """Whether rows of this model can have keys."""
    return KEY not in signature["inputs"]


def key_problems(keys: Sequence[Any]) -> list[str]:
    """What is wrong with keys; a sentence for each row."""
    return [
        f"row {number}: '{KEY}' must be a text or a 64-bit integer, got {type(key).__name__}"
        for number, key in enumerate(keys)
        if not _is_key(key)
    ]


def _is_key(key: Any) -> bool:
    if isinstance(key, int) and not isinstance(key, bool):
        return -(1 << 63) <= key < 1 << 63
    return isinstance(key, str) and as_utf8(key) is not None


def reply(
    signature: Signature,
    keys: Keys | None,
    parts: dict[str, np.ndarray],
) -> dict[str, Any]:
    """The answer, for `as_json`.

    Args:
        signature: The version's.
        keys: The rows' keys, [rows], or None.
        parts: `predictions`, float32 [rows, outputs], and what else was wanted of each row.
    """
    predictions = parts["predictions"]
    named: dict[str, Any] = {KEY: keys, **{n: _named(n, v, signature) for n, v in parts.items()}}
    labels = likeliest(signature, predictions)
    more = {} if labels is None else {"classes": signature["classes"]}
    if keys is None and len(parts) == 1:
        return {"predictions": predictions, **more, **({"labels": labels} if more else {})}
    named = {name: values for name, values in named.items() if values is not None}
    named |= {"label": labels} if more else {}
    rows = zip(*named.values(), strict=True)
    return {"predictions": [dict(zip(named, row, strict=True)) for row in rows], **more}


def _named(part: str, values: np.ndarray, signature: Signature) -> Any:
    """Attributions by column, quantiles by level, one value as a number; else as they are."""
    if part in ("baseline", "phase"):
        return values[:, 0]
    if part == "attributions":
        names = sorted(signature["inputs"])
    elif part == "quantiles":
        count = values.shape[1]
        names = [f"{(n + 1) / (count + 1):.2f}" for n in range(count)]
    else:
        return values
    return [dict(zip(names, row, strict=True)) for row in values]


def as_json(reply: dict[str, Any]) -> bytes:
    """An answer as JSON, its numbers as short as float32 allows: 0.12, not 0.11999999731779099."""
    return orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)
