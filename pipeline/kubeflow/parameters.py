"""A package's configuration, and its parameters: what a run may change without compiling anew.

Each parameter stands for a setting of the configuration, which gives its default. A step that
depends on one receives its value, and makes its component from the configuration with that setting
changed, as `--set` does it.
"""

import functools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import create_model

from components.errors import PipelineStop
from components.settings import Problem
from pipeline import loading
from pipeline.config import Config, config_model
from pipeline.kubeflow.settings import encoded, rewritten


@dataclass(frozen=True)
class Parameter:
    """A parameter of a package."""

    setting: str
    """The path of the setting that it replaces; "" for none."""
    steps: tuple[str, ...]
    """The components that depend on it."""
    description: str
    empty: str | int = ""
    """Stands for a setting that is null."""
    is_yaml: bool = False
    """Whether a text is read as the configuration's YAML; else it is taken as it is."""


_TRAINING = ("Tuner", "Trainer", "RegistryPush", "RunPage")
_INGEST = ("ExampleGen", "RegistryPush", "RunPage")
FINGERPRINT = "data_fingerprint"
OF_A_TRAINING = {
    "data_path": Parameter(
        "data.path",
        (*_INGEST, "Decide"),
        "The data's folder; in the image, on a volume, or in an object store.",
    ),
    "span": Parameter(
        "data.spans",
        (*_INGEST, "LabelledLog"),
        "The spans to read, as in data.spans; newest, a number, or a window such as "
        '{"first": 1, "last": 3} or {"count": 4, "last": 17}.',
        is_yaml=True,
    ),
    "test_spans": Parameter(
        "data.test_spans", _INGEST, "Of which of these spans the test rows are used; all or newest."
    ),
    "global_batch_size": Parameter(
        "training.global_batch_size",
        _TRAINING,
        "Rows of a training step, of all replicas together.",
    ),
    "steps": Parameter(
        "training.steps", _TRAINING, "Training steps; 0 for the configured number of epochs.", 0
    ),
    "learning_rate": Parameter(
        "training.learning_rate.initial", _TRAINING, "The learning rate at the start."
    ),
    "warm_start": Parameter(
        "training.warm_start.version",
        ("Trainer", "RegistryPush", "RunPage"),
        "The version whose weights the training starts from, a number or a label; empty for none.",
        is_yaml=True,
    ),
    "promote": Parameter(
        "registry.promote",
        ("RegistryPush", "RunPage"),
        "automatic (a blessed version becomes champion at once) or manual.",
    ),
    FINGERPRINT: Parameter(
        "",
        ("ExampleGen",),
        "Identifies the data, so that ExampleGen may be cached; make submit computes it.",
    ),
}
"""What a run of the training pipeline may be given."""
OF_AN_EVALUATION = {name: OF_A_TRAINING[name] for name in ("data_path", "span")}
"""What a run of continued evaluation, which judges one span, may be given."""


_LARGEST = 100 * 1024
"""Bytes. The backend passes a container as one argument of a command; Linux takes 128 KiB."""


class _Packaged(Config):
    """The configuration, which must not have what a package cannot hold."""

    def problems(self) -> Iterator[Problem]:
        """Yields contradictions, and what would not reach a step."""
        yield from super().problems()
        if self.data.path.startswith("python:"):
            text = f"'{self.data.path}' fills a folder of this machine: put the files where the "
            yield ("data", "path"), f"{text}cluster finds them, and name that place"
        for name, value in defaults(self, OF_A_TRAINING).items():
            if mistake := rewritten(str(value)):
                yield (*OF_A_TRAINING[name].setting.split("."),), mistake
        settings: Any = self.model_dump(mode="json", exclude_unset=True)
        if (size := len(encoded(settings))) > _LARGEST:
            path: tuple[str, ...] = ()
            while isinstance(settings, dict):
                sizes = {name: len(encoded(value)) for name, value in settings.items()}
                largest = max(sizes, key=sizes.__getitem__)
                if path and sizes[largest] < size / 2:
                    break
                path, settings, of_it = (*path, largest), settings[largest], sizes[largest]
            text = f"takes {of_it} of the settings' {size} bytes, and a step takes {_LARGEST}: "
            yield path, f"{text}leave out columns that the model does not need"


@functools.cache
def _model() -> type[Config]:
    # In this order: the first has more fields.
    return create_model("Config", __base__=(config_model(), _Packaged))


def load(name: str, overrides: Sequence[str] = (), configs: Path = loading.CONFIGS) -> Config:
    """The configuration of a package; see `loading.load_as`."""
    return loading.load_as(_model(), name, overrides, configs)


def defaults(config: Config, names: Collection[str]) -> dict[str, Any]:
    """The values of parameters that leave a configuration as it is; their types are a package's."""
    values = dict[str, Any]()
    for name in names:
        parameter, value = OF_A_TRAINING[name], config.model_dump(mode="json")
        for key in filter(None, parameter.setting.split(".")):
            value = value and value[key]
        if not parameter.setting or value is None:
            values[name] = parameter.empty
        elif parameter.is_yaml or not isinstance(value, str | int | float):
            values[name] = value if isinstance(value, str) else json.dumps(value)
        else:
            values[name] = value
    return values


def read(
    texts: list[str], config: Config, offered: Mapping[str, Parameter] = OF_A_TRAINING
) -> dict[str, Any]:
    """`NAME=VALUE` texts as values of the types that a package has.

    Raises:
      PipelineStop: lists what is wrong.
    """
    kinds = {name: type(value) for name, value in defaults(config, offered).items()}
    values, mistakes = dict[str, Any](), []
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            values[name] = kinds[name](value)
        except KeyError:
            mistakes.append(f"  {name}: no such parameter; there are {', '.join(offered)}")
        except ValueError:
            mistakes.append(f"  {name}: '{value}' is no {kinds[name].__name__}")
        if not equals:
            mistakes.append(f"  {text}: expected NAME=VALUE, e.g. steps=500")
    if mistakes:
        raise PipelineStop("The parameters of the run are wrong:\n" + "\n".join(mistakes))
    spans = changed(config, values).data.spans
    if offered is OF_AN_EVALUATION and "span" in values and not isinstance(spans, int | str):
        raise PipelineStop(
            f"span={values['span']}: continued evaluation judges one span: newest, or a number."
        )
    return values


def changed(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with a run's parameters in it; values of other names are passed over.

    Raises:
      PipelineStop: lists each value that is wrong, or contradicts another setting.
    """
    known = {name: value for name, value in values.items() if name in OF_A_TRAINING}
    try:
        return loading.changed(config, [o for n, v in known.items() for o in _overrides(n, v)])
    except PipelineStop as stop:
        text = str(stop)
        for name in known:
            text = text.replace(f"--set {OF_A_TRAINING[name].setting}", f"--param {name}")
        raise PipelineStop(text) from None


def _overrides(name: str, value: Any) -> Iterator[str]:
    parameter = OF_A_TRAINING[name]
    if not parameter.setting:
        return
    if name == "steps" and value:
        yield "training.epochs=null"
    if value == parameter.empty:
        # Of a warm start all goes, the frozen layers too.
        yield f"{parameter.setting.removesuffix('.version')}=null"
        return
    if name == "span":  # not merged with the configured window
        yield f"{parameter.setting}=null"
    yield f"{parameter.setting}={value if parameter.is_yaml else json.dumps(value)}"
