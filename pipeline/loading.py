"""Reads `configs/*.yaml` into a `Config`: variants, overrides, and every mistake at once."""

import difflib
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from components.errors import PipelineStop
from components.settings import Problem, Settings
from pipeline.config import ALONE, Config, config_model

PROJECT = Path(__file__).resolve().parent.parent
CONFIGS = Path(os.environ.get("PIPELINE_CONFIGS", PROJECT / "configs"))
"""PIPELINE_CONFIGS names another folder, such as a volume on which a team keeps its settings."""
DEFAULT = "development"

_IS_CONFIG = re.compile(r"^(name|extends):", re.MULTILINE)

Path_ = tuple[str, ...]
Model = TypeVar("Model", bound=Settings)
Places = dict[Path_, str]
"""Where each setting was written: its path -> `configs/taxi.yaml:12`."""


class _Loader(yaml.SafeLoader):
    """YAML that remembers lines and refuses a key written twice."""


def load(name: str = DEFAULT, overrides: Sequence[str] = (), configs: Path = CONFIGS) -> Config:
    """Builds the configuration `name` with `--set` overrides; see `load_as`."""
    return load_as(config_model(), name, overrides, configs)


def load_as(
    model: type[Model], name: str, overrides: Sequence[str] = (), configs: Path = CONFIGS
) -> Model:
    """Builds settings of any kind that has `problems()`.

    Args:
      model: the settings' class.
      name: a file of `configs`, without its ending.
      overrides: `a.b=value` each, the value as YAML.
      configs: the folder.

    Raises:
      PipelineStop: lists every mistake with its file, line and path.
    """
    settings, places = _read_with_bases(name, configs, (), [*model.model_fields])
    for override in overrides:
        _apply(override, settings, places)
    return _build(model, settings, places, name)


def names(configs: Path = CONFIGS) -> list[str]:
    """The configurations there are; other settings have neither a name nor a base."""
    found = [path for path in configs.glob("*.yaml") if _IS_CONFIG.search(path.read_text())]
    return sorted(path.stem for path in found)


def _read_with_bases(
    name: str, configs: Path, seen: Path_, known: Sequence[str]
) -> tuple[dict[str, Any], Places]:
    path = configs / f"{name}.yaml"
    if not path.is_file():
        raise PipelineStop(
            f"There is no configuration '{name}'{_did_you_mean(name, names(configs))}. "
            f"{configs} has: {', '.join(names(configs)) or 'none'}."
        )
    if name in seen:
        raise PipelineStop(f"{path}: 'extends' goes round in a circle: {' -> '.join(seen)}.")
    places: Places = {}
    settings = _read(path, places, known)
    base = settings.pop("extends", None)
    if base is None:
        return settings, places
    merged, base_places = _read_with_bases(str(base), configs, (*seen, name), known)
    _merge(merged, settings)
    return merged, {**base_places, **places}


def _read(path: Path, places: Places, known: Sequence[str]) -> dict[str, Any]:
    shown = path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader)
        if not isinstance(node, yaml.MappingNode):
            raise PipelineStop(f"{shown}: expected settings such as 'name: taxi'.")
        node.value = [entry for entry in node.value if _is_wanted(entry[0], known)]
        _note_places(node, (), str(shown), places)
        return dict(_Loader("").construct_document(node))
    except yaml.YAMLError as error:
        raise PipelineStop(f"{shown} is not valid YAML: {' '.join(str(error).split())}") from error


def _is_wanted(key: yaml.Node, known: Sequence[str]) -> bool:
    """Whether a setting is read; `key?` is not where its part is not there. Takes the mark away."""
    if not isinstance(key.value, str) or not key.value.endswith("?"):
        return True
    key.value = key.value[:-1]
    return key.value in known or bool(difflib.get_close_matches(key.value, known, n=1))


def _note_places(node: yaml.MappingNode, at: Path_, file: str, places: Places) -> None:
    for key, value in node.value:
        path = (*at, str(key.value))
        place = f"{file}:{key.start_mark.line + 1}"
        if places.get(path, "").startswith(f"{file}:"):
            raise PipelineStop(f"{place}: '{'.'.join(path)}' is already set at {places[path]}.")
        places[path] = place
        if isinstance(value, yaml.MappingNode):
            _note_places(value, path, file, places)


def _merge(into: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _apply(override: str, settings: dict[str, Any], places: Places) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise PipelineStop(f"--set {override}: expected NAME=VALUE, e.g. training.epochs=3.")
    path = tuple(dotted.split("."))
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PipelineStop(f"--set {override}: '{text}' is not a YAML value.") from error
    change: Any = value
    for key in reversed(path):
        change = {key: change}
    _merge(settings, change)
    places[path] = f"--set {dotted}"


def _build(model: type[Model], settings: dict[str, Any], places: Places, name: str) -> Model:
    config = None
    try:
        config = model.model_validate(settings)
        mistakes = list(config.problems())
    except ValidationError as error:
        mistakes = list(_field_mistakes(model, error, settings))
        if issubclass(model, Config):
            mistakes += _contradictions(model, error, settings)
    if not mistakes:
        assert config is not None
        return config
    lines = [f"  {_place(path, places)}: {text}" for path, text in mistakes]
    count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    raise PipelineStop(f"The configuration '{name}' has {count}:\n" + "\n".join(lines))


def _place(path: Path_, places: Places) -> str:
    dotted = ".".join(path)
    for length in range(len(path), 0, -1):
        place = places.get(path[:length])
        if place is not None:
            return place if place.endswith(f" {dotted}") else f"{place}: {dotted}"
    return dotted


def _field_mistakes(
    model: type[BaseModel], error: ValidationError, settings: Any
) -> Iterator[tuple[Path_, str]]:
    for mistake in error.errors():
        path = _settings_path([p for p in mistake["loc"] if p != "[key]"], settings)
        if mistake["type"] == "extra_forbidden":
            yield path, f"unknown setting{_setting_like(model, path)}"
        elif mistake["type"] == "string_type" and isinstance(mistake["input"], int | float):
            yield path, f"a name or text is wanted, and YAML reads {mistake['input']}: quote it"
        elif mistake["type"] == "missing":
            yield path, "is missing"
        else:
            text = mistake["msg"][0].lower() + mistake["msg"][1:]
            yield path, f"{text}, got {mistake['input']!r}"


def _settings_path(loc: Sequence[int | str], settings: Any) -> Path_:
    """Leaves out of pydantic's location what is no key of the settings: the unions' tags."""
    path: list[str] = []
    for index, part in enumerate(loc):
        if isinstance(settings, dict) and part not in settings and index < len(loc) - 1:
            continue
        path.append(str(part))
        if isinstance(settings, dict):
            settings = settings.get(part)
        elif isinstance(settings, list) and isinstance(part, int) and part < len(settings):
            settings = settings[part]
        elif index < len(loc) - 1:
            break
    return tuple(path)


def _contradictions(
    model: type[BaseModel], error: ValidationError, settings: dict[str, Any]
) -> Iterator[Problem]:
    """What else is wrong in the parts whose fields are right, once wrong ones are left out."""
    for mistake in error.errors():
        path = _settings_path(mistake["loc"], settings)
        inner = _value_at(path[:-1], settings)
        if isinstance(inner, dict):
            inner.pop(path[-1], None)
    for path in ALONE:
        group: Any = model
        for key in path:
            group = group.model_fields[key].annotation
        try:
            found = group.model_validate(_value_at(path, settings))
        except ValidationError:
            continue
        yield from (((*path, *inner), message) for inner, message in found.problems())


def _value_at(path: Path_, settings: Any) -> Any:
    for key in path:
        if isinstance(settings, list) and key.isdigit() and int(key) < len(settings):
            settings = settings[int(key)]
        else:
            settings = settings.get(key) if isinstance(settings, dict) else None
    return settings


def _setting_like(model: type[BaseModel], path: Path_) -> str:
    beside = _fields_at(model, path[:-1])
    if path[-1] in beside:
        return " for this kind"
    close = difflib.get_close_matches(path[-1], beside, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    elsewhere = {dotted.rpartition(".")[2]: dotted for dotted in _all_settings(model, "")}
    close = difflib.get_close_matches(path[-1], elsewhere, n=1, cutoff=0.8)
    if close:
        return f"; did you mean '{elsewhere[close[0]]}'?"
    return f"; known here: {', '.join(beside)}" if beside else ""


def _fields_at(model: type[BaseModel], path: Path_) -> list[str]:
    prefix = ".".join(path)
    found = []
    for dotted in _all_settings(model, ""):
        parent, _, leaf = dotted.rpartition(".")
        if parent == prefix or ("*" in parent and _matches(parent.split("."), path)):
            found.append(leaf)
    return sorted(set(found) - {"*"})


def _matches(pattern: list[str], path: Path_) -> bool:
    return len(pattern) == len(path) and all(
        p in ("*", q) for p, q in zip(pattern, path, strict=True)
    )


def _all_settings(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for inner, many in _models_in(field.annotation, False):
            yield from _all_settings(inner, f"{prefix}{name}.{'*.' if many else ''}")


def _models_in(annotation: Any, many: bool) -> Iterator[tuple[type[BaseModel], bool]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, many
    many = many or getattr(annotation, "__origin__", None) in (dict, list)
    for argument in get_args(annotation):
        if isinstance(argument, type) or get_args(argument):
            yield from _models_in(argument, many)


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def data_folder(config: Config) -> Path:
    """The folder of `data.path`, absolute; it need not exist.

    Raises:
      PipelineStop: the package of a `package:` path is not installed.
    """
    return PROJECT / in_package("data.path", config.data.path)


def in_package(setting: str, path: str) -> Path:
    """A path as it is, or for 'package:NAME/FOLDER' the one inside an installed Python package.

    Args:
      setting: where it was given, for the error.
      path: what was given.

    Raises:
      PipelineStop: the package is not installed.
    """
    kind, colon, rest = path.partition(":")
    if kind != "package" or not colon:
        return Path(path)
    package, _, folder = rest.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise PipelineStop(f"{setting} is '{path}', but no package '{package}' is installed.")
    return Path(next(iter(spec.submodule_search_locations))) / folder
