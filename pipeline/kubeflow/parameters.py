"""What can be set for a single run, without compiling anew: the package's parameters.

Each is a setting of the configuration, which gives its default. A step that uses one receives it
beside its own properties, and works it into them before the executor sees them.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from pydantic import TypeAdapter, ValidationError

from components.errors import PipelineStop
from components.ingest.settings import Spans
from pipeline import loading
from pipeline.config import (
    Config,
    Data,
    LearningRate,
    Registry,
    Training,
    WarmStart,
    config_model,
)

Properties = dict[str, Any]
Type = Literal["STRING", "NUMBER_INTEGER", "NUMBER_DOUBLE"]

FINGERPRINT = "data_fingerprint"
"""Known to no setting: it only makes the ingest step's cache key depend on the data."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a package.

    Attributes:
      setting: the path of the setting that it replaces.
      type: KFP's parameterType.
      steps: the components that use it.
      description: for a person.
      default: the value that leaves the configuration as it is.
      read: checks a value and returns the setting's; raises ValueError.
    """

    setting: tuple[str, ...]
    type: Type
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
    field = model.model_fields[name]
    checker = TypeAdapter(field.rebuild_annotation())
    return checker.validate_python


_THAT_TRAIN = [
    "Tuner",
    "Trainer",
]
_TRAINING = (*_THAT_TRAIN, "RegistryPush")

PARAMETERS: dict[str, Parameter] = {
    "data_path": Parameter(
        ("data", "path"),
        "STRING",
        ("ExampleGen", "RegistryPush", "Decide"),
        "The data's folder: in the image, on a volume, or in an object store.",
        lambda config: config.data.path,
        str,
    ),
    "span": Parameter(
        ("data", "spans"),
        "STRING",
        ("ExampleGen", "LabelledLog", "RegistryPush"),
        "The spans to read: newest, a number, or as in data.spans, e.g. "
        '{"first": 1, "last": 3} or {"count": 4, "last": 17}.',
        _spans_as_text,
        _spans,
    ),
    "test_spans": Parameter(
        ("data", "test_spans"),
        "STRING",
        ("ExampleGen", "RegistryPush"),
        "Of which of these spans the test rows are used: all or newest.",
        lambda config: config.data.test_spans,
        _field(Data, "test_spans"),
    ),
    "global_batch_size": Parameter(
        ("training", "global_batch_size"),
        "NUMBER_INTEGER",
        _TRAINING,
        "Rows of a step, of all replicas together.",
        lambda config: config.training.global_batch_size,
        _field(Training, "global_batch_size"),
    ),
    "steps": Parameter(
        ("training", "steps"),
        "NUMBER_INTEGER",
        _TRAINING,
        "Training steps; 0 for the configured number of epochs.",
        lambda config: config.training.steps or 0,
        lambda value: _field(Training, "steps")(value or None),
    ),
    "learning_rate": Parameter(
        ("training", "learning_rate", "initial"),
        "NUMBER_DOUBLE",
        _TRAINING,
        "The learning rate at the start.",
        lambda config: config.training.learning_rate.initial,
        _field(LearningRate, "initial"),
    ),
    "warm_start": Parameter(
        ("training", "warm_start"),
        "STRING",
        ("Trainer", "RegistryPush"),
        "The version whose weights the training starts from, a number or a label; empty: none.",
        _warm_start_as_text,
        _version,
    ),
    "promote": Parameter(
        ("registry", "promote"),
        "STRING",
        ("RegistryPush",),
        "automatic: a blessed version becomes champion at once; or manual.",
        lambda config: config.registry.promote,
        _field(Registry, "promote"),
    ),
}


OF_A_TRAINING = (*PARAMETERS, FINGERPRINT)
"""What a run of the training pipeline may be given."""
OF_AN_EVALUATION = ("data_path", "span")
"""What a run of continued evaluation may be given."""


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
        elif problem := name != FINGERPRINT and _problem(name, value):
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


def work_in(component: str, properties: Properties) -> None:
    """Moves the run's parameters from `properties` into the properties of an executor.

    Args:
      component: its name in the graph.
      properties: the executor's, and beside them the parameters of this run.

    Raises:
      PipelineStop: a value is wrong.
    """
    properties.pop(FINGERPRINT, None)
    given = {name: properties.pop(name) for name in PARAMETERS if name in properties}
    check(given)
    values = {name: PARAMETERS[name].read(value) for name, value in given.items()}
    if component == "ExampleGen":
        _into_example_gen(properties, values)
    elif component in _THAT_TRAIN:
        _into_training(properties, values)
    elif component == "RegistryPush":
        _into_push(properties, values)
    else:  # it reads them itself
        properties |= given


def _into_example_gen(properties: Properties, values: Properties) -> None:
    path = values["data_path"]
    if "://" not in path:
        path = str(loading.PROJECT / loading.in_package("data_path", path))
    properties["input_base"] = path
    message = json.loads(properties["custom_config"])
    settings = json.loads(message["custom_config"]["value"])
    settings["spans"] = values["span"]
    settings["test_spans"] = values.get("test_spans", settings["test_spans"])
    message["custom_config"]["value"] = json.dumps(settings, sort_keys=True)
    properties["custom_config"] = json.dumps(message)


def _into_training(properties: Properties, values: Properties) -> None:
    config = json.loads(properties["custom_config"])
    _replace(config["settings"], values)
    if "warm_start" in values:
        config["warm_start"]["version"] = values["warm_start"]
    properties["custom_config"] = json.dumps(config, sort_keys=True)


def _into_push(properties: Properties, values: Properties) -> None:
    config = json.loads(properties["config"])
    _replace(config, values)
    text = config_model().model_validate(config).model_dump_json()
    properties["config"] = text
    properties["config_hash"] = hashlib.sha256(text.encode()).hexdigest()
    properties["promote"] = values["promote"]


def _replace(settings: Properties, values: Properties) -> None:
    for name, given in values.items():
        *path, last = PARAMETERS[name].setting
        value = _warm_start(settings, given) if name == "warm_start" else given
        inner = settings
        for key in path:
            inner = inner[key]
        inner[last] = value
    training = settings["training"]
    if values["steps"] is not None:
        training["epochs"] = None
    elif training["epochs"] is None:
        raise PipelineStop("steps: 0 stands for the configured number of epochs; there is none.")


def _warm_start(settings: Properties, version: int | str | None) -> Properties | None:
    """The setting with this version; its layers stay."""
    if version is None:
        return None
    before = settings["training"]["warm_start"] or {}
    return WarmStart.model_validate({**before, "version": version}).model_dump(mode="json")
