"""TFX's own taxi template, from the installed package, with every component on.

Its work stays as it is. What is changed is what its comments tell a user to change, and one thing
that it leaves open:

- The lines `# components.append(...)` lose their comment signs, and a schema file is given, so that
  ImportSchemaGen and ExampleValidator are there (with its SchemaGen nothing is validated).
- Beam's runner is named: the one that Beam falls back to by default. Without a name Beam first
  tries to download another one (Prism), and the time would depend on the network.

TFX packs its own source for each Beam component of the template, about a second each: its default,
so it stays. TensorBoard has to be installed, or the template's Trainer fails.
"""

import importlib.resources
import re
from collections.abc import Callable
from pathlib import Path

from benchmarks import processes

EXAMPLES_SEEN = 1000 * 40
"""Its number of steps by its batch size."""
LABEL = "tips_xf"
"""Of its transformed rows."""
_NAME = "taxi-template"
_BEAM = ["--runner=FnApiRunner", "--direct_running_mode=in_memory"]


def create(folder: Path, data: Path, schema: Path, all_features: bool) -> None:
    """Copies the template as `tfx template copy` does, and switches everything on.

    Args:
      folder: where to; made.
      data: a folder with the rows.
      schema: the schema file.
      all_features: with the twelve features that it suggests, in place of the three that are on.
    """
    source = Path(str(importlib.resources.files("tfx"))) / "experimental/templates/taxi"
    for file in source.rglob("*.py"):
        copy = folder / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = file.read_text().replace("{{PIPELINE_NAME}}", _NAME)
        copy.write_text(text.replace("from tfx.experimental.templates.taxi.", "from "))
    (folder / "data").symlink_to(data)
    _edit(folder / "pipeline/pipeline.py", r"# (?=components\.append\()", "")
    runner = folder / "local_runner.py"
    _edit(runner, "# schema_path=generated_schema_path", f"schema_path={str(schema)!r}")
    _edit(runner, "(?=metadata_connection_config=)", f"beam_pipeline_args={_BEAM}, ")
    if all_features:
        block = r"(?s)(?<=add more features to the model\n).*?(?=# Number of vocabulary terms)"
        _edit(folder / "models/features.py", block, lambda m: re.sub(r"(?m)^# ?", "", m[0]))


def run(folder: Path) -> processes.Timed:
    """Runs the copy as its user does."""
    metadata = folder / "tfx_metadata" / _NAME / "metadata.db"
    return processes.run_pipeline(["local_runner.py"], folder, metadata)


def trained(folder: Path) -> processes.Trained:
    """The model, and the time from the start of Keras's `fit` to its validation.

    Its TensorBoard callback opens a log at either moment, in a folder of its own, which nothing
    touches later.
    """
    (trainer,) = folder.glob("tfx_pipeline_output/*/Trainer")
    (logs,) = trainer.glob("model_run/*")
    seconds = (logs / "validation").stat().st_mtime - (logs / "train").stat().st_mtime
    (model,) = trainer.glob("model/*/Format-Serving")
    return processes.Trained(model, EXAMPLES_SEEN, seconds)


def transformed_examples(folder: Path) -> Path:
    """What the Trainer of a copy that has run reads: Split-train, Split-eval."""
    (found,) = folder.glob("tfx_pipeline_output/*/Transform/transformed_examples/*")
    return found


def transform_graph(folder: Path) -> Path:
    """The output of its Transform."""
    (found,) = folder.glob("tfx_pipeline_output/*/Transform/transform_graph/*")
    return found


def _edit(file: Path, pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> None:
    text, count = re.subn(pattern, replacement, file.read_text())
    if not count:
        raise ValueError(f"{file.name} of TFX's template no longer has: {pattern}")
    file.write_text(text)
