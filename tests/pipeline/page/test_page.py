"""The page of a run, from artifacts that a run of each problem type would leave."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow_data_validation as tfdv
from tfx.types import standard_artifacts

from components.evaluation import curves
from pipeline import config as config_
from pipeline.page import charts, step, writing
from pipeline.page.contents import Facts
from pipeline.workspace import Workspace
from tests import small

EVIL = '</script><script>alert("é")</script><b>'
SLICE = f"method={EVIL}"
CLASSES = ["red", EVIL, "blue"]


def _counted(problem: str, labels: np.ndarray, predictions: np.ndarray) -> Any:
    combine = curves._Combine(problem, ["candidate", "heuristic"])
    found = combine.create_accumulator()
    for half in (slice(0, 100), slice(100, None)):
        models = {"candidate": predictions[half], "heuristic": predictions[half] * 0.9}
        found = combine.add_input(found, {"labels": labels[half], "predictions": models})
    counts = combine.extract_output(combine.merge_accumulators([found, {}]))
    return {key.model_name: json.loads(text) for key, text in counts.items()}


def _evaluation(problem: str) -> dict[str, Any]:
    chance = np.random.default_rng(5)
    labels = chance.integers(0, 3 if problem == "multiclass" else 2, 400)
    if problem == "multilabel":
        labels = np.eye(3, dtype=int)[labels]
        names, predictions = ["auc"], np.clip(labels * 0.4 + chance.random((400, 3)) * 0.6, 0, 1)
    elif problem == "multiclass":
        names, predictions = ["categorical_accuracy"], chance.dirichlet([1, 1, 1], 400)
    else:
        names = ["auc", "log_loss"] if problem == "binary" else ["rmse"]
        predictions = np.clip(labels * 0.4 + chance.random(400) * 0.6, 0, 1)[:, None]
    own = {
        place: {name: [v, v - 0.05, v + 0.05] for name in names}
        for place, v in {"overall": 0.91234, "method=card": 0.9, SLICE: 0.81236}.items()
    }
    gain = {place: {name: [0.02, 0.01, 0.03] for name in names} for place in own}
    plain = {place: {name: found[0] for name, found in by.items()} for place, by in own.items()}
    return {
        "baseline": {"kind": "heuristic", "version": None},
        "metrics": {"candidate": plain, "heuristic": plain},
        "rows": {"overall": 400, "method=card": 300, SLICE: 100},
        "intervals": {"candidate": own, "heuristic": own, "gain": gain},
        "failures": [],
        "what_if": {EVIL: {"changed": 0.0625, "by": 0.25}},
        "importance_of": names[0],
        "importances": {EVIL: 0.12345, "amount": -0.001},
        "curves": _counted(problem, labels, predictions),
    }


def _training() -> dict[str, Any]:
    evaluations = [
        {"step": 10 * n, "train_loss": 1 / n, "examples_per_second": 9.0, "loss": 1 / n, "auc": 0.9}
        for n in range(1, 6)
    ]
    return {
        "fingerprint": "a" * 64,
        "library_versions": {"keras": "3.15"},
        "evaluations": evaluations,
        "checkpoints": {"resumed_at": [30], "saved": 1, "seconds": 0.1},
        "inputs": {"features": [{"name": "shop", "size": 9, "embed": 2}]},
        "cascade": {"usual": {"model": EVIL, "version": 7}},
        "first_phase": {
            "columns": [EVIL],
            "answered": 0.875,
            "accuracy": 0.99,
            "full_accuracy": 0.98,
            "bytes": 8204,
            "microseconds": 3.6,
        },
        "steps": 50,
        "rows": 600,
        "seconds": 1.5,
        "warm_start": None,
    }


def _facts(root: Path, problem: str, run_id: str = "20261129-120000-000001") -> Facts:
    settings = json.loads(json.dumps(small.SETTINGS))
    settings["features"]["problem"] = problem
    settings["features"]["columns"] |= {
        EVIL: {"kind": "hashed", "buckets": 8, "missing": "own"},
        "words": {"kind": "text", "top_k": 8, "column": "free"},
        "photo": {"kind": "image", "column": "free"},
        "usual": {"kind": "prediction", "model": "other", "columns": ["amount", "free"]},
    }
    apart = {"metric": "auc", "slices": ["method"], "gap": 0.05}
    settings["evaluation"]["thresholds"] = [apart] if problem in ("binary", "multilabel") else []
    if problem.startswith("multi"):
        settings["features"]["label"]["classes"] = CLASSES
    evaluation = _evaluation(problem)
    push = {"version": 1, "pushed": True, "promoted": False, "reason": "blessed"}
    counts = {"train": 600, "eval": 200, "test": 400}
    counts |= {"quarantined": {"rows": 3, "of": 1203, "reasons": {EVIL: 3}}}
    counts["spans"] = {"3": {"train": 411, "eval": 100, "test": 200}, "4": {"train": 189}}
    files = {
        ("ExampleGen", "examples", "counts.json"): counts,
        ("Gate", "report", "report.json"): {
            "warnings": [{"split": "train", "feature": EVIL, "what": EVIL}],
            "bridged": {"train": 77, "eval": 8, "test": 0},
        },
        ("Trainer", "model", "training.json"): _training(),
        ("Evaluator", "evaluation", "metrics.json"): evaluation,
        ("RegistryPush", "pushed", "push.json"): push,
        ("StatisticsGen", "statistics", ""): None,
    }
    outputs: dict[str, dict[str, str]] = {}
    for (component, output, name), content in files.items():
        folder = root / component
        folder.mkdir(parents=True, exist_ok=True)
        outputs[component] = {output: str(folder)}
        if name:
            (folder / name).write_text(json.dumps(content))
    table = pd.DataFrame(small.rows(300)).replace("", None)
    table[EVIL] = [EVIL, "plain", None] * 100
    table["free"] = [f"text {n}" for n in range(300)]
    found = tfdv.generate_statistics_from_dataframe(table).SerializeToString()
    for split in ("train", "eval", "test"):
        (root / "StatisticsGen" / f"Split-{split}").mkdir(exist_ok=True)
        (root / "StatisticsGen" / f"Split-{split}" / "FeatureStats.pb").write_bytes(found)
    return Facts(
        run_id=run_id,
        config=config_.config_model().model_validate(settings),
        outputs=outputs,
        registry=root / "registry" / "small",
        examples={"spans": "[3, 4]"},
        provenance={"code": "c0de"},
        steps=[("ExampleGen", "cached", 0.1), ("Trainer", "done", 2.5)],
        changes={"training.epochs": (3, EVIL)},
    )


@pytest.fixture(scope="module", params=["binary", "multiclass", "multilabel", "regression"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param)
    path = writing.write_run(_facts(root, request.param), Workspace(root))
    assert path is not None
    return path


def test_the_page_has_the_runs_numbers_and_nothing_that_it_shows_is_code(page: Path) -> None:
    text = page.read_text("utf-8")
    assert len(text) < 1_500_000
    told = ["0.9123", "0.8124", "0.1235", "6.2&nbsp;%", "411", "600", "3 of 1,203", "87.5&nbsp;%"]
    told += ["300 different ones", "usual</b>: prediction (model other)", ", version 7"]
    for number in told:
        assert number in text
    better = "worse" if "regression" in str(page) else "better"
    assert f"0.0200 {better} than the heuristic" in text
    assert "span 3, 4" in text
    assert "train 77, eval 8, test 0: the query made up a value of each" in text
    assert "went on after an interruption at step 30" in text
    assert EVIL not in text
    assert re.findall("<script.*?>", text) == ['<script type="application/json" id="record">']
    shown = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    for what in (f"<h3>{html.escape(EVIL)}</h3>", f"<li>3: {html.escape(EVIL)}"):
        assert html.unescape(what) in html.unescape(shown)


@pytest.mark.parametrize("low", [0.0, 0.3830971349338168, -7e5])
def test_a_curve_that_is_flat_but_for_rounding_lies_in_the_middle(low: float) -> None:
    axis = charts.scale("auc", [low, np.nextafter(low, np.inf)])
    assert len(axis.ticks) > 2
    assert axis.at(low) == pytest.approx(50, abs=0.1)


def test_a_failed_run_says_which_step_why_and_what_to_do(tmp_path: Path) -> None:
    facts = _facts(tmp_path, "binary")
    facts.outputs = {"ExampleGen": facts.outputs["ExampleGen"]}
    facts.steps = [
        ("ExampleGen", "done", 0.1),
        ("Trainer", "failed", 2.5),
        ("Pusher", "not started", 0),
    ]
    facts.failure, facts.log = f"No disk {EVIL}. Free some: make gc", "logs/1.log"
    page = writing.write_run(facts, Workspace(tmp_path))
    assert page is not None
    text = html.unescape(page.read_text("utf-8"))
    assert "<h1>Trainer failed.</h1>" in text
    assert f"<pre>{facts.failure}</pre>" in text
    assert "logs/1.log" in text and "not started" in text


def test_the_index_has_all_runs_newest_first(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for run_id in ("20261129-120000-000001", "20261130-120000-000001"):
        writing.write_run(_facts(tmp_path, "binary", run_id), workspace)
    text = (tmp_path / "reports" / "index.html").read_text("utf-8")
    assert text.index("2026-11-30 12:00:00") < text.index("2026-11-29 12:00:00")
    assert 'href="small-20261130-120000-000001.html"' in text
    assert "0.9123" in text


def test_a_step_of_a_cluster_leaves_one_file_with_all_in_it_and_the_metrics(tmp_path: Path) -> None:
    facts = _facts(tmp_path, "binary")
    outputs = {name: uri for found in facts.outputs.values() for name, uri in found.items()}
    outputs["transform_graph"] = str(tmp_path)
    page, metrics = step.HTML(), step.Metrics()
    page.uri = str(tmp_path / "page")
    (tmp_path / "page").mkdir()
    inputs = {name: [standard_artifacts.Model()] for name in outputs}
    for name, [artifact] in inputs.items():
        artifact.uri = outputs[name]
    properties = dict.fromkeys(("config_hash", "code", "git_commit", "run_id"), "7")
    properties |= {"registry": str(tmp_path), "config": facts.config.model_dump_json()}
    executor = step.RunPage.EXECUTOR_SPEC.executor_class()
    executor.Do(inputs, {"page": [page], "metrics": [metrics]}, properties)
    text = Path(page.uri).read_text("utf-8")
    assert len(text) < 1_500_000 and "index.html" not in text
    assert metrics.get_float_custom_property("auc") == 0.91234


_CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_draws_the_page_without_a_word_on_its_console(page: Path) -> None:
    command = [str(_CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=20000", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    charts = done.stdout.count('<div class="chart')
    assert charts >= 2 and done.stdout.count(' d="M') > charts


def test_a_gap_between_slices_that_is_too_wide_is_a_limit_that_did_not_hold(tmp_path: Path) -> None:
    page = writing.write_run(_facts(tmp_path, "binary"), Workspace(tmp_path))
    assert page is not None
    assert "not held</span>: gap 0.05 in slices by method" in page.read_text("utf-8")
