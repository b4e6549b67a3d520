"""The conditions of tasks: the part of CEL that TFX and kfp write."""

import ast
import json
import operator
import re
from collections.abc import Callable
from typing import Any

from tests.kubeflow.imitation.package import Json

_OPERATORS = {"&&": " and ", "||": " or ", "!": " ~ ", "true": "True", "false": "False"}
_TOKEN = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|&&|\|\||!(?!=)|\btrue\b|\bfalse\b")
_ORDERED: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "double": float,
    "string": str,
    "parseJson": json.loads,
}


class ConditionError(Exception):
    """A condition that can't be evaluated; it fails the driver."""


def evaluate(condition: str, inputs: Json) -> bool:
    """Whether a task runs.

    Args:
        condition: CEL, such as `inputs.artifacts['x'].artifacts[0].metadata['blessed'] == 1`.
        inputs: Those of its executor input.

    Raises:
        ConditionError: For a key that isn't there, types that don't fit, or another part of CEL.
    """
    # Python's grammar is close enough to parse it. `~` binds as tightly as CEL's `!`.
    python = _TOKEN.sub(lambda token: _OPERATORS.get(token[0], token[0]), condition)
    try:
        result = _value(ast.parse(python.strip(), mode="eval").body, {"inputs": inputs})
    except (SyntaxError, TypeError, ValueError, IndexError) as error:
        raise ConditionError(f"evaluation error: {error} in {condition}") from error
    if not isinstance(result, bool):
        raise ConditionError(f"evaluation error: return type is not bool, got {result}")
    return result


def _value(node: ast.expr, names: Json) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return _key(names, name)
        case ast.Attribute(value=of, attr=field):
            return _key(_value(of, names), _camel_case(field))
        case ast.Subscript(value=of, slice=index):
            found, at = _value(of, names), _value(index, names)
            return _key(found, at) if isinstance(found, dict) else found[at]
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            return not _value(operand, names)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left, names) + _value(right, names)
        case ast.BoolOp(op=connective, values=parts):
            return _connected(isinstance(connective, ast.Or), parts, names)
        case ast.Compare(left=left, ops=[comparison], comparators=[right]):
            return _compared(comparison, _value(left, names), _value(right, names))
        case ast.Call(func=ast.Name(id=name), args=[argument]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](_value(argument, names))
    raise ConditionError(f"The imitation's CEL has no {ast.unparse(node)}.")


def _connected(decisive: bool, parts: list[ast.expr], names: Json) -> bool:
    """CEL's `||` and `&&`: a part that decides the result hides the errors of the others."""
    failed = None
    for part in parts:
        try:
            if _value(part, names) is decisive:
                return decisive
        except ConditionError as error:
            failed = error
    if failed:
        raise failed
    return not decisive


def _compared(comparison: ast.cmpop, left: Any, right: Any) -> bool:
    if isinstance(comparison, ast.Eq | ast.NotEq):
        # True == 1 in Python alone.
        equal = left == right and isinstance(left, bool) == isinstance(right, bool)
        return equal is isinstance(comparison, ast.Eq)
    if type(comparison) not in _ORDERED:
        raise ConditionError("The imitation's CEL has no such comparison.")
    return _ORDERED[type(comparison)](left, right)


def _key(found: Any, key: str) -> Any:
    if not isinstance(found, dict) or key not in found:
        raise ConditionError(f"evaluation error: no such key: {key}")
    return found[key]


def _camel_case(field: str) -> str:
    return re.sub(r"_(\w)", lambda letter: letter[1].upper(), field)
