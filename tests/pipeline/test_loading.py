"""Reading configurations: variants, overrides, and all mistakes at once."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.errors import PipelineStop
from pipeline import loading
from pipeline.run import check_against_schema
from tests import small

_CONFIGS = loading.PROJECT / "configs"


def _load(
    folder: Path, changes: dict[str, Any] | None = None, overrides: tuple[str, ...] = ()
) -> Any:
    small.write_config(folder, copy.deepcopy(small.SETTINGS), "base")
    small.write_config(folder, {"extends": "base", **(changes or {})}, "variant")
    return loading.load("variant", overrides, folder)


def test_variant_changes_only_what_it_states(tmp_path: Path) -> None:
    config = _load(tmp_path, {"model": {"dropout": 0.25}})
    assert config.model.dropout == 0.25
    assert config.model.hidden == [8]


def test_null_removes_a_feature_of_the_base(tmp_path: Path) -> None:
    config = _load(tmp_path, {"features": {"columns": {"shop": None}}})
    assert "shop" not in config.features.columns
    assert "method" in config.features.columns


def test_override_wins_over_the_file(tmp_path: Path) -> None:
    config = _load(tmp_path, {"training": {"epochs": 2}}, ("training.epochs=5",))
    assert config.training.epochs == 5


@given(st.floats(0, 0.99), st.integers(1, 10**6))
def test_override_round_trips_any_value(dropout: float, batch: int) -> None:
    overrides = [f"model.dropout={dropout!r}", f"training.global_batch_size={batch}"]
    config = loading.load("taxi", overrides)
    assert config.model.dropout == pytest.approx(dropout)
    assert config.training.global_batch_size == batch


def test_all_mistakes_come_at_once_with_file_line_and_path(tmp_path: Path) -> None:
    changes = {"model": {"dropuot": 0.1}, "training": {"steps": 7}, "name": "Not Good"}
    with pytest.raises(PipelineStop) as stop:
        _load(tmp_path, changes, ("data.sample=2",))
    message = str(stop.value)
    assert "4 mistakes" in message
    assert "variant.yaml:3: model.dropuot: unknown setting; did you mean 'dropout'?" in message
    assert "training.steps: set either 'epochs' or 'steps'" in message
    assert "--set data.sample: input should be less than or equal to 1, got 2" in message
    assert "name: string should match pattern" in message


MISTAKES = [
    ("features.columns.amount.buckets=3", "features.columns.amount.buckets: unknown setting"),
    ("features.columns.leak={kind: numeric, missing: mean}", "excluded as leakage"),
    ("features.crosses.x={of: [shop, nowhere], buckets: 4}", "'nowhere' is not a feature"),
    ("features.columns.shop.kind=hash", "does not match any of the expected tags"),
    ("features.columns.new={kind: numeric}", "missing: is missing"),
    ("data.split.train=0.7", "the three must add up to 1"),
    ("training.early_stopping={metric: mae, patience: 2}", "'mae' is not one of loss, auc"),
    ("evaluation.thresholds=[{metric: rmse, at_most: 1}]", "'rmse' is not one of binary"),
    ("hiden=[3]", "did you mean 'model.hidden'?"),
    ("prediction_log.exclude=[farre]", "the model reads no column 'farre'; no other is logged"),
    ("training.strategy=mirored", "did you mean 'mirrored'?"),
    ("training.learning_rate.initial=.inf", "should be a finite number"),
    ("name=" + "a" * 300, "at most 100 characters"),
    ("features.columns={null: {kind: numeric}}", "--set features.columns:1: features.columns.null"),
    ("training.epochs=" + "9" * 4301, "--set training.epochs has a value that is none"),
    ("model.hidden=" + "[" * 1500, "nested too deep"),
    ("evaluation.thresholds.7.at_least=0.5", "has 1 items, numbered from 0; '7' is none"),
    ("evaluation.thresholds.0.at_leest=0.5", "--set evaluation.thresholds.0.at_leest: unknown"),
    ("training.epochs.x=3", "--set training.epochs.x: training.epochs: input should be"),
]


@pytest.mark.parametrize(("override", "words"), MISTAKES, ids=[m[0][:40] for m in MISTAKES])
def test_mistake_is_named_with_what_to_do(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(PipelineStop) as stop:
        _load(tmp_path, {}, (override,))
    assert words in str(stop.value)


def test_another_kind_replaces_what_the_old_one_had(tmp_path: Path) -> None:
    hashed = {"kind": "hashed", "buckets": 50, "missing": "own"}
    in_variant = _load(tmp_path, {"features": {"columns": {"hour": hashed}}})
    assert in_variant.features.columns["hour"].buckets == 50
    given = "features.columns.hour={kind: hashed, buckets: 50, missing: own}"
    assert _load(tmp_path, {}, (given,)) == in_variant
    same_kind = _load(tmp_path, {"features": {"columns": {"shop": {"buckets": 9}}}})
    assert (
        same_kind.features.columns["shop"].buckets,
        same_kind.features.columns["shop"].embed,
    ) == (*(9, 2),)


def test_a_span_range_replaces_a_rolling_range(tmp_path: Path) -> None:
    config = _load(tmp_path, {"data": {"spans": {"count": 4}}}, ("data.spans={first: 1, last: 3}",))
    assert config.data.spans.model_dump() == {"first": 1, "last": 3}


def test_an_item_of_a_list_is_set_by_its_number(tmp_path: Path) -> None:
    config = _load(tmp_path, {}, ("evaluation.thresholds.0.at_least=0.5",))
    assert config.evaluation.thresholds[0].at_least == 0.5


def test_one_mistake_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(PipelineStop) as stop:
        _load(tmp_path, {"training": {"epochs": 3.5}})
    assert "1 mistake:" in str(stop.value)


def test_unknown_configuration_lists_what_there_is(tmp_path: Path) -> None:
    small.write_config(tmp_path, small.SETTINGS, "nightly")
    with pytest.raises(PipelineStop, match=r"no configuration 'nightlt'; did you mean 'nightly'"):
        loading.load("nightlt", (), tmp_path)


def test_circle_of_bases_is_refused(tmp_path: Path) -> None:
    small.write_config(tmp_path, {"extends": "b"}, "a")
    small.write_config(tmp_path, {"extends": "a"}, "b")
    with pytest.raises(PipelineStop, match=r"goes round in a circle: a -> b"):
        loading.load("a", (), tmp_path)


def test_key_written_twice_is_refused(tmp_path: Path) -> None:
    text = yaml.safe_dump(small.SETTINGS) + "name: again\n"
    (tmp_path / "twice.yaml").write_text(text)
    with pytest.raises(PipelineStop, match=r"'name' is already set at .*twice.yaml:\d+"):
        loading.load("twice", (), tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name: [", "is not valid YAML"),
        (b"- a\n- b\n", "expected settings"),
        (b"", "expected settings"),
        (b"name: a\nworkspace: caf\xe9\n", ":2 is no UTF-8"),
        (b"name: a\nyes: 1\n", ":2: yes: a name or text is wanted, and YAML reads the key as bool"),
        (b"name: a\nmodel:\n  ~: 1\n", ":3: model.~: a name or text is wanted"),
        (b"name: " + b"1" * 4301, "has a value that is none"),
        (b"name: 2020-13-45", "has a value that is none"),
        (b"name: " + b"[" * 1500 + b"]" * 1500, "nested too deep"),
        (b"name: &a {b: *a}\n", "nested too deep"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_file_that_holds_no_settings_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(PipelineStop) as stop:
        loading.load("bad", (), tmp_path)
    assert f"{tmp_path / 'bad.yaml'}" in str(stop.value)
    assert words in str(stop.value)
    with pytest.raises(PipelineStop, match="no configuration 'other'"):
        loading.load("other", (), tmp_path)


@pytest.mark.parametrize("name", ["a" * 300, "a/b", "a\0b", ""])
def test_a_name_that_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PipelineStop, match="no configuration"):
        loading.load(name, (), tmp_path)


@pytest.mark.parametrize("override", ["training.epochs", "=3", "model.hidden=["])
def test_override_that_is_none_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(PipelineStop, match="--set"):
        _load(tmp_path, {}, (override,))


@pytest.mark.parametrize("name", loading.names(_CONFIGS))
def test_configurations_of_the_project_are_right(name: str) -> None:
    config = loading.load(name, configs=_CONFIGS)
    if (loading.PROJECT / config.schema_file).is_file():  # a new one has none before `make schema`
        check_against_schema(config)


def test_package_path_is_found_without_importing_it() -> None:
    config = loading.load("taxi")
    assert any(loading.data_folder(config).glob("*.csv"))


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ({"label": {"column": 2019}}, "features.label.column: a name or text is wanted, and YAML"),
        ({"exclude": {2019: "id"}}, "features.exclude.2019: a name or text is wanted, and YAML"),
        ({"label": {"classes": [False, True]}}, "features.label.classes: yes, no, true and false"),
        ({"columns": {"": {"kind": "numeric", "missing": "mean"}}}, "a feature must have a name"),
    ],
)
def test_a_name_that_yaml_reads_as_something_else_is_told(
    tmp_path: Path, written: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(PipelineStop, match=sentence):
        _load(tmp_path, {"features": written})
