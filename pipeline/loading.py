"""Reads `configs/*.yaml` into a `Config`: variants, overrides, and every mistake at once."""

import difflib
import importlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from components.errors import PipelineStop, did_you_mean
from components.settings import Problem, Settings, problems_of
from pipeline import parts
from pipeline.command_line import DEFAULT
from pipeline.config import Config, config_model

PROJECT = parts.PROJECT
CONFIGS = Path(os.environ.get("PIPELINE_CONFIGS", PROJECT / "configs"))
"""PIPELINE_CONFIGS names another folder, such as a volume on which a team keeps its settings."""

_IS_CONFIG = re.compile(rb"^(name|extends):", re.MULTILINE)
_KEYS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")

Path_ = tuple[str, ...]
Model = TypeVar("Model", bound=Settings)
Places = dict[Path_, str]
"""Where each setting was written: its path -> `configs/taxi.yaml:12`."""


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
      overrides: `a.b=value` each, the value as YAML; `a.0.b=value` for the first of a list.
      configs: the folder.

    Raises:
      PipelineStop: lists every mistake with its file, line and path.
    """
    places: Places = {}
    settings = _read_with_bases(model, name, configs, places, ())
    for override in overrides:
        _apply(override, model, settings, places)
    return _build(model, settings, places, name)


def changed(config: Config, overrides: Sequence[str]) -> Config:
    """Another configuration, with `a.b=value` overrides in it; see `load_as`."""
    settings, places = config.model_dump(mode="json", exclude_unset=True), dict[Path_, str]()
    for override in overrides:
        _apply(override, type(config), settings, places)
    return _build(type(config), settings, places, config.name)


def names(configs: Path = CONFIGS) -> list[str]:
    """The configurations there are, as `taxi` or `patterns/05-reframing`.

    Other settings have neither a name nor a base.
    """
    files = [*configs.glob("[!.]*.yaml"), *configs.glob("[!.]*/[!.]*.yaml")]
    found = [path for path in files if _IS_CONFIG.search(path.read_bytes())]
    return sorted(str(path.relative_to(configs).with_suffix("")) for path in found)


def _read_with_bases(
    model: type[Model], name: str, configs: Path, places: Places, seen: Path_
) -> dict[str, Any]:
    """The settings of a file, over those of its base; notes where each was written."""
    path = configs / f"{name}.yaml"
    known = names(configs)
    if name not in known and not (re.fullmatch(r"[^\0]{1,200}", name) and path.is_file()):
        shown = [one for one in known if "/" not in one or one.startswith(f"{name}/")]
        raise PipelineStop(
            f"There is no configuration '{name:.100}'{did_you_mean(name[:100], known)}. "
            f"{configs} has: {', '.join(shown) or 'none'}."
        )
    if name in seen:
        raise PipelineStop(f"{path}: 'extends' goes round in a circle: {' -> '.join(seen)}.")
    own_places: Places = {}
    settings = _read(path, own_places, [*model.model_fields])
    base = settings.pop("extends", None)
    if base is not None:
        own = settings
        settings = _read_with_bases(model, str(base), configs, places, (*seen, name))
        _merge(settings, own, model)
    places |= own_places
    return settings


def _read(path: Path, places: Places, known: Sequence[str]) -> dict[str, Any]:
    shown = str(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise PipelineStop(
            f"{shown}:{line} is no UTF-8: save the file in this encoding."
        ) from error
    node = _composed(text, shown)
    if not isinstance(node, yaml.MappingNode):
        raise PipelineStop(f"{shown}: expected settings such as 'name: taxi'.")
    node.value = [entry for entry in node.value if _is_wanted(entry[0], known)]
    for inner, place in _lines(node, (), shown):
        if inner in places:
            raise PipelineStop(f"{place}: '{'.'.join(inner)}' is already set at {places[inner]}.")
        places[inner] = place
    return dict(_constructed(node, shown))


def _composed(text: str, place: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise PipelineStop(f"{place} is not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise PipelineStop(f"{place} is nested too deep to be settings.") from error


def _constructed(node: yaml.Node, place: str) -> Any:
    try:
        return yaml.SafeLoader("").construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # no date, or 4,300 digits
        text = " ".join(str(error).split())
        raise PipelineStop(f"{place} has a value that is none: {text:.200}") from error


def _is_wanted(key: yaml.Node, known: Sequence[str]) -> bool:
    """Whether a setting is read; `key?` is not where its part is not there. Takes the mark away."""
    if not isinstance(key.value, str) or not key.value.endswith("?"):
        return True
    key.value = key.value[:-1]
    return key.value in known or bool(did_you_mean(key.value, known, cutoff=0.8))


def _lines(node: yaml.Node, at: Path_, file: str) -> list[tuple[Path_, str]]:
    """Each setting's path, and its file and line.

    Raises:
      PipelineStop: a key is no text.
    """
    try:
        return list(_walk(node, at, file))
    except RecursionError as error:  # an anchor that holds itself
        raise PipelineStop(f"{file} is nested too deep to be settings.") from error


def _walk(node: yaml.Node, at: Path_, file: str) -> Iterator[tuple[Path_, str]]:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        place = f"{file}:{key.start_mark.line + 1}"
        if key.tag not in _KEYS:
            dotted = ".".join((*at, str(key.value)))
            read = f"YAML reads the key as {key.tag.rpartition(':')[2]}"
            raise PipelineStop(
                f"{place}: {dotted}: a name or text is wanted, and {read}: quote it."
            )
        path = (*at, str(key.value))
        yield path, place
        yield from _walk(value, path, file)


def _merge(into: dict[str, Any], changes: dict[str, Any], kind: Any) -> None:
    """Puts changes over settings: groups are merged, values replaced.

    Args:
      into: the settings, which are changed.
      changes: what is put over them.
      kind: the settings' type, by which one choice among several is told from another.
    """
    for key, value in changes.items():
        inner, before = _inner(kind, key), into.get(key)
        if isinstance(value, dict) and isinstance(before, dict) and _are_one(before, value, inner):
            _merge(before, value, inner)
        else:
            into[key] = value


def _are_one(before: dict[str, Any], after: dict[str, Any], kind: Any) -> bool:
    """Whether two groups are of one kind, e.g. both of `hashed`: otherwise the later replaces."""
    kinds = _models(kind)
    if "kind" in after and after["kind"] != before.get("kind", after["kind"]):
        return False
    return len(kinds) < 2 or any({*before, *after} <= {*one.model_fields} for one in kinds)


def _inner(kind: Any, key: str) -> Any:
    """The type of a setting within a group of a type; None if it has none."""
    for model in _models(kind):
        if key in model.model_fields:
            return model.model_fields[key].annotation
    held = [inner for inner in _alternatives(kind) if get_origin(inner) in (dict, list)]
    return get_args(held[0])[-1] if held else None


def _models(kind: Any) -> list[type[BaseModel]]:
    """The settings models that a type admits."""
    return [
        inner
        for inner in _alternatives(kind)
        if isinstance(inner, type) and issubclass(inner, BaseModel)
    ]


def _alternatives(kind: Any) -> list[Any]:
    """The types of a union, and those within `Annotated`."""
    if get_origin(kind) in (dict, list) or not get_args(kind):
        return [kind]
    return [one for argument in get_args(kind) for one in _alternatives(argument)]


def _apply(override: str, model: type[Model], settings: dict[str, Any], places: Places) -> None:
    """Puts `a.b=value` over the settings."""
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise PipelineStop(f"--set {override:.200}: expected NAME=VALUE, e.g. training.epochs=3.")
    place, path = f"--set {dotted}", tuple(dotted.split("."))
    node = _composed(text, f"{place}: '{text:.200}'")
    if node:
        _lines(node, path, place)  # it checks the keys
    inside: Any = settings
    kind: Any = model
    for depth, key in enumerate(path[:-1], 1):
        kind = _inner(kind, key)
        inside = _step(inside, key, place, path[:depth], places)
    value = _constructed(node, place) if node else None
    if isinstance(inside, list):
        inside[_index(inside, path[-1], place)] = value
    else:
        _merge(inside, {path[-1]: value}, kind)
    places[path] = place


def _step(inside: Any, key: str, place: str, path: Path_, places: Places) -> Any:
    """The group or list within another one; made, if need be in place of a value."""
    if isinstance(inside, list):
        number = _index(inside, key, place)
        if not isinstance(inside[number], dict | list):
            inside[number], places[path] = {}, place
        return inside[number]
    if not isinstance(inside.get(key), dict | list):
        inside[key], places[path] = {}, place
    return inside[key]


def _index(items: list[Any], key: str, place: str) -> int:
    if not key.isdecimal() or int(key) >= len(items):
        raise PipelineStop(
            f"{place}: the list has {len(items)} items, numbered from 0; '{key}' is none of them."
        )
    return int(key)


def _build(model: type[Model], settings: dict[str, Any], places: Places, name: str) -> Model:
    try:
        made = model.model_validate(settings)
    except ValidationError as error:
        mistakes = [*_field_mistakes(model, error, settings), *_contradictions(model, settings, ())]
    else:
        mistakes = list(problems_of(made))
        if not mistakes:
            return made
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
) -> Iterator[Problem]:
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
            yield path, f"{text}, got {mistake['input']!r:.200}"


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
    model: type[BaseModel], settings: dict[str, Any], at: Path_
) -> Iterator[Problem]:
    """What else is wrong, in those groups of settings whose fields are right."""
    for name in model.model_fields.keys() & settings.keys():
        for group in _models(model.model_fields[name].annotation):
            if not issubclass(group, Settings) or not isinstance(settings[name], dict):
                continue
            try:
                yield from problems_of(group.model_validate(settings[name]), (*at, name))
            except ValidationError:
                yield from _contradictions(group, settings[name], (*at, name))


def _setting_like(model: type[BaseModel], path: Path_) -> str:
    """What an unknown setting may have been meant to be."""
    kind: Any = model
    for key in path[:-1]:
        kind = _inner(kind, key)
    beside = sorted({name for one in _models(kind) for name in one.model_fields})
    if path[-1] in beside:
        return " for this kind"
    if hint := did_you_mean(path[-1], beside):
        return hint
    known = sorted(_all_settings(model, ""), key=lambda dotted: -dotted.count("."))
    elsewhere = {dotted.rpartition(".")[2]: dotted for dotted in known}  # the outermost of a name
    close = difflib.get_close_matches(path[-1], elsewhere, n=1, cutoff=0.8)
    if close:
        return f"; did you mean '{elsewhere[close[0]]}'?"
    return f"; known here: {', '.join(beside)}" if beside else ""


def _all_settings(kind: Any, prefix: str) -> Iterator[str]:
    for model in _models(kind):
        for name, field in model.model_fields.items():
            yield f"{prefix}{name}"
            yield from _all_settings(field.annotation, f"{prefix}{name}.")


def data_folder(config: Config) -> Path:
    """The folder of `data.path`, absolute; it need not exist. See `folder_of`.

    A part may have another in its place, of the same files with more columns.
    """
    folder = folder_of("data.path", config.data.path, PROJECT / config.workspace)
    for joined_data in parts.offers("joined_data"):
        folder = joined_data(config, folder)
    return folder


def folder_of(setting: str, path: str, workspace: Path) -> Path:
    """A path of the settings, absolute.

    Args:
      setting: where it was given, for the error.
      path: 'python:MODULE:FUNCTION' is a folder that the function fills, once; else as
        `in_package` has it.
      workspace: the folder is `data/MODULE.FUNCTION` in it.

    Raises:
      PipelineStop: there is no such package or function, or the function cannot be imported.
    """
    kind, _, source = path.partition(":")
    if kind != "python":
        return PROJECT / in_package(setting, path)
    folder = workspace / "data" / source.replace(":", ".")
    if folder.is_dir():
        return folder
    module, _, function = source.partition(":")
    try:
        fill = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise PipelineStop(f"{setting} is '{path}', which cannot be used: {error}.") from error
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tmp-") as made:
        filled = Path(made, "filled")
        filled.mkdir()
        try:
            fill(filled)
        except ImportError as error:
            raise PipelineStop(f"{setting} is '{path}', which cannot be used: {error}.") from error
        try:
            os.rename(filled, folder)
        except OSError:
            if not folder.is_dir():  # else another run has filled it meanwhile
                raise
    return folder


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
