"""The V2 protocol's tensors (Open Inference Protocol), by REST and gRPC.

A tensor for each column, [rows] or [rows, 1], and `key` if rows have one. Missing is what the
SavedModel's signatures take for missing (NaN, the lowest int64, an empty text), or null in JSON.
"""

import json
import math
import struct
import uuid
from typing import Any

import numpy as np
import orjson
from kserve import InferInput, InferOutput, InferRequest, InferResponse
from kserve.errors import InvalidInput
from kserve.protocol.rest.v2_datamodels import InferenceRequest
from starlette.exceptions import HTTPException

from components.inference.columns import MISSING, Columns, InvalidRows, from_values
from components.inference.instances import KEY, Keys, has_keys, key_problems
from components.inference.model import likeliest
from components.registry.signature import Signature

PREDICTIONS, LABEL = "predictions", "label"

_DATATYPE = {"FLOAT": "FP32", "INT": "INT64", "BYTES": "BYTES"}


def describe(
    name: str, version: int, signature: Signature, parts: dict[str, int]
) -> dict[str, Any]:
    """A model's metadata.

    Args:
        name: The model's.
        version: Its version.
        signature: The version's.
        parts: All outputs that there may be, with their widths.
    """
    outputs = [{"name": n, "datatype": "FP32", "shape": [-1, width]} for n, width in parts.items()]
    if signature.get("classes"):
        outputs.append({"name": LABEL, "datatype": "BYTES", "shape": [-1]})
    inputs = [
        {"name": column, "datatype": _DATATYPE[found["type"]], "shape": [-1]}
        for column, found in signature["inputs"].items()
    ]
    served = {"name": name, "versions": [str(version)], "platform": "tensorflow_savedmodel"}
    return {**served, "inputs": inputs, "outputs": outputs}


def from_body(body: bytes, json_bytes: int, model: str) -> InferRequest:
    """A request by REST: JSON, and raw tensors behind it.

    Args:
        body: Of the HTTP request.
        json_bytes: How many of its bytes are the JSON.
        model: The model's name.

    Raises:
        HTTPException: 400 if it is not what the protocol says.
    """
    try:
        head = orjson.loads(body[:json_bytes])
        head["inputs"] = [{"data": [], **tensor} for tensor in head["inputs"]]
        checked = InferenceRequest.model_validate(head)
        request = InferRequest.from_inference_request(checked, model)
    except (ValueError, TypeError, KeyError, InvalidInput) as error:
        why = " ".join(str(error).split())[:200]
        raise HTTPException(400, f"the body is not a request of the V2 protocol: {why}") from None
    start = json_bytes
    for tensor in request.inputs:
        size = (tensor.parameters or {}).get("binary_data_size")
        if isinstance(size, int) and not tensor.data:
            tensor._raw_data = body[start : start + size]
            start += size
    return request


def count(request: InferRequest) -> int:
    """How many rows a request says that it has: those of its first tensor."""
    shape = request.inputs[0].shape if request.inputs else []
    return shape[0] if _is_shape(shape) else 0


def read(signature: Signature, request: InferRequest) -> tuple[Columns, Keys | None]:
    """Checks a request's tensors.

    Returns:
        Every input column, [rows], and the rows' keys, [rows], if they have any.

    Raises:
        InvalidRows: If they cannot be predicted.
    """
    rows = count(request)
    problems = [] if request.inputs else ["there are no tensors: 'inputs' is empty"]
    values: dict[str, list[Any]] = {}
    for tensor in request.inputs:
        if tensor.name in values:
            problems.append(f"there are two tensors '{tensor.name}'")
        values[tensor.name] = _column(tensor, rows, problems)
    keys = values.pop(KEY, None) if has_keys(signature) else None
    if keys is not None:
        keys = [v.decode(errors="surrogateescape") if isinstance(v, bytes) else v for v in keys]
        problems += key_problems(keys)
        if len({*map(type, keys)}) > 1:
            problems.append(f"tensor '{KEY}' has texts and integers; it can have one of them")
    if problems:
        raise InvalidRows(problems)
    columns = {n: [None if _is_missing(v) else v for v in each] for n, each in values.items()}
    return from_values(signature, columns, rows), keys


def _is_shape(shape: list[int]) -> bool:
    return len(shape) in (1, 2) and shape[0] > 0 and shape[1:] in ([], [1])


def _column(tensor: InferInput, rows: int, problems: list[str]) -> list[Any]:
    """A tensor's values, [rows]; whether they fit its column is seen later, as in V1."""
    values = _values(tensor) if _is_shape(tensor.shape) and tensor.shape[0] == rows else []
    if len(values) != max(rows, 1) or any(isinstance(value, list) for value in values):
        problems.append(
            f"tensor '{tensor.name}': its shape must be [rows] or [rows, 1], with as many rows as "
            f"the first tensor, and its data one value for each; got {str(tensor.shape)[:40]}"
        )
    return values


def _is_missing(value: Any) -> bool:
    if isinstance(value, float):
        return math.isnan(value)
    return bool(value == MISSING["INT"])


def _values(tensor: InferInput) -> list[Any]:
    """The values as a flat list, from JSON, from gRPC's contents, or from raw bytes."""
    values = tensor.data or []
    if not values:
        try:
            return list(tensor.as_numpy().ravel().tolist())
        except (ValueError, TypeError, struct.error, InvalidInput):
            return []
    if tensor.shape[1:] and all(isinstance(value, list) and len(value) == 1 for value in values):
        return [value[0] for value in values]
    return list(values)


def outputs(
    signature: Signature, keys: Keys | None, parts: dict[str, np.ndarray]
) -> list[InferOutput]:
    """The tensors of an answer.

    Args:
        signature: The version's. The names of its classes are beside the scores, as a JSON list in
            the parameter `classes`, since a parameter is one value; `label` is the likeliest.
        keys: The rows' keys, [rows].
        parts: `predictions`, float32 [rows, outputs], and what else was wanted of each row.
    """
    made = [
        InferOutput(title, [*values.shape], "FP32", values.ravel().tolist())
        for title, values in sorted(parts.items(), key=lambda part: part[0] != PREDICTIONS)
    ]
    labels = likeliest(signature, parts[PREDICTIONS])
    if labels is not None:
        made[0].parameters = {"classes": json.dumps(signature["classes"], ensure_ascii=False)}
        named = ["|".join(map(str, n)) if isinstance(n, list) else str(n) for n in labels]
        made.append(InferOutput(LABEL, [len(labels)], "BYTES", named))
    if keys is not None:
        datatype = "BYTES" if isinstance(keys[0], str) else "INT64"
        made.append(InferOutput(KEY, [len(keys)], datatype, keys))
    return made


def reply(
    request: InferRequest, name: str, version: int, outputs: list[InferOutput]
) -> InferResponse:
    """The answer of a model's version, with the outputs that the request wants.

    Raises:
        HTTPException: 400 if an output is wanted that there isn't.
    """
    there = [output.name for output in outputs]
    asked = [output.name for output in request.request_outputs or []]
    if unknown := [title for title in asked if title not in there]:
        reason = f"there is no output '{unknown[0][:40]}', only {', '.join(there)}"
        raise HTTPException(400, reason)
    return InferResponse(
        response_id=request.id or str(uuid.uuid4()),
        model_name=name,
        model_version=str(version),
        infer_outputs=[output for output in outputs if not asked or output.name in asked],
        use_binary_outputs=request.use_binary_outputs,
        requested_outputs=request.request_outputs,
    )
