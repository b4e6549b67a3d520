"""`make bench-training`: the training loop beside the template's, its checkpoints, workers, memory.

    python -m benchmarks.training                    # about six minutes
    python -m benchmarks.training --workers          # two workers beside one device, nothing else
    python -m benchmarks.training --rows 10000000    # that many rows from disk, and nothing else

Each training is a process of its own. Input and fit: the template's transformed rows, its batch
size and hidden layers; the template has MirroredStrategy on its one device, ours none.
"""

import argparse
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ingest, template
from benchmarks.measuring import Bench, alone, bench
from pipeline import parts

_BATCH, _ROWS, _STEPS = 256, 100_000, 4000
_TAXI: dict[str, Any] = {"hidden": [64, 32], "dropout": 0.3}
"""As in configs/taxi.yaml."""
_WIDE: dict[str, Any] = {"hidden": [2048, 2048], "dropout": 0.3}
_SIZES: dict[str, int | None] = {f"number_{n}": None for n in range(3)} | {
    f"category_{size}": size for size in (9, 11, 14, 21, 26, 52, 78, 101, 200)
}
_INPUTS: dict[str, Any] = {
    "problem": "binary",
    "label": "label",
    "num_classes": 1,
    "features": [
        {"name": n, "size": s} | ({"embed": None} if s else {}) for n, s in _SIZES.items()
    ],
}
_EMBEDDED = "category_52", "category_101"
"""As the taxi's company and census tract."""
_PART, _DISTINCT_PARTS = 125_000, 8


def main() -> None:
    """Measures and tells."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.training",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--rows", type=int, help="train from disk on that many")
    parser.add_argument("--workers", action="store_true", help="measure two workers alone")
    arguments = parser.parse_args()
    rows: int | None = arguments.rows
    with bench("training") as made:
        data = made.scratch / "rows"
        with made.step("writing rows"):
            write_rows(data, rows or _ROWS)
        if rows:
            _many_rows(made, data, rows)
            return
        if not arguments.workers:
            _beside_template(made)
            _checkpoints(made, data)
        if "multi_worker" in parts.trainers():
            _workers(made)


def _beside_template(made: Bench) -> None:
    copy, rows = made.scratch / "template", made.scratch / "template-rows"
    with made.step("TFX's template, once"):
        ingest.write_rows(made.scratch / "data" / "rows.csv", 15_002)
        template.made_and_run(copy, made.scratch / "data")
        inputs = alone(partial(rows_of_template, copy, rows)).result
    rates: dict[str, list[float]] = {"template": [], "ours": []}
    model = {"hidden": [16, 8]}
    for number in range(3):
        with made.step(f"input and fit, {number + 1} of 3"):
            rates["template"].append(alone(partial(template.input_and_fit, copy, _STEPS)).result)
            options = {"steps": 30_000, "global_batch_size": template.BATCH}
            ours = _progress(made, rows, model, options, inputs)["position"]["evaluations"]
            # Of the second half: nothing is traced or opened then.
            rates["ours"].append(ours[-1]["examples_per_second"])
    middle, own = (sorted(found)[1] for found in rates.values())
    lines = [["input and fit, batch 40", middle, own, own / middle]]
    made.tell("\nexamples/s", "template", "ours", "ratio", rows=lines)
    made.target("input and fit, times the template's", own / middle, 4.0, at_least=True)
    made.figures["input and fit"] = rates


def _checkpoints(made: Bench, data: Path) -> None:
    """What one costs the loop, and how soon a killed training goes on."""
    lines = []
    for name, model in (("taxi", _TAXI), ("wide", _WIDE)):
        with made.step(f"checkpoints, hidden layers {model['hidden']}"):
            seconds = {}
            for every in (None, 20):
                saves = {"every_steps": every, "every_seconds": None}
                options = {"steps": 200, "checkpoints": saves}
                seconds[every] = _progress(made, data, model, options)["seconds"]
            each = (seconds[20] - seconds[None]) / 10
        lines.append([f"{name} model", 1000 * each, f"{each / 30:.3%}"])
        made.target(f"a checkpoint of the {name} model, share of 30 s", each / 30, 0.01)
    made.tell("\na checkpoint", "ms", "share, every 30 s", rows=lines)
    with made.step("a kill, and on"):
        folder = made.scratch / "killed"
        options = {"steps": 20_000, "checkpoints": {"every_steps": 500, "every_seconds": None}}
        began = time.time()
        step = partial(training, folder, data, _TAXI, options, _INPUTS)
        process = multiprocessing.get_context("spawn").Process(target=_whole, args=(step,))
        process.start()
        while not [*folder.glob("checkpoints/*/*/step-*")] and process.is_alive():
            time.sleep(0.01)
        first = time.time() - began
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        resumed = alone(step)
    made.figures["resume"] = {"first checkpoint": first, "rest": resumed.seconds}
    made.tell(
        "\ns",
        "",
        rows=[
            ["from nothing to the first checkpoint, imports included", first],
            ["the killed training's rest, imports left out", resumed.seconds],
        ],
    )


def _workers(made: Bench) -> None:
    """Two workers on this machine beside one device, in turns."""
    data, lines = made.scratch / "rows-for-workers", []
    write_rows(data, _ROWS, held_out=1000)
    columns = [f | {"embed": 8 if f["name"] in _EMBEDDED else None} for f in _INPUTS["features"]]
    inputs = _INPUTS | {"features": columns}
    strategies = {"one_device": 1, "multi_worker": 2}
    for name, model, batch, steps, least in (
        ("taxi", _TAXI, _BATCH, (12_000, 4000), 0.35),
        ("wide", _WIDE, 1024, (40, 40), 0.8),
    ):
        found: dict[str, list[float]] = {"one_device": [], "multi_worker": []}
        for number in range(2):
            for (strategy, workers), count in zip(strategies.items(), steps, strict=True):
                options = {"strategy": strategy, "steps": count, "global_batch_size": batch}
                options |= {"workers": workers} if workers > 1 else {}
                with made.step(f"{name} model, workers: {workers}, {number + 1} of 2"):
                    progress = _progress(made, data, model, options, inputs)
                found[strategy].append(_rate(progress["position"]["evaluations"], batch))
        one, two = (max(rates) for rates in found.values())
        lines.append([f"{name} model, batch {batch}", one, two, two / one])
        made.target(f"two workers' share of one device, {name}", two / one, least, at_least=True)
        made.figures[f"workers, {name}"] = found
    made.tell("\nexamples/s", "one device", "two workers", "ratio", rows=lines)


def _rate(evaluations: list[dict[str, float]], batch: int) -> float:
    """Examples/s between the last two evaluations: nothing is traced or opened then."""
    (rows, then), (last_rows, now) = (
        (e["step"] * batch, e["step"] * batch / e["examples_per_second"]) for e in evaluations[-2:]
    )
    return (last_rows - rows) / (now - then)


def _whole(step: Callable[[], Callable[[], Any]]) -> None:
    step()()


def _many_rows(made: Bench, data: Path, rows: int) -> None:
    with made.step(f"{rows:,} rows, one pass"):
        step = partial(training, _fresh(made), data, _TAXI, {"epochs": 1}, _INPUTS)
        found = alone(step)
    above = found.above_start / 2**20
    lines = [["s", found.seconds], ["s in steps", found.result["seconds"]], ["MiB", above]]
    made.tell(f"\n{rows:,} rows", "", rows=lines)
    made.target("memory above start-up, GiB", above / 1024, 2.0)
    made.figures["many rows"] = found._asdict()


def _progress(
    made: Bench,
    data: Path,
    model: dict[str, Any],
    options: dict[str, Any],
    inputs: dict[str, Any] = _INPUTS,
) -> dict[str, Any]:
    found: dict[str, Any] = alone(
        partial(training, _fresh(made), data, model, options, inputs)
    ).result
    return found


def _fresh(made: Bench) -> Path:
    return made.scratch / f"training-{time.time_ns()}"


def training(
    folder: Path,
    data: Path,
    model: dict[str, Any],
    options: dict[str, Any],
    inputs: dict[str, Any],
) -> Callable[[], dict[str, Any]]:
    """Ready to train, and to give the last checkpoint's progress.

    Args:
      folder: For checkpoints and curves.
      data: `train*` and `eval*` in it are the examples.
      model: Settings that differ from a plain network's.
      options: Settings of the training; `steps`, `global_batch_size` and others.
      inputs: The feature spec.
    """
    from components.trainer.core import job as jobs
    from pipeline.config import Model, training_model

    plain: dict[str, Any] = {
        "seed": 1,
        "global_batch_size": _BATCH,
        "learning_rate": {"initial": 0.001},
        "evaluate_every_steps": max(1, options.get("steps", 2 * _STEPS) // 2),
        "strategy": "one_device",
        "checkpoints": {"every_seconds": None},
    }
    settings = {
        "model": Model.model_validate(model).model_dump(mode="json"),
        "training": training_model().model_validate(plain | options).model_dump(mode="json"),
    }
    job = jobs.Job(
        pipeline="benchmark",
        train_files=[str(data / "train*")],
        eval_files=[str(data / "eval*")],
        inputs=inputs,
        settings=settings,
        checkpoints=str(folder / "checkpoints"),
        identity={"settings": settings},
        log_dir=str(folder / "tensorboard"),
    )
    if settings["training"]["strategy"] == "multi_worker":
        from components.multi_worker.run import train_group

        return lambda: train_group(job).progress
    return lambda: jobs.train(job).progress


def write_rows(folder: Path, rows: int, held_out: int = 20_000) -> None:
    """Writes `train-*` with `rows` made-up rows and `eval` with others, as Transform writes them.

    Up to a million rows differ; more are those again, copied as they are compressed.
    """
    folder.mkdir(parents=True)
    whole, rest = divmod(rows, _PART)
    pieces = [(folder / f"part-{n}", _PART, n) for n in range(min(whole, _DISTINCT_PARTS))]
    pieces += [(folder / "train-rest", rest, 98)] if rest else []
    with multiprocessing.get_context("spawn").Pool() as pool:
        pool.starmap(_write_part, [*pieces, (folder / "eval", held_out, 99)])
    for number in range(whole):
        shutil.copy(folder / f"part-{number % _DISTINCT_PARTS}", folder / f"train-{number:05d}")
    for path in folder.glob("part-*"):
        path.unlink()


def _write_part(path: Path, rows: int, seed: int) -> None:
    import numpy as np
    import tensorflow as tf

    random = np.random.default_rng(seed)
    options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for score in random.normal(size=rows):
            example = tf.train.Example()
            feature = example.features.feature
            for name, size in _SIZES.items():
                if size:
                    feature[name].int64_list.value.append(random.integers(size))
                else:
                    feature[name].float_list.value.append(score + random.normal())
            feature["label"].float_list.value.append(float(score > 0.5))
            writer.write(example.SerializeToString())


def rows_of_template(copy: Path, folder: Path) -> Callable[[], dict[str, Any]]:
    """Ready to write the transformed rows of a copy of the template as ours are, and their spec."""
    import tensorflow as tf

    def work() -> dict[str, Any]:
        folder.mkdir()
        sizes: dict[str, int | None] = {}
        for split in ("train", "eval"):
            rows = template.transformed_examples(copy) / f"Split-{split}"
            records = tf.data.TFRecordDataset([str(f) for f in rows.iterdir()], "GZIP")
            options = tf.io.TFRecordOptions(compression_type="GZIP")
            with tf.io.TFRecordWriter(str(folder / split), options) as writer:
                for record in records.as_numpy_iterator():
                    example = tf.train.Example.FromString(record)
                    feature = example.features.feature
                    label = feature[template.LABEL]
                    label.float_list.value.append(label.int64_list.value[0])
                    writer.write(example.SerializeToString())
                    for name in feature:
                        ids = feature[name].int64_list.value
                        sizes[name] = max(sizes.get(name) or 0, ids[0] + 1) if ids else None
        del sizes[template.LABEL]
        features = [
            {"name": name, "size": size} | ({"embed": None} if size else {})
            for name, size in sorted(sizes.items())
        ]
        return _INPUTS | {"label": template.LABEL, "features": features}

    return work


if __name__ == "__main__":
    main()
