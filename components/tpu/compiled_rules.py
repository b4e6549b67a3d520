"""What shows when a step is compiled with XLA, here for a CPU, and run next to the plain one."""

import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from components.tpu.draws import same_draws
from components.tpu.findings import Finding, Step
from components.tpu.graph_rules import layer_of

_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.05}
"""How far apart results may be, relative to their size: XLA rounds elsewhere."""
_NUDGE = {"float32": 1e-6, "bfloat16": 1e-2, "float16": 1e-2}
"""What rounding does to a number."""
_NUDGED = 10.0
"""Results may also be so many times as far apart as they move when the weights are nudged."""
_RETURNED = "what it returns"
_RECOMPILED = 0.3
"""A step that takes this share of the first, compiling one longer on new data is compiled again."""


class _Ran(NamedTuple):
    results: dict[str, tf.Tensor]
    """What the steps returned, and the variables' changes from start to end, float64 [n] each."""
    seconds: list[float]
    """Of each step."""


def compiled_findings(step: Step) -> list[Finding]:
    """Compiles the step, runs it, and says what breaks a rule. The variables stay as they are."""
    state = _State(step.variables)
    try:
        try:
            findings = list(_recompilation(step, state))
        except tf.errors.OpError as error:
            return [Finding("same result", *_not_compiled(step, state, error))]
        return findings or list(_difference(step, state))
    finally:
        state.restore()


class _State:
    """The variables' values at the start: each run begins with them."""

    def __init__(self, variables: list[tf.Variable]):
        self._values = [(v, v.numpy()) for v in variables if v.shape.num_elements()]

    def restore(self, nudge: float = 0.0) -> None:
        """Puts them back, the floating ones so much larger."""
        for variable, value in self._values:
            variable.assign(value * (1 + nudge) if variable.dtype.is_floating else value)

    def run(self, function: Callable[[Any], Any], batches: list[Any], nudge: float = 0.0) -> _Ran:
        """Runs the function on one batch after the other."""
        self.restore(nudge)
        returned, seconds = [], []
        for batch in batches:
            started = time.perf_counter()
            returned.append(_flat(function(batch)))
            seconds.append(time.perf_counter() - started)
        changes = {
            f"{number} {variable.name}": _flat(variable) - _flat(value)
            for number, (variable, value) in enumerate(self._values)
        }
        return _Ran(changes | {_RETURNED: _flat(returned)}, seconds)


def _function(run: Callable[[Any], Any], jit: bool) -> Any:
    return tf.function(run, autograph=False, jit_compile=jit)


def _flat(result: Any) -> tf.Tensor:
    """All numbers of a structure of tensors, float64 [n]."""
    parts = [tf.reshape(tf.cast(part, tf.float64), [-1]) for part in tf.nest.flatten(result)]
    return tf.concat(parts, axis=0)


def _difference(step: Step, state: _State) -> Iterator[Finding]:
    if different := _different(step.run, step.batches, step.model, state):
        parts = [p.name for p in _parts(step) if _different(p.run, p.inputs, step.model, state)]
        yield Finding(
            "same result",
            _places(parts) or f"the {step.name} step, {different.partition(' ')[2]}",
            "compiled, it does something else. Random numbers from tf.random are one cause (take "
            "keras.random with a SeedGenerator), state that the model does not know is another.",
        )


def _different(
    run: Callable[[Any], Any], batches: list[Any], model: keras.Model, state: _State
) -> str | None:
    """What differs most between a plain and a compiled function, if anything differs too much.

    A difference counts if rounding does not explain it. It does for a gradient that is nothing but
    rounding errors (a bias before a normalisation), of which Adam makes steps of full size.
    """
    precision = _precision(model)
    with same_draws():
        plain, compiled = (_function(run, jit) for jit in (False, True))
        a, b = (state.run(function, batches).results for function in (plain, compiled))
        nudged = state.run(plain, batches, _NUDGE[precision]).results
    excess = {}
    for name, value in a.items():
        allowed = _TOLERANCE[precision] * tf.norm(value)
        if name != _RETURNED:
            allowed += _NUDGED * tf.norm(value - nudged[name])
        excess[name] = float(tf.norm(value - b[name]) / (allowed + 1e-6))
    worst = max(excess, key=lambda name: excess[name])
    return None if excess[worst] <= 1 else worst


def _precision(model: keras.Model) -> str:
    """The shortest type that layers compute in."""
    used = {getattr(layer, "compute_dtype", "float32") for layer in model.layers}
    return next((name for name in ("bfloat16", "float16") if name in used), "float32")


def _recompilation(step: Step, state: _State) -> Iterator[Finding]:
    seconds = _seconds_if_recompiled(step.run, step.batches, state)
    if seconds is not None:
        yield Finding(
            "compiled once",
            _places(_recompiled_parts(step, state)) or f"the {step.name} step",
            f"compiled again for new data, {seconds:.2f} s each time: a shape or a constant in it "
            "depends on the data's values (CategoryEncoding is such a layer; keras.ops.one_hot and "
            "Embedding do the same without).",
        )


def _seconds_if_recompiled(
    run: Callable[[Any], Any], batches: list[Any], state: _State
) -> float | None:
    """What a step takes whose time depends on whether the data were seen before; else None."""
    compiled = _function(run, True)
    first, *fresh = state.run(compiled, batches).seconds
    repeated = [state.run(compiled, batches[:1]).seconds[0] for _ in fresh]
    seconds = statistics.median(fresh)
    return seconds if seconds - statistics.median(repeated) > _RECOMPILED * first else None


def _not_compiled(step: Step, state: _State, error: tf.errors.OpError) -> tuple[str, str]:
    text = " ".join(str(error).split())
    named = layer_of(text.partition("{{node ")[2].partition("}}")[0], step.model)
    where = f"layer {named}" if named else _places(_failing_parts(step, state))
    return where or f"the {step.name} step", f"XLA cannot compile it: {text[:200]}"


# Which part of the model: each is compiled and run on its own, on what it gets from the parts
# before it. That takes a while, so it is done once something is found.


class _Part(NamedTuple):
    name: str
    run: Callable[[Any], Any]
    inputs: list[Any]
    """What it gets, for each batch."""


def _places(names: list[str]) -> str:
    return ", ".join(f"layer {name}" for name in names)


def _parts(step: Step) -> Iterator[_Part]:
    """Yields the model's layers and operations, if it is a functional model."""
    parts = list(_called_once(step.model))
    before = keras.Model(step.model.input, [needed for _, needed, _ in parts]) if parts else None
    feeds = [{"numbers": batch.numbers, "ids": batch.ids} for batch in step.batches]
    inputs = [before(feed, training=True) for feed in feeds] if before else []
    for number, (name, _, part) in enumerate(parts):
        run = functools.partial(part, training=True)
        yield _Part(name, run, [outputs[number] for outputs in inputs])


def _called_once(model: keras.Model) -> Iterator[tuple[str, Any, keras.Model]]:
    """Yields each one's name, what it needs in the model, and itself as a model."""
    for operation in getattr(model, "operations", ()):
        if not isinstance(operation, keras.layers.InputLayer):
            # One that is called several times has no one input.
            with contextlib.suppress(AttributeError, ValueError):
                part = keras.Model(operation.input, operation.output)
                yield operation.name, operation.input, part


def _recompiled_parts(step: Step, state: _State) -> list[str]:
    return [
        part.name
        for part in _parts(step)
        if _seconds_if_recompiled(part.run, part.inputs, state) is not None
    ]


def _failing_parts(step: Step, state: _State) -> list[str]:
    found = []
    for part in _parts(step):
        try:
            state.run(_function(part.run, True), part.inputs[:1])
        except tf.errors.OpError:
            found.append(part.name)
    return found
