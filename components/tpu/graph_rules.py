"""What a step's graph shows without running it: shapes, and operations that no TPU has."""

import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf

# Not public. Which operations XLA can compile is told nowhere else; a test fails when it moves.
from tensorflow.python.util.pywrap_xla_ops import get_cpu_kernel_names

from components.tpu.findings import Finding, Step

_STRINGS_ALLOWED = {"Const", "Assert"}  # XLA drops assertions, and with them their texts
_NOT_COMPILED = {"Placeholder"}  # an argument
_INSTALLED = "/site-packages/"


class Op(NamedTuple):
    """An operation of a graph, or of a function that it calls."""

    type: str
    name: str
    """With the names of the calling operations before it."""
    caller: str
    """The operation of the graph itself that it is part of."""
    shapes: list[tf.TensorShape]
    types: set[int]
    """The types among its attributes."""


def graph_findings(step: Step) -> list[Finding]:
    """Traces the step with static shapes, and says what in it breaks a rule."""
    function = tf.function(step.run, autograph=False)
    graph = function.get_concrete_function(step.batches[0]).graph
    return [*_shape_findings(graph, step.model), *_op_findings(graph, step.model)]


def _shape_findings(graph: tf.Graph, model: keras.Model) -> Iterator[Finding]:
    for op in operations(graph):
        unknown = [s for s in op.shapes if s.rank is not None and not s.is_fully_defined()]
        if unknown and op.type not in _NOT_COMPILED:
            yield Finding(
                "shapes",
                place(op, graph, model),
                f"{op.type} gives a tensor of shape {unknown[0]}, known only when it runs. Use "
                "operations whose results have the same shape for all data: a weight of 0 or "
                "tf.where with three arguments in place of a selection, fixed sizes in place of "
                "computed ones.",
            )


def _op_findings(graph: tf.Graph, model: keras.Model) -> Iterator[Finding]:
    known = set(get_cpu_kernel_names()) | _NOT_COMPILED
    for op in operations(graph):
        is_text = tf.string.as_datatype_enum in op.types and op.type not in _STRINGS_ALLOWED
        if op.type in known and not is_text:
            continue
        what = "works on strings, which no TPU does" if is_text else "cannot be compiled for a TPU"
        yield Finding(
            "operations",
            place(op, graph, model),
            f"{op.type} {what}. Text and look-ups belong into the feature table, so that Transform "
            "does them; printing and Python functions belong outside of the step.",
        )


def operations(graph: tf.Graph) -> Iterator[Op]:
    """Yields all operations of a graph, those of called functions before their caller."""
    definition = graph.as_graph_def(add_shapes=True)
    library = {f.signature.name: f.node_def for f in definition.library.function}
    for node in definition.node:
        yield from _with_called(node, "", node.name, library)


def _with_called(node: Any, prefix: str, caller: str, library: dict[str, Any]) -> Iterator[Op]:
    name = f"{prefix}{node.name}"
    shapes = [tf.TensorShape(s) for s in node.attr["_output_shapes"].list.shape]
    types = {value.type for value in node.attr.values() if value.type}
    types |= {kind for value in node.attr.values() for kind in value.list.type}
    functions = [value.func.name for value in node.attr.values() if value.func.name]
    functions += [f.name for value in node.attr.values() for f in value.list.func]
    for function in functions:
        for inner in library.get(function, ()):
            yield from _with_called(inner, f"{name}/", caller, library)
    yield Op(node.op, name, caller, shapes, types)


def place(op: Op, graph: tf.Graph, model: keras.Model) -> str:
    """The layer that an operation belongs to, or the project's line that made it."""
    if layer := layer_of(op.name, model):
        return f"layer {layer}"
    frames = graph.get_operation_by_name(op.caller).traceback or ()
    ours = [frame for frame in frames if _INSTALLED not in frame.filename]
    return f"{os.path.relpath(ours[-1].filename)}:{ours[-1].lineno}" if ours else op.name


def layer_of(name: str, model: keras.Model) -> str | None:
    """The innermost layer in an operation's name; Keras puts the layers' names there."""
    layers = set(_layer_names(model))
    for part in reversed(name.split("/")):
        for candidate in (re.sub(r"_\d+$", "", part), part):  # Keras numbers a layer's calls
            if candidate in layers:
                return candidate
    return None


def _layer_names(layer: Any) -> Iterator[str]:
    for inner in getattr(layer, "layers", ()):
        yield inner.name
        yield from _layer_names(inner)
