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
from kserve import InferInput, InferOutput, InferRequest, InferResponse
from starlette.exceptions import HTTPException

from components.inference.columns import MISSING, Columns, InvalidRows, from_values
from components.inference.instances import KEY, Keys, has_keys, key_problems
from components.inference.model import likeliest
from components.registry.signature import Signature

PREDICTIONS, LABEL = "predictions", "label"

_INTEGERS = [f"{sign}{bits}" for sign in ("INT", "UINT") for bits in (8, 16, 32, 64)]
_FLOATS = ["FP16", "FP32", "FP64"]
DATATYPES = {"BOOL", "BYTES", *_INTEGERS, *_FLOATS}
_ACCEPTED = {
    "FLOAT": [*_FLOATS, *_INTEGERS],
    "INT": [*_INTEGERS, *_FLOATS],
    "BYTES": ["BYTES"],
}
_KEY_TYPES: dict[str, type] = {"BYTES": str, "INT64": int}
_DATATYPE = {"FLOAT": "FP32", "INT": "INT64", "BYTES": "BYTES"}


def describe_inputs(signature: Signature) -> list[dict[str, Any]]:
    """The inputs of a model's metadata."""
    return [
        {"name": name, "datatype": _DATATYPE[column["type"]], "shape": [-1]}
        for name, column in signature["inputs"].items()
    ]


def describe_outputs(signature: Signature, width: int) -> list[dict[str, Any]]:
    """The outputs of a model's metadata."""
    label = {"name": LABEL, "datatype": "BYTES", "shape": [-1]}
    scores = {"name": PREDICTIONS, "datatype": "FP32", "shape": [-1, width]}
    return [scores, label] if signature.get("classes") else [scores]


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
        name, shape = tensor.name, tensor.shape
        if name in values:
            problems.append(f"there are two tensors '{name}'")
        values[name] = []
        if not _is_shape(shape):
            problems.append(
                f"tensor '{name}': its shape must be [rows] or [rows, 1] with at least one row, "
                f"got {str(shape)[:40]}"
            )
        elif shape[0] != rows:
            problems.append(f"tensor '{name}' has {shape[0]} rows, the first one {rows}")
        else:
            values[name] = _checked(signature, tensor, problems)
    keys = values.pop(KEY, None) if has_keys(signature) else None
    if problems:
        raise InvalidRows(problems)
    return from_values(signature, values, rows), keys


def _is_shape(shape: list[int]) -> bool:
    return len(shape) in (1, 2) and shape[0] > 0 and shape[1:] in ([], [1])


def _checked(signature: Signature, tensor: InferInput, problems: list[str]) -> list[Any]:
    """A tensor's values, [rows]; of one that the model does not read only the name counts."""
    is_key = tensor.name == KEY and has_keys(signature)
    kind = signature["inputs"].get(tensor.name, {}).get("type")
    if not is_key and kind is None:
        return []
    accepted = [*_KEY_TYPES] if is_key else _ACCEPTED[kind]
    if tensor.datatype not in accepted:
        problems.append(
            f"tensor '{tensor.name}' must be {' or '.join(accepted)}, got '{tensor.datatype[:40]}'"
        )
        return []
    values = _values(tensor)
    if len(values) != tensor.shape[0] or any(isinstance(value, list) for value in values):
        problems.append(
            f"tensor '{tensor.name}': its data does not fit the shape {tensor.shape}; "
            f"one value for each of the {tensor.shape[0]} rows is needed"
        )
    if is_key:
        return _keys(tensor.datatype, values, problems)
    if kind == "INT":
        return [None if value == MISSING["INT"] else value for value in values]
    return [None if isinstance(value, float) and math.isnan(value) else value for value in values]


def _values(tensor: InferInput) -> list[Any]:
    """The values as a flat list, from JSON, from gRPC's contents, or from raw bytes."""
    values = tensor.data or []
    if not values:
        try:
            values = tensor.as_numpy().ravel().tolist()
        except (ValueError, TypeError, struct.error):
            return []
    if tensor.shape[1:] and all(isinstance(value, list) and len(value) == 1 for value in values):
        return [value[0] for value in values]
    return list(values)


def _keys(datatype: str, values: list[Any], problems: list[str]) -> Keys:
    """Keys as texts or integers; gRPC and raw tensors have texts as bytes."""
    try:
        keys = [value.decode() if isinstance(value, bytes) else value for value in values]
    except UnicodeDecodeError:
        problems.append(f"tensor '{KEY}': texts must be UTF-8")
        return []
    problems += key_problems(keys)
    if not problems and any(type(key) is not _KEY_TYPES[datatype] for key in keys):
        problems.append(f"tensor '{KEY}' is {datatype}, and its data is not")
    return keys


def outputs(signature: Signature, keys: Keys | None, predictions: np.ndarray) -> list[InferOutput]:
    """The tensors of an answer.

    Args:
        signature: The version's. The names of its classes are beside the scores, as a JSON list in
            the parameter `classes`, since a parameter is one value; `label` is the likeliest.
        keys: The rows' keys, [rows].
        predictions: float32 [rows, outputs].
    """
    rows = len(predictions)
    made = [InferOutput(PREDICTIONS, [*predictions.shape], "FP32", predictions.ravel().tolist())]
    labels = likeliest(signature, predictions)
    if labels is not None:
        made[0].parameters = {"classes": json.dumps(signature["classes"], ensure_ascii=False)}
        made.append(InferOutput(LABEL, [rows], "BYTES", [str(label) for label in labels]))
    if keys is not None:
        datatype = "BYTES" if isinstance(keys[0], str) else "INT64"
        made.append(InferOutput(KEY, [rows], datatype, keys))
    return made


def reply(
    request: InferRequest, name: str, version: int, outputs: list[InferOutput]
) -> InferResponse:
    """The answer of a model's version, with the outputs that the request wants.

    Raises:
        HTTPException: 400 if an output is wanted that there isn't.
    """
    names = [output.name for output in outputs]
    for wanted in request.request_outputs or []:
        if wanted.name not in names:
            raise HTTPException(
                400, f"there is no output '{wanted.name[:40]}', only {', '.join(names)}"
            )
    return InferResponse(
        response_id=request.id or str(uuid.uuid4()),
        model_name=name,
        model_version=str(version),
        infer_outputs=outputs,
        use_binary_outputs=request.use_binary_outputs,
        requested_outputs=request.request_outputs,
    )
