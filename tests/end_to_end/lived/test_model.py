"""The exported model of a real run: its signatures, and that training and serving agree."""

import csv
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.features.transform import LABEL
from components.registry import store
from tests import small
from tests.end_to_end.project import Project, Result


@pytest.fixture(scope="module")
def project(lived: tuple[Project, Result]) -> Project:
    """A project after its first run; nothing here changes it."""
    lived[0].restore()
    return lived[0]


@pytest.fixture(scope="module")
def model(project: Project) -> Any:
    return tf.saved_model.load(str(project.registry / "1"))


def _records(project: Project, component: str, output: str, split: str) -> list[bytes]:
    root = project.folder / "workspace" / "pipeline_root" / "small" / component / output
    files = sorted(str(path) for path in root.glob(f"*/Split-{split}/*.gz"))
    return list(tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator())


@pytest.fixture(scope="module")
def raw(project: Project) -> list[bytes]:
    return _records(project, "ExampleGen", "examples", "train")


def _predict(model: Any, examples: list[bytes]) -> np.ndarray:
    return model.signatures["serving_default"](examples=tf.constant(examples))[
        "predictions"
    ].numpy()


def _without(example: bytes, column: str, value: float | None = None) -> bytes:
    message = tf.train.Example.FromString(example)
    del message.features.feature[column]
    if value is not None:
        message.features.feature[column].float_list.value.append(value)
    return message.SerializeToString()


def test_serving_transforms_as_training_did(project: Project, model: Any, raw: list[bytes]) -> None:
    """Raw rows through the exported graph give exactly the materialised training examples."""
    materialised = _records(project, "Transform", "transformed_examples", "train")
    served = model.signatures["transform_features"](examples=tf.constant(raw))
    spec = {name: tf.io.FixedLenFeature([], tensor.dtype) for name, tensor in served.items()}
    trained = tf.io.parse_example(materialised, spec)
    assert len(materialised) == len(raw) > 500
    assert set(trained) >= {"amount", "method", "method_by_range", LABEL}
    as_rows = [_sorted_rows(columns) for columns in (served, trained)]
    np.testing.assert_array_equal(*as_rows)


def _sorted_rows(columns: dict[str, tf.Tensor]) -> np.ndarray:
    table = np.stack([columns[name].numpy().astype(np.float64) for name in sorted(columns)], axis=1)
    return table[np.lexsort(table.T)]


def test_raw_columns_predict_as_serialised_examples_do(
    project: Project, model: Any, raw: list[bytes]
) -> None:
    by_columns = model.signatures["raw"](**_columns(raw))["predictions"]
    np.testing.assert_allclose(by_columns, _predict(model, raw), atol=1e-6)


def test_key_passes_through(model: Any, raw: list[bytes]) -> None:
    keys = [f"row {number}" for number in range(len(raw))]
    answer = model.signatures["keyed"](key=tf.constant(keys), **_columns(raw))
    assert [key.decode() for key in answer["key"].numpy()] == keys
    np.testing.assert_allclose(answer["predictions"], _predict(model, raw), atol=1e-6)


def _columns(examples: list[bytes]) -> dict[str, tf.Tensor]:
    """Dense columns, with each type's mark where a value is missing."""
    kinds: dict[str, tuple[str, Any, tf.DType]] = {
        "amount": ("float_list", float("nan"), tf.float32),
        "weight": ("float_list", float("nan"), tf.float32),
        "hour": ("int64_list", tf.int64.min, tf.int64),
        "shop": ("bytes_list", b"", tf.string),
        "method": ("bytes_list", b"", tf.string),
    }
    parsed = [tf.train.Example.FromString(example).features.feature for example in examples]
    return {
        name: tf.constant(
            [next(iter(getattr(row[name], kind).value), missing) for row in parsed], dtype
        )
        for name, (kind, missing, dtype) in kinds.items()
    }


def test_it_loads_where_nothing_but_tensorflow_is(project: Project) -> None:
    """As TF Serving does: no op of Keras, tf.Transform or another library is needed."""
    code = """
import sys
for name in ("keras", "tf_keras", "tensorflow_transform", "tfx_bsl", "tfx", "pyarrow"):
    sys.modules[name] = None
import tensorflow as tf
row = tf.train.Example()
row.features.feature["hour"].int64_list.value.append(3)
signatures = tf.saved_model.load(sys.argv[1]).signatures
print(signatures["serving_default"](tf.constant([row.SerializeToString()]))["predictions"].shape)
"""
    arguments = [sys.executable, "-c", code, str(project.registry / "1")]
    done = subprocess.run(
        arguments,
        cwd=project.folder,
        env=small.environment_of_a_copy(),
        capture_output=True,
        text=True,
    )
    assert done.stdout == "(1, 1)\n", done.stderr


def test_excluded_columns_do_not_move_a_prediction(model: Any, raw: list[bytes]) -> None:
    changed = [_without(_without(example, "leak", 999.0), "when") for example in raw]
    np.testing.assert_array_equal(_predict(model, changed), _predict(model, raw))
    assert not {"leak", "when", "bought"} & set(
        model.signatures["raw"].structured_input_signature[1]
    )


def test_used_column_moves_predictions(model: Any, raw: list[bytes]) -> None:
    changed = [_without(example, "method") for example in raw]
    assert np.abs(_predict(model, changed) - _predict(model, raw)).max() > 0.05


def test_unknown_category_is_served(model: Any) -> None:
    columns = {"amount": [1.0], "weight": [0.5], "hour": [3], "shop": ["new"], "method": ["gold"]}
    answer = model.signatures["raw"](
        **{
            name: tf.constant(value, tf.int64 if name == "hour" else None)
            for name, value in columns.items()
        }
    )
    assert 0 < float(answer["predictions"][0, 0]) < 1


def test_no_optimizer_state_is_inside(project: Project) -> None:
    prefix = str(project.registry / "1" / "variables" / "variables")
    names = [name for name, _ in tf.train.list_variables(prefix)]
    assert names
    assert not [name for name in names if "optimizer" in name or "momentum" in name]


def test_evaluation_saw_the_test_split_only(project: Project) -> None:
    manifest = project.manifest(1)
    counts = {
        split: len(_records(project, "ExampleGen", "examples", split))
        for split in ("train", "eval", "test")
    }
    assert manifest["rows_by_slice"]["overall"] == counts["test"]
    assert manifest["training"]["rows"] == counts["train"]


def test_splits_hold_every_row_once(project: Project) -> None:
    with (project.folder / "data" / "rows.csv").open() as file:
        stamps = sorted(int(row["when"]) for row in csv.DictReader(file))
    found: list[int] = []
    for split in ("train", "eval", "test"):
        for record in _records(project, "ExampleGen", "examples", split):
            feature = tf.train.Example.FromString(record).features.feature["when"]
            found.append(feature.int64_list.value[0])
    assert sorted(found) == stamps


def test_a_runs_page_says_what_the_manifest_says(project: Project) -> None:
    reports = project.folder / "workspace" / "reports"
    pages = list(reports.glob("small-*.html"))
    assert pages, [log.read_text() for log in project.folder.glob("workspace/logs/*")]
    (page,) = pages
    text = page.read_text("utf-8")
    manifest = store.read_manifest(str(project.registry), 1)
    for place, metrics in manifest["metrics"]["candidate"].items():
        assert f">{place}<" in text
        for name, value in metrics.items():
            assert name in text
            assert value is None or f"{value:.4f}" in text
    for path in ("fingerprint", "config_hash", "code"):
        assert manifest[path][:12] in text
    assert "bucketized (buckets 4" in text
    assert "version 1" in text
    assert page.name in (reports / "index.html").read_text("utf-8")
    assert len(text) < 1_500_000


@pytest.mark.prove
def test_an_ensemble_says_how_sure_it_is(lived: tuple[Project, Result]) -> None:
    project = lived[0]
    project.restore()
    result = project.run(
        "--set=model.members=4",
        "--set=features.columns.amount.scale=quantile",
        "--set=features.columns.amount.missing=own",
    )
    assert result.code == 0, result.output
    root = project.folder / "workspace" / "pipeline_root" / "small" / "Trainer" / "model"
    newest = max(root.iterdir(), key=lambda folder: int(folder.name)) / "Format-Serving"
    model = tf.saved_model.load(str(newest))
    rows = _columns(_records(project, "ExampleGen", "examples", "test"))
    answer = model.signatures["uncertain"](**rows)
    raw = model.signatures["raw"](**rows)
    np.testing.assert_array_equal(answer["predictions"], raw["predictions"])
    assert float(tf.reduce_min(answer["uncertainty"])) > 0
    assert float(tf.reduce_max(answer["uncertainty"])) < 0.5
