"""What can be set for a single run, without compiling anew: the package's parameters.

Each stands for a setting of the configuration, which gives its default. A step that depends on one
receives its value, and makes its component from the configuration with that setting changed.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from components.errors import PipelineStop
from components.ingest.settings import Spans
from pipeline.config import Config, Data, LearningRate, Registry, Training, WarmStart

FINGERPRINT = "data_fingerprint"
"""Stands for no setting: it only makes the ingest step's cache key depend on the data."""
_TRAINING = ("Tuner", "Trainer", "RegistryPush")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a package.

    Attributes:
      setting: the path of the setting that it replaces.
      kind: the type of its values in a package: str, int or float.
      steps: the components that depend on it.
      description: for a person.
      default: the value that leaves the configuration as it is.
      read: checks a value and returns the setting's; raises ValueError.
    """

    setting: tuple[str, ...]
    kind: type
    steps: tuple[str, ...]
    description: str
    default: Callable[[Config], Any]
    read: Callable[[Any], Any]


def _spans_as_text(config: Config) -> str:
    spans = config.model_dump(mode="json")["data"]["spans"]
    return spans if isinstance(spans, str) else json.dumps(spans)


def _spans(text: str) -> Any:
    adapter = TypeAdapter(Spans)
    try:
        return adapter.dump_python(adapter.validate_python(yaml.safe_load(text)), mode="json")
    except (yaml.YAMLError, ValidationError):  # of which one is about `newest` alone
        raise ValueError(text) from None


def _warm_start_as_text(config: Config) -> str:
    return str(config.training.warm_start.version) if config.training.warm_start else ""


def _version(text: str) -> int | str | None:
    """A number, a label, or None for ""."""
    return _field(WarmStart, "version")(yaml.safe_load(text)) if text else None


def _field(model: Any, name: str) -> Callable[[Any], Any]:
    """Reads a value as the configuration would."""
    return TypeAdapter(model.model_fields[name].rebuild_annotation()).validate_python


PARAMETERS: dict[str, Parameter] = {
    "data_path": Parameter(
        ("data", "path"),
        str,
        ("ExampleGen", "RegistryPush", "Decide"),
        "The data's folder; in the image, on a volume, or in an object store.",
        lambda config: config.data.path,
        str,
    ),
    "span": Parameter(
        ("data", "spans"),
        str,
        ("ExampleGen", "LabelledLog", "RegistryPush"),
        "The spans to read, as in data.spans; newest, a number, or a window such as "
        '{"first": 1, "last": 3} or {"count": 4, "last": 17}.',
        _spans_as_text,
        _spans,
    ),
    "test_spans": Parameter(
        ("data", "test_spans"),
        str,
        ("ExampleGen", "RegistryPush"),
        "Of which of these spans the test rows are used; all or newest.",
        lambda config: config.data.test_spans,
        _field(Data, "test_spans"),
    ),
    "global_batch_size": Parameter(
        ("training", "global_batch_size"),
        int,
        _TRAINING,
        "Rows of a training step, of all replicas together.",
        lambda config: config.training.global_batch_size,
        _field(Training, "global_batch_size"),
    ),
    "steps": Parameter(
        ("training", "steps"),
        int,
        _TRAINING,
        "Training steps; 0 for the configured number of epochs.",
        lambda config: config.training.steps or 0,
        lambda value: _field(Training, "steps")(value or None),
    ),
    "learning_rate": Parameter(
        ("training", "learning_rate", "initial"),
        float,
        _TRAINING,
        "The learning rate at the start.",
        lambda config: config.training.learning_rate.initial,
        _field(LearningRate, "initial"),
    ),
    "warm_start": Parameter(
        ("training", "warm_start"),
        str,
        ("Trainer", "RegistryPush"),
        "The version whose weights the training starts from, a number or a label; empty for none.",
        _warm_start_as_text,
        _version,
    ),
    "promote": Parameter(
        ("registry", "promote"),
        str,
        ("RegistryPush",),
        "automatic (a blessed version becomes champion at once) or manual.",
        lambda config: config.registry.promote,
        _field(Registry, "promote"),
    ),
}

OF_A_TRAINING = (*PARAMETERS, FINGERPRINT)
"""What a run of the training pipeline may be given."""
OF_AN_EVALUATION = ("data_path", "span")
"""What a run of continued evaluation may be given."""


def read(texts: list[str]) -> dict[str, Any]:
    """`name=value` texts as values: numbers where the parameter is one, else the text as it is.

    Raises:
      PipelineStop: one of them is no such text.
    """
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise PipelineStop(f"--param {text}: expected NAME=VALUE, e.g. steps=500.")
        kind = PARAMETERS[name].kind if name in PARAMETERS else str
        try:
            values[name] = kind(value)
        except ValueError as error:
            raise PipelineStop(f"--param {text}: '{value}' is no {kind.__name__}.") from error
    return values


def check(values: Mapping[str, Any], offered: Collection[str] = OF_A_TRAINING) -> None:
    """Checks values that a person gives.

    Args:
      values: by name.
      offered: the parameters that there are.

    Raises:
      PipelineStop: lists every unknown name and wrong value.
    """
    mistakes = []
    for name, value in values.items():
        if name not in offered:
            mistakes.append(f"  {name}: no such parameter; there are {', '.join(offered)}")
        elif problem := name in PARAMETERS and _problem(name, value):
            mistakes.append(f"  {name}: {problem}")
    if mistakes:
        raise PipelineStop("The parameters of the run are wrong:\n" + "\n".join(mistakes))


def check_evaluation(values: Mapping[str, Any]) -> None:
    """Checks the values of a run of continued evaluation, which judges one span.

    Raises:
      PipelineStop: lists every unknown name and wrong value.
    """
    check(values, OF_AN_EVALUATION)
    if isinstance(PARAMETERS["span"].read(values.get("span", "newest")), dict):
        raise PipelineStop(
            f"span={values['span']}: continued evaluation judges one span: newest, or a number."
        )


def _problem(name: str, value: Any) -> str:
    try:
        PARAMETERS[name].read(value)
    except ValidationError as error:
        return f"{error.errors()[0]['msg']}, got {value!r}"
    except ValueError:
        return f"{PARAMETERS[name].description} Got {value!r}"
    return ""


def settings_of(config: Config) -> dict[str, Any]:
    """The settings that were given, without the defaults, in their order."""
    return config.model_dump(mode="json", exclude_unset=True)


def changed(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with a run's parameters in it.

    Args:
      config: what the package was compiled from.
      values: of parameters, by name; the fingerprint of the data changes nothing.

    Raises:
      PipelineStop: a value is wrong, or contradicts another setting.
    """
    given = {name: value for name, value in values.items() if name in PARAMETERS}
    check(given)
    settings = settings_of(config)
    for name, value in given.items():
        *path, last = PARAMETERS[name].setting
        inner = settings
        for key in path:
            inner = inner.setdefault(key, {})
        found = PARAMETERS[name].read(value)
        if name == "warm_start" and found is not None:  # its layers stay
            found = {**(inner.get(last) or {}), "version": found}
        inner[last] = found
    training = settings["training"]
    if training.get("steps") is not None:
        training["epochs"] = None
    elif training.get("epochs") is None:
        raise PipelineStop("steps: 0 stands for the configured number of epochs; there is none.")
    try:
        found = type(config).model_validate(settings)
    except ValidationError as error:
        raise PipelineStop(f"The parameters of the run are wrong: {error}") from error
    if problems := [f"{'.'.join(path)}: {text}" for path, text in found.problems()]:
        raise PipelineStop(f"The parameters of the run are wrong: {'; '.join(problems)}.")
    return found
