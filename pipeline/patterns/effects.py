"""What each pattern is about, measured: a run of its configuration, and one without its setting.

`python -m pipeline patterns --prove` runs all thirty and writes what was seen into the heads of
their files. Tests ask the same: with the setting the effect is there, without it is not.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import loading

CONFIGS = loading.PROJECT / "configs"
NOT_BLESSED = 3


class Run:
    """A configuration that was run in a workspace of its own."""

    def __init__(self, config: str, sets: tuple[str, ...], workspace: Path):
        """Takes what is run, and where."""
        self.config, self.workspace = config, workspace
        self.sets = (*sets, f"workspace={workspace}")
        self.settings = loading.load(config, self.sets, CONFIGS)

    def command(self, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Runs a command of the project on it."""
        words = [sys.executable, "-m", "pipeline", name, "--config", self.config]
        words += [word for one in self.sets for word in ("--set", one)]
        return subprocess.run(
            [*words, *arguments],
            cwd=loading.PROJECT,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    @cached_property
    def done(self) -> "subprocess.CompletedProcess[str]":
        """The run itself; a model that is not blessed is an end like another."""
        started = time.monotonic()
        done = self.command("run")
        self.seconds = time.monotonic() - started
        if done.returncode not in (0, NOT_BLESSED):
            raise RuntimeError(
                f"{self.config} ended with {done.returncode}:\n{done.stdout[-2000:]}"
            )
        return done

    def artifact(self, component: str, output: str) -> Path:
        """The newest output of a component."""
        _ = self.done
        root = self.workspace / "pipeline_root" / self.settings.name / component / output
        return max(root.iterdir(), key=lambda path: int(path.name))

    @cached_property
    def results(self) -> dict[str, Any]:
        """What the Evaluator found."""
        path = self.artifact("Evaluator", "evaluation") / "metrics.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def metric(self, name: str, place: str = "overall") -> float:
        """A metric of the model, of all test rows or a slice."""
        return float(self.results["metrics"]["candidate"][place][name])

    @cached_property
    def training(self) -> dict[str, Any]:
        """What the Trainer recorded."""
        path = self.artifact("Trainer", "model") / "Format-Serving" / ".." / "training.json"
        found: dict[str, Any] = json.loads(path.resolve().read_text())
        return found

    @cached_property
    def model(self) -> Any:
        """The SavedModel."""
        import tensorflow as tf

        return tf.saved_model.load(str(self.artifact("Trainer", "model") / "Format-Serving"))

    def examples(self, split: str = "test") -> Any:
        """A split's serialised tf.Examples, string [n]."""
        import tensorflow as tf

        folder = self.artifact("ExampleGen", "examples") / f"Split-{split}"
        files = sorted(map(str, folder.glob("*.gz")))
        return next(iter(tf.data.TFRecordDataset(files, "GZIP").batch(100_000)))

    def columns(self, split: str = "test", *names: str) -> dict[str, np.ndarray]:
        """Raw columns of a split, with what stands for a missing value."""
        import tensorflow as tf

        from components.features.missing import MISSING
        from components.registry.signature import column_types
        from pipeline.schema import read_schema

        types = column_types(read_schema(loading.PROJECT / self.settings.schema_file))
        dtypes = {"BYTES": tf.string, "INT": tf.int64, "FLOAT": tf.float32}
        wanted = names or tuple(self.settings.features.raw_columns())
        spec = {
            name: tf.io.FixedLenFeature([], dtypes[types[name]], MISSING[types[name]])
            for name in wanted
        }
        parsed = tf.io.parse_example(self.examples(split), spec)
        return {name: value.numpy() for name, value in parsed.items()}

    def call(self, signature: str, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A signature's outputs for raw columns."""
        import tensorflow as tf

        from components.features.names import safe_names

        function = self.model.signatures[signature]
        safe = safe_names(self.settings.features.raw_columns())
        given = {safe[name]: tf.constant(columns[name]) for name in safe}
        return {name: value.numpy() for name, value in function(**given).items()}


def _environment() -> dict[str, str]:
    return {**os.environ, "PIPELINE_CONFIGS": str(CONFIGS)}


Judge = Callable[[Run, Run], tuple[bool, str]]


@dataclass(frozen=True)
class Effect:
    """What a pattern is about."""

    judge: Judge
    """Whether it is there, by a run with the setting and one without; and what was seen."""
    without: tuple[str, ...] = ()
    """`--set` overrides that take the setting out; none where it cannot be taken out."""
    against: str | None = None
    """Another configuration that is the one without."""
    sets: tuple[str, ...] = ()
    """Overrides that the run with the setting has, where a part brings it."""


def better(name: str, by: float = 0.0, lower: bool = False) -> Judge:
    """A metric is better than without."""

    def judge(run: Run, without: Run) -> tuple[bool, str]:
        own, other = run.metric(name), without.metric(name)
        gain = other - own if lower else own - other
        return gain > by, f"{name} {own:.4g}, without {other:.4g}"

    return judge


def _hashed(run: Run, without: Run) -> tuple[bool, str]:
    listed, other = (len(_vocabulary(one, "company")) for one in (run, without))
    aucs = f"AUC {run.metric('auc'):.4f}, with a list {without.metric('auc'):.4f}"
    return listed < other, f"no list of companies, instead of one of {other}; {aucs}"


def _vocabulary(run: Run, name: str) -> list[str]:
    files = [*run.artifact("Transform", "transform_graph").rglob(f"assets/{name}*")]
    return files[0].read_text().splitlines() if files else []


def _embeddings(run: Run, without: Run) -> tuple[bool, str]:
    own, other = (_inputs(one) for one in (run, without))
    aucs = f"AUC {run.metric('auc'):.4f}, without {without.metric('auc'):.4f}"
    return own < other, f"{own} inputs of the first layer, without {other}; {aucs}"


def _inputs(run: Run) -> int:
    return int(run.model.weights["hidden_0/kernel"].shape[0])


def _reframing(run: Run, without: Run) -> tuple[bool, str]:
    crps, other = run.metric("crps"), without.metric("crps")
    if "distribution" not in run.model.signatures:
        return False, "no distribution"
    made = run.call("distribution", run.columns())["quantiles"]
    price = run.columns("test", "price")["price"]
    within = float(((price >= made[:, 0]) & (price <= made[:, -1])).mean())
    words = f"CRPS {crps:.4g}, of the number alone {other:.4g}; RMSE {run.metric('rmse'):.4g} and "
    words += f"{without.metric('rmse'):.4g}; {within:.0%} lie between the quantiles 0.05 and 0.95"
    return crps < other and 0.85 <= within <= 0.97, words


def _multilabel(run: Run, without: Run) -> tuple[bool, str]:
    classes = [place for place in run.results["rows"] if place.startswith("label=")]
    words = f"{len(classes)} classes at once, AUC {run.metric('auc'):.4f} over all pairs"
    return len(classes) > 1 and run.metric("auc") > 0.8, words


def _ensembles(run: Run, without: Run) -> tuple[bool, str]:
    if "uncertain" not in run.model.signatures:
        return False, "no uncertainty"
    found = run.call("uncertain", run.columns())
    price = run.columns("test", "price")["price"]
    wrong = np.abs(found["predictions"][:, 0] - price)
    goes = float(np.corrcoef(found["uncertainty"][:, 0], wrong)[0, 1])
    own, other = run.metric("rmse"), without.metric("rmse")
    words = (
        f"RMSE {own:.4g}, of one member {other:.4g}; uncertainty and error go together ({goes:.2f})"
    )
    return own < other and goes > 0.3, words


def _cascade(run: Run, without: Run) -> tuple[bool, str]:
    named = run.training["cascade"]
    pinned = named.get("is_documentary", {}).get("version")
    better_, words = better("rmse", lower=True)(run, without)
    return better_ and pinned == 1, f"{words}; version {pinned} of movies is inside"


def _neutral(run: Run, without: Run) -> tuple[bool, str]:
    columns = run.columns()
    sure = run.call("raw", columns)["predictions"].argmax(axis=1) if _classes(run) > 2 else None
    if sure is None:
        return False, f"accuracy {without.metric('accuracy'):.4f} on all rows"
    tips, fare = (run.columns("test", name)[name] for name in ("tips", "fare"))
    is_big = tips > 0.2 * fare
    kept = sure != 1
    right = float((is_big[kept] == (sure[kept] == 2)).mean())
    other = without.metric("accuracy")
    words = f"accuracy {right:.4f} on the {kept.mean():.0%} that are answered; {other:.4f} on all"
    return right > other, words


def _classes(run: Run) -> int:
    return len(run.settings.features.label.classes or ())


def _rebalancing(run: Run, without: Run) -> tuple[bool, str]:
    rows, others = (one.training["rows"] for one in (run, without))
    calibration, auc = run.metric("calibration"), run.metric("auc")
    words = f"{rows:,} training rows instead of {others:,}; AUC {auc:.4f} and "
    words += f"{without.metric('auc'):.4f}; mean prediction by mean label {calibration:.2f}"
    is_good = auc > without.metric("auc") - 0.02 and 0.75 < calibration < 1.33
    return rows < 0.5 * others and is_good, words


def _overfitting(run: Run, without: Run) -> tuple[bool, str]:
    own, other = (one.training["evaluations"][-1]["train_loss"] for one in (run, without))
    return own < 0.05, f"training loss {own:.4f}; with dropout and few steps {other:.4f}"


def _checkpoints(run: Run, without: Run) -> tuple[bool, str]:
    steps = [_resumed(one) for one in (run, without)]
    return steps[0] > 0, f"killed, it went on at step {steps[0]}; without, at step {steps[1]}"


def _resumed(run: Run) -> int:
    """Kills the run in its training, and runs it again; the step that it goes on at."""
    if "resumed" not in vars(run):
        words = [sys.executable, "-m", "pipeline", "run", "--config", run.config]
        words += [word for one in run.sets for word in ("--set", one)]
        process = subprocess.Popen(
            words,
            cwd=loading.PROJECT,
            env=_environment(),
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        trains, until = False, time.monotonic() + 300
        while not trains and process.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
            logs = [path.read_text(errors="replace") for path in run.workspace.glob("logs/*.log")]
            trains = any("step 500 of" in text for text in logs)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        match = re.search(r"goes on at step ([\d,]+)", run.done.stdout)
        vars(run)["resumed"] = int(match[1].replace(",", "")) if match else 0
    return int(vars(run)["resumed"])


def _distribution(run: Run, without: Run) -> tuple[bool, str]:
    own, other = run.metric("rmse"), without.metric("rmse")
    words = f"{run.training['replicas']} replicas, RMSE {own:.5g}; one device {other:.5g}"
    return run.training["replicas"] == 2 and abs(own - other) < 0.01 * other, words


def _tuning(run: Run, without: Run) -> tuple[bool, str]:
    rates = [
        one.training["hyperparameters"]["training"]["learning_rate"]["initial"]
        for one in (run, without)
    ]
    own, other = run.metric("rmse"), without.metric("rmse")
    words = f"rate {rates[0]:.4g} instead of {rates[1]:.4g}: RMSE {own:.4g} and {other:.4g}"
    return own < other and rates[0] != rates[1], words


def _stateless(run: Run, without: Run) -> tuple[bool, str]:
    model = run.artifact("Trainer", "model") / "Format-Serving"
    code = "import sys, tensorflow as tf; m = tf.saved_model.load(sys.argv[1]); "
    code += "print(sorted(m.signatures)); assert 'tensorflow_transform' not in sys.modules"
    alone = subprocess.run(
        [sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=False
    )
    import tensorflow as tf

    rows = run.examples()
    whole = run.model.signatures["serving_default"](tf.constant(rows))["predictions"].numpy()
    same = np.allclose(whole, run.call("raw", run.columns())["predictions"], atol=1e-6)
    words = f"{len(whole):,} rows answered alike by column and as tf.Examples, by TensorFlow alone"
    return alone.returncode == 0 and bool(same), words


def _batch(run: Run, without: Run) -> tuple[bool, str]:
    import pyarrow.parquet as pq

    _ = run.done
    data = loading.data_folder(run.settings)
    out = run.workspace / "predicted"
    done = run.command(
        "batch-predict", "--input", str(data), "--output", str(out), "--version", "1"
    )
    made = pq.read_table(out / "predictions") if done.returncode == 0 else None
    rows = pq.read_table(next(data.glob("*.parquet"))).num_rows
    once = made is not None and len(set(made["key"].to_pylist())) == rows == made.num_rows
    return once, f"{rows:,} rows, each once"


def _continued(run: Run, without: Run) -> tuple[bool, str]:
    _ = run.done
    sets = [one for one in run.sets if not one.startswith("data.spans")]
    fresh = Run(run.config, (*sets[:-1], "data.spans=newest"), run.workspace)
    told = fresh.command("continued-evaluation", "--span", "5")
    words = re.findall(r"^.*(?:keep|retrain|roll_back|investigate).*$", told.stdout, re.M)
    return bool(words) and told.returncode == 0, (words or [told.stdout[-200:]])[0].strip()


def _two_phase(run: Run, without: Run) -> tuple[bool, str]:
    facts = run.training.get("first_phase")
    if not facts:
        return False, "no small model"
    words = f"{facts['answered']:.0%} answered by {facts['bytes']:,} bytes in "
    words += (
        f"{facts['microseconds']:.0f} us a row, {facts['accuracy']:.3f} of them right (the full "
    )
    words += f"model: {facts['full_accuracy']:.3f}); {1 - facts['answered']:.0%} escalate"
    return facts["answered"] > 0.2 and facts["accuracy"] >= 0.97, words


def _keyed(run: Run, without: Run) -> tuple[bool, str]:
    import tensorflow as tf

    from components.features.names import safe_names

    columns = run.columns()
    safe = safe_names(run.settings.features.raw_columns())
    order = np.random.default_rng(0).permutation(len(next(iter(columns.values()))))
    keys = np.array([f"row-{n}".encode() for n in range(len(order))], object)
    given = {safe[name]: tf.constant(columns[name][order]) for name in safe}
    answer = run.model.signatures["keyed"](key=tf.constant(keys[order]), **given)
    back = dict(zip(answer["key"].numpy(), answer["predictions"].numpy()[:, 0], strict=True))
    plain = run.call("raw", columns)["predictions"][:, 0]
    same = np.allclose([back[key] for key in keys], plain, atol=1e-6)
    return bool(same), f"{len(keys):,} shuffled rows, each answer with its own key"


def _transform(run: Run, without: Run) -> tuple[bool, str]:
    import tensorflow as tf

    rows = tf.constant(run.examples())
    inside = run.model.signatures["transform_features"](rows)
    folder = run.artifact("Transform", "transformed_examples") / "Split-eval"
    spec = {
        name: tf.io.FixedLenFeature(value.shape[1:], value.dtype) for name, value in inside.items()
    }
    files = sorted(map(str, folder.glob("*.gz")))
    made = tf.io.parse_example(
        next(iter(tf.data.TFRecordDataset(files, "GZIP").batch(100_000))), spec
    )
    served = run.model.signatures["transform_features"](tf.constant(run.examples("eval")))
    gaps = [_far(made[name].numpy(), served[name].numpy()) for name in spec]
    return max(gaps) == 0.0, f"{len(spec)} features of the eval rows, the same in the export"


def _far(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(np.sort(one.ravel()) - np.sort(other.ravel())).max())


def _splitting(run: Run, without: Run) -> tuple[bool, str]:
    both = []
    for one in (run, without):
        train, test = (set(one.columns(s, "title")["title"]) for s in ("train", "test"))
        both.append(len(train & test))
    return both[0] == 0 < both[1] or both[0] < both[1], (
        f"{both[0]} titles on both sides of the split; divided by row {both[1]}"
    )


def _bridged(run: Run, without: Run) -> tuple[bool, str]:
    count = int(run.columns("train", "bridged")["bridged"].sum()) if run is not without else 0
    tested = int(run.columns("test", "bridged")["bridged"].sum()) if run is not without else 0
    own, other = run.metric("rmse"), without.metric("rmse")
    words = f"{count:,} bridged rows train, {tested} test; RMSE {own:.4g}, without them {other:.4g}"
    return count > 0 and tested == 0, words


def _workflow(run: Run, without: Run) -> tuple[bool, str]:
    _ = run.done
    again = run.command("run").stdout
    cached = len(re.findall(r"\bcached\b +[\d.]+ s", again))
    return cached >= 8, f"typed again, {cached} components are not computed"


def _versioning(run: Run, without: Run) -> tuple[bool, str]:
    _ = run.done
    second = Run(run.config, (*run.sets[:-1], "training.seed=7"), run.workspace)
    _ = second.done
    told = [_versions(run, name) for name in ("list", "rollback", "list")]
    return "champion" in told[0] and told[0] != told[2], "two versions; rolled back to the first"


def _versions(run: Run, name: str) -> str:
    words = [sys.executable, "-m", "pipeline", "versions", name, "--config", run.config]
    words += [word for one in run.sets for word in ("--set", one)]
    return subprocess.run(
        words,
        cwd=loading.PROJECT,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    ).stdout


def _heuristic(run: Run, without: Run) -> tuple[bool, str]:
    rule = run.results["metrics"]["heuristic"]["overall"]["auc"]
    refused, passed = (one.done.returncode == NOT_BLESSED for one in (run, without))
    words = f"AUC {run.metric('auc'):.4f} against the rule's {rule:.4f}: not blessed"
    return refused and not (run is not without and passed), words


def _explain(run: Run, without: Run) -> tuple[bool, str]:
    if "explain" not in run.model.signatures:
        return False, "no explanations"
    found = run.call("explain", run.columns())
    total = found["attributions"].sum(axis=1) + found["baseline"][:, 0]
    gap = float(np.abs(total - found["predictions"][:, 0]).max())
    sizes = np.abs(found["attributions"]).mean(axis=0)
    first = sorted(run.settings.features.raw_columns())[int(sizes.argmax())]
    return gap < 1e-4, f"'{first}' moves most; parts add up to the prediction within {gap:.0e}"


def _fairness(run: Run, without: Run) -> tuple[bool, str]:
    refused, passed = (one.done.returncode == NOT_BLESSED for one in (run, without))
    places = [f"race={race}" for race in ("black", "white")]
    black, white = (run.metric("auc", place) for place in places)
    changed = run.results.get("what_if", {}).get("race", {"changed": 0, "by": 0})
    words = f"AUC {black:.3f} and {white:.3f} by race: not blessed; with another race "
    words += f"{changed['changed']:.1%} of the answers change, a probability by {changed['by']:.3f}"
    return refused and not (run is not without and passed), words


def _feature_store(run: Run, without: Run) -> tuple[bool, str]:
    _ = run.done
    told = run.command("predict", '{"storm": "Ian 2022"}', "--version", "1")
    if told.returncode:
        return False, told.stderr[-200:]
    [answer] = json.loads(told.stdout)["predictions"]
    rule = run.results["metrics"]["heuristic"]["overall"]["rmse"]
    words = (
        f"RMSE {run.metric('rmse'):.4g}, of the rule {rule:.4g}; asked for a storm's name alone, "
    )
    return True, words + f"it answers {answer[0]:.1f} knots"


def _windowed(run: Run, without: Run) -> tuple[bool, str]:
    return better("rmse", lower=True)(run, without)


EFFECTS: dict[int, Effect] = {
    1: Effect(_hashed, ("features.columns.company={kind: vocabulary, missing: own}",)),
    2: Effect(
        _embeddings,
        (
            "features.columns.pickup_community_area.embed=null",
            "features.columns.dropoff_community_area.embed=null",
        ),
    ),
    3: Effect(better("rmse", lower=True), ("features.crosses.clarity_by_carat=null",)),
    4: Effect(better("auc"), ("features.columns.title=null", "features.exclude.title=text")),
    5: Effect(_reframing, ("model.buckets=null",)),
    6: Effect(_multilabel, against="tables/movies"),
    7: Effect(_ensembles, ("model.members=1",)),
    8: Effect(
        _cascade,
        (
            "features.columns.is_documentary=null",
            "features.exclude.year=choice",
            "features.exclude.votes=choice",
        ),
    ),
    9: Effect(_neutral, against="patterns/21-transform"),
    10: Effect(_rebalancing, ("training.rebalance=null",)),
    11: Effect(_overfitting, ("model.dropout=0.5", "training.epochs=5")),
    12: Effect(
        _checkpoints,
        ("training.checkpoints.every_steps=null", "training.checkpoints.every_seconds=null"),
    ),
    13: Effect(better("categorical_accuracy"), ("features.columns.image.pretrained=null",)),
    14: Effect(
        _distribution,
        ("training.strategy=one_device",),
        sets=("training.strategy=multi_worker", "training.workers=2"),
    ),
    15: Effect(_tuning, ("tuning=null",)),
    16: Effect(_stateless),
    17: Effect(_batch),
    18: Effect(_continued),
    19: Effect(_two_phase, ("model.first_phase=null",)),
    20: Effect(_keyed),
    21: Effect(_transform),
    22: Effect(_splitting, ("data.split.by=row", "data.split.key=[]")),
    23: Effect(_bridged, against="tables/storms"),
    24: Effect(
        _windowed,
        ("features.columns.recent_wind=null", "features.exclude.recent_wind=choice"),
    ),
    25: Effect(_workflow),
    26: Effect(_feature_store),
    27: Effect(_versioning),
    28: Effect(_heuristic, ("evaluation.thresholds=[{metric: auc, at_least: 0.3}]",)),
    29: Effect(_explain, ("model.explain=false",)),
    30: Effect(_fairness, ("evaluation.thresholds=[{metric: auc, at_least: 0.5}]",)),
}
"""By the pattern's number in the book."""


def files() -> dict[int, Path]:
    """The configurations by number."""
    return {
        int(path.name[:2]): path
        for path in sorted((CONFIGS / "patterns").glob("[0-9][0-9]-*.yaml"))
    }


def runs(number: int, workspace: Path) -> tuple[Run, Run]:
    """The run with the setting, and the one without; the same one where it is always on."""
    effect, name = EFFECTS[number], f"patterns/{files()[number].stem}"
    run = Run(name, effect.sets, workspace / "with")
    if not (effect.without or effect.against):
        return run, run
    return run, Run(effect.against or name, effect.without, workspace / "without")


def shown(number: int, workspace: Path) -> tuple[bool, str]:
    """Whether a pattern's effect is there with its setting and not without; and what was seen."""
    run, without = runs(number, workspace)
    judge = EFFECTS[number].judge
    there, words = judge(run, without)
    if there and without is not run and judge(without, without)[0]:
        return False, f"without the setting it is there, too: {words}"
    _ = run.done
    return there, f"{words} ({run.seconds:.0f} s)"
