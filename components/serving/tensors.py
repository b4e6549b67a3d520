"""The V2 protocol's tensors (Open Inference Protocol), by REST and gRPC.

A tensor for each column, [rows] or [rows, 1], and `key` if rows have one. Missing is what the
SavedModel's signatures take for missing (NaN, the lowest int64, an empty text), or null in JSON.
"""

import math
import struct
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
from kserve import InferInput, InferOutput, InferRequest, InferResponse
from kserve.errors import InvalidInput

from components.inference.columns import MISSING, Columns, InvalidRows, from_values
from components.registry.signature import Signature
from components.serving import keys
from components.serving.keys import KEY, Keys

PREDICTIONS = "predictions"

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
_IS_MISSING: dict[str, Callable[[Any], bool]] = {
    "FLOAT": lambda value: isinstance(value, float) and math.isnan(value),
    "INT": lambda value: value == MISSING["INT"],
    "BYTES": lambda value: value == b"",
}


def describe_inputs(signature: Signature) -> list[dict[str, Any]]:
    """The inputs of a model's metadata."""
    return [
        {"name": name, "datatype": _DATATYPE[column["type"]], "shape": [-1]}
        for name, column in signature["inputs"].items()
    ]


def describe_outputs(width: int) -> list[dict[str, Any]]:
    """The outputs of a model's metadata."""
    return [{"name": PREDICTIONS, "datatype": "FP32", "shape": [-1, width]}]


def count(request: InferRequest) -> int:
    """How many rows a request seems to have, before it is checked."""
    lengths = [len(tensor.data) for tensor in request.inputs if isinstance(tensor.data, list)]
    shapes = [tensor.shape[0] for tensor in request.inputs if _is_shape(tensor.shape)]
    return max([*lengths, *shapes], default=0)


def read(signature: Signature, request: InferRequest) -> tuple[Columns, Keys | None]:
    """Checks a request's tensors.

    Returns:
        Every input column, [rows], and the rows' keys, [rows], if they have any.

    Raises:
        InvalidRows: If they cannot be predicted.
    """
    problems: list[str] = []
    tensors = _by_name(request, problems)
    rows = next((tensor.shape[0] for tensor in tensors.values()), 0)
    given: dict[str, list[Any]] = {}
    for name, tensor in tensors.items():
        if tensor.shape[0] != rows:
            problems.append(f"tensor '{name}' has {tensor.shape[0]} rows, the first one {rows}")
        given[name] = _given(signature, tensor, problems)
    found = None
    if KEY in given and keys.are_offered(signature):
        found = _keys(tensors[KEY].datatype, given.pop(KEY), problems)
    if problems:
        raise InvalidRows(problems)
    return from_values(signature, given, rows), found


def _by_name(request: InferRequest, problems: list[str]) -> dict[str, InferInput]:
    """The tensors that are sound enough to look into."""
    tensors: dict[str, InferInput] = {}
    if not request.inputs:
        problems.append("there are no tensors: 'inputs' is empty")
    for number, tensor in enumerate(request.inputs):
        if not isinstance(tensor.name, str):
            problems.append(f"tensor {number}: its name must be a text")
        elif tensor.name in tensors:
            problems.append(f"there are two tensors '{tensor.name}'")
        elif not _is_shape(tensor.shape):
            problems.append(
                f"tensor '{tensor.name}': its shape must be [rows] or [rows, 1] with at least one "
                f"row, got {str(tensor.shape)[:40]}"
            )
        else:
            tensors[tensor.name] = tensor
    return tensors


def _is_shape(shape: Any) -> bool:
    if not isinstance(shape, list) or len(shape) not in (1, 2):
        return False
    return all(type(size) is int and size > 0 for size in shape) and shape[1:] in ([], [1])


def _given(signature: Signature, tensor: InferInput, problems: list[str]) -> list[Any]:
    """A tensor's values [rows]; of one that the model does not read only the name counts."""
    column = signature["inputs"].get(tensor.name)
    is_key = tensor.name == KEY and keys.are_offered(signature)
    if column is None and not is_key:
        if tensor.datatype not in DATATYPES:
            problems.append(f"tensor '{tensor.name}': unknown datatype '{tensor.datatype[:40]}'")
        return []
    accepted = list(_KEY_TYPES) if is_key else _ACCEPTED[column["type"]]
    if tensor.datatype not in accepted:
        problems.append(
            f"tensor '{tensor.name}' must be {' or '.join(accepted)}, got '{tensor.datatype[:40]}'"
        )
        return []
    values = _values(tensor, problems)
    if is_key:
        return values
    is_missing = _IS_MISSING[column["type"]]
    return [None if is_missing(value) else value for value in values]


def _values(tensor: InferInput, problems: list[str]) -> list[Any]:
    """The values as a flat list, from JSON, from gRPC's contents, or from raw bytes."""
    rows = tensor.shape[0]
    values = tensor.data if isinstance(tensor.data, list) else []
    if not values:
        try:
            values = tensor.as_numpy().ravel().tolist()
        except (ValueError, TypeError, struct.error):
            values = []
    if tensor.shape[1:] and all(isinstance(value, list) and len(value) == 1 for value in values):
        values = [value[0] for value in values]
    if len(values) != rows or any(isinstance(value, list) for value in values):
        problems.append(
            f"tensor '{tensor.name}': its data does not fit the shape {tensor.shape}; "
            f"one value for each of the {rows} rows is needed"
        )
    return list(values)


def _keys(datatype: str, values: list[Any], problems: list[str]) -> Keys:
    """Keys as texts or integers; gRPC and raw tensors have texts as bytes."""
    try:
        found = [value.decode() if isinstance(value, bytes) else value for value in values]
    except UnicodeDecodeError:
        problems.append(f"tensor '{KEY}': texts must be UTF-8")
        return []
    problems += keys.problems(found)
    if not problems and len({type(key) for key in found} | {_KEY_TYPES.get(datatype)}) > 1:
        problems.append(f"tensor '{KEY}' is {datatype}, and its data is not")
    return found


def reply(
    request: InferRequest, name: str, version: int, found: Keys | None, predictions: np.ndarray
) -> InferResponse:
    """The answer.

    Args:
        request: Says which outputs are wanted, and whether as raw bytes.
        name: The model's.
        version: That predicted.
        found: The rows' keys, [rows].
        predictions: float32 [rows, outputs].

    Raises:
        InvalidInput: If an output is wanted that there isn't.
    """
    shape = list(predictions.shape)
    outputs = [InferOutput(PREDICTIONS, shape, "FP32", predictions.ravel().tolist())]
    if found is not None:
        datatype = next(tensor.datatype for tensor in request.inputs if tensor.name == KEY)
        outputs.append(InferOutput(KEY, [len(found)], datatype, list(found)))
    names = [output.name for output in outputs]
    for output in request.request_outputs or []:
        if output.name not in names:
            raise InvalidInput(
                f"there is no output '{str(output.name)[:40]}', only {', '.join(names)}"
            )
    return InferResponse(
        response_id=request.id or str(uuid.uuid4()),
        model_name=name,
        model_version=str(version),
        infer_outputs=outputs,
        use_binary_outputs=request.use_binary_outputs,
        requested_outputs=request.request_outputs,
    )
