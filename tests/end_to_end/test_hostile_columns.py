"""The whole pipeline on a table whose names and values nobody has tidied up."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as stubs

from components.continued_evaluation import history
from components.evaluation.slices import columns_of
from components.inference.columns import from_rows
from components.inference.model import LoadedVersion, choose
from components.registry import store
from tests import small
from tests.end_to_end import hostile
from tests.end_to_end.hostile import KEY, KIND, PRICE
from tests.end_to_end.project import Project

pytestmark = pytest.mark.prove


def made(folder: Path, problem: str) -> Project:
    """A project that has run to version 1."""
    project = hostile.project(folder, problem)
    result = project.run()
    assert result.code == 0, result.output
    assert "The model filed as version 1, now champion" in result.output
    return project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return made(tmp_path_factory.mktemp("hostile") / "project", "binary")


def asked() -> list[dict[str, Any]]:
    """Rows as a caller sends them: without what is only known later."""
    known = {*hostile.NUMBERS, *hostile.TEXTS, KEY}
    return [
        {name: value for name, value in row.items() if name in known and value != ""}
        for row in hostile.rows("binary", 30, 9)
    ]


def expected(project: Project, rows: list[dict[str, Any]]) -> np.ndarray:
    loaded = LoadedVersion(choose(str(project.registry), "1"))
    bare = [{name: value for name, value in row.items() if name != KEY} for row in rows]
    return loaded.predict(from_rows(loaded.signature, bare))


def test_of_names_that_look_alike_only_the_right_one_counts(project: Project) -> None:
    row = dict.fromkeys(hostile.NUMBERS, 0.0) | dict.fromkeys(hostile.TEXTS, hostile.KINDS[2])
    changed = {name: {**row, name: 2.0} for name in hostile.NUMBERS}
    changed |= {name: {**row, name: hostile.KINDS[0]} for name in hostile.TEXTS}
    (before, *after) = expected(project, [row, *changed.values()])[:, 0]
    moved = dict(zip(changed, np.abs(np.array(after) - before), strict=True))
    assert sorted(moved, key=moved.__getitem__)[-2:] in ([PRICE, KIND], [KIND, PRICE])


def test_predict_takes_the_names_as_they_are(project: Project) -> None:
    rows = asked()
    answer = json.loads(project.call("predict", json.dumps(rows)).output)
    assert [p["key"] for p in answer["predictions"]] == [row[KEY] for row in rows]
    given = [p["predictions"] for p in answer["predictions"]]
    assert given == pytest.approx(expected(project, rows), abs=1e-5)


def test_bulk_predictions_are_the_same(project: Project) -> None:
    rows = asked()
    empty = dict.fromkeys((*hostile.NUMBERS, *hostile.TEXTS), "")
    hostile.write_rows(project.folder / "fresh" / "rows.csv", [{**empty, **row} for row in rows])
    carried = ",".join('"' + name.replace('"', '""') + '"' for name in (hostile.OVER, " padded "))
    result = project.call(
        *("batch-predict", "--input", "fresh/*.csv", "--output", "out"),
        *("--key", KEY, "--columns", carried),
    )
    assert result.code == 0, result.output
    answers = pq.read_table(project.folder / "out" / "predictions").to_pylist()
    assert [a["key"] for a in answers] == [row[KEY] for row in rows]
    assert [a[hostile.OVER] for a in answers] == [row.get(hostile.OVER) for row in rows]
    assert [[a["prediction"]] for a in answers] == pytest.approx(expected(project, rows), abs=1e-5)


def test_slices_are_judged_and_told_apart(project: Project) -> None:
    manifest = store.read_manifest(str(project.registry), 1)
    judged = manifest["metrics"]["candidate"]
    assert {tuple(columns_of(name)) for name in judged} >= {(), (KIND,)}
    assert {name for name in judged if columns_of(name) == [KIND]} == {
        '"a,b/c\\\\d"="a, b=1"',
        '"a,b/c\\\\d"="c\\"d"',
        '"a,b/c\\\\d"="e\\nf"',
        '"a,b/c\\\\d"=\u05de\u05d7\u05d9\u05e8',
    }


def test_the_second_run_is_cached_and_told_in_order(project: Project) -> None:
    result = project.run()
    assert result.computed() == ["RegistryPush"], result.output
    shown = project.call("versions", "show", "1")
    assert shown.code == 0, shown.output
    assert "[red]a[/]{b}" in shown.output
    page = max((project.folder / "workspace" / "reports").glob("small-*.html")).read_text("utf-8")
    assert f"<h3>{escape(KIND)}</h3>" in page


@pytest.fixture
def ports(project: Project) -> Iterator[tuple[str, str]]:
    """A server's addresses for REST and gRPC."""
    free = [f"--set=serving.{kind}_port=0" for kind in ("http", "grpc")]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "serve", "--config", "small", *free],
        cwd=project.folder,
        env=small.environment_of_a_copy(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    said = ""
    while "curl" not in said:
        line = process.stdout.readline()
        assert line, f"it ended: {said}"
        said += line
    rest, by_grpc = re.findall(r"(127\.0\.0\.1:\d+)  ", said)
    yield rest, by_grpc
    process.kill()
    process.communicate()


def tensors(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str, list[Any]]]:
    """Name, datatype and values of each column."""
    for name in (*hostile.NUMBERS, *hostile.TEXTS, KEY):
        is_text = name not in hostile.NUMBERS
        gap = "" if is_text else float("nan")
        yield name, "BYTES" if is_text else "FP32", [row.get(name, gap) for row in rows]


def test_the_server_takes_the_names_by_both_protocols(
    project: Project, ports: tuple[str, str]
) -> None:
    rows, (rest, by_grpc) = asked(), ports
    wanted = pytest.approx(expected(project, rows), abs=1e-5)
    v1 = httpx.post(f"http://{rest}/v1/models/small:predict", json={"instances": rows}).json()
    assert [p["predictions"] for p in v1["predictions"]] == wanted
    request = pb.ModelInferRequest(model_name="small")
    for name, datatype, values in tensors(rows):
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[len(rows)])
        if datatype == "BYTES":
            tensor.contents.bytes_contents.extend(value.encode() for value in values)
        else:
            tensor.contents.fp32_contents.extend(values)
    with grpc.insecure_channel(by_grpc) as channel:
        reply = stubs.GRPCInferenceServiceStub(channel).ModelInfer(request)
    named = {output.name: output for output in reply.outputs}
    predictions, keys = named["predictions"], named["key"]
    assert [[value] for value in predictions.contents.fp32_contents] == wanted
    assert [key.decode() for key in keys.contents.bytes_contents] == [row[KEY] for row in rows]


def test_a_fresh_span_is_judged_and_a_column_that_was_never_there_is_no_news(
    project: Project,
) -> None:
    fresh = hostile.rows("binary", 600, 2)
    hostile.write_rows(project.folder / "data" / "span-2" / "rows.csv", fresh)
    result = project.call("continued-evaluation")
    assert result.code == 0, result.output
    (record,) = history.read_all(str(project.registry))
    assert record.decision.action == "keep"
    assert {tuple(columns_of(place)) for place in record.evidence.rows_by_slice} >= {(KIND,)}
    assert project.call("evaluations").code == 0


@pytest.mark.parametrize("problem", ["multiclass", "regression"])
def test_other_labels_come_through(tmp_path: Path, problem: str) -> None:
    project = made(tmp_path / "project", problem)
    answer = json.loads(project.call("predict", json.dumps(asked())).output)
    predictions = np.array([p["predictions"] for p in answer["predictions"]])
    assert predictions == pytest.approx(expected(project, asked()), rel=1e-5)
    classes = hostile.CLASSES[problem]
    if classes:
        assert predictions.sum(axis=1) == pytest.approx(1, abs=1e-5)
        assert predictions[:, classes.index("never")].max() < 0.1
    else:
        assert np.abs(predictions).max() > 1e6
