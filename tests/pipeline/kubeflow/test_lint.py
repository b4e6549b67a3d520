from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.kubeflow import lint
from tests.pipeline.kubeflow.packages import (
    BAD,
    PLATFORM,
    SPEC,
    VERTEX_RESOURCES,
    Bad,
    resources,
)

RECORDED = Path(__file__).parents[2] / "kubeflow" / "recorded" / "taxi.yaml"
NEVER_CACHED = ("evaluator",)


def merge(document: Any, patch: Any) -> Any:
    """A merge patch, as in RFC 7396: null deletes."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(document) if isinstance(document, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def check(bad: Bad) -> list[lint.Violation]:
    spec, platform = SPEC, PLATFORM
    if bad.target == "vertex":
        spec, platform = merge(spec, resources(**VERTEX_RESOURCES)), None
    if bad.platform is not None:
        platform = merge(platform, bad.platform)
    cached = NEVER_CACHED if bad.rule == "never-cached" else ()
    return lint.check(merge(spec, bad.spec), platform, bad.target, cached)


@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
def test_the_good_package_is_clean(target):
    assert check(Bad("none", "", {}, None, target)) == []


@pytest.mark.parametrize("bad", BAD, ids=[f"{n}-{bad.rule}" for n, bad in enumerate(BAD)])
def test_a_bad_package_breaks_its_rule_and_no_other(bad):
    found = check(bad)
    assert [(v.rule, v.step) for v in found] == [(bad.rule, bad.step)]
    assert found[0].text.endswith(".")


def test_the_table_has_every_rule():
    assert {bad.rule for bad in BAD} == set(lint.RULES)


def test_what_has_another_shape_is_named_alone():
    spec = merge(SPEC, {"root": {"dag": {"tasks": {"trainer": {"inputs": ["examples"]}}}}})
    found = lint.check(spec, {"platforms": []})
    assert {(v.rule, v.step) for v in found} == {
        ("spec-format", "trainer"),
        ("platform-format", ""),
    }


@pytest.mark.parametrize("document", [SPEC, PLATFORM], ids=["spec", "platform"])
@pytest.mark.parametrize("odd", [None, "x", [3]])
def test_no_document_is_too_odd_to_check(document, odd):
    for path in places(document):
        changed = replaced(document, path, odd)
        spec, platform = (changed, PLATFORM) if document is SPEC else (SPEC, changed)
        assert isinstance(lint.check(spec, platform), list)


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    """The paths of everything inside a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inner:
        yield (key,)
        if isinstance(item, dict | list):
            yield from ((key, *path) for path in places(item))


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = document.copy()
    changed[path[0]] = replaced(document[path[0]], path[1:], value) if path[1:] else value
    return changed


def test_the_package_that_ran_had_these_faults():
    spec, platform = yaml.safe_load_all(RECORDED.read_text())
    found = lint.check(spec, platform, never_cached=["baseline-model-resolver", "pusher"])
    assert [(v.step, v.rule) for v in found] == [
        ("", "pipeline-root"),
        ("pusher", "never-cached"),
        ("trainer", "ignored-field"),
        ("trainer", "retry-limit"),
    ]
