"""The Trainer's step, as KFP's launcher starts it."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests import small

Document = dict[str, Any]


@dataclass
class TrainerStep:
    """The step with its inputs and places.

    Attributes:
      described: what the compiler wrote.
      parameters: the values of the executor's properties.
      inputs: the folder of each input artifact.
      outputs: where the outputs go.
      image: the folder that stands for the image.
    """

    described: Document
    parameters: Document
    inputs: dict[str, Path]
    outputs: Path
    image: Path

    def executor_input(self) -> Document:
        """As KFP's driver makes it, but for URIs: these are plain paths."""
        inputs = {
            name: {"artifacts": [{"name": "7", "uri": str(path), "metadata": _metadata(name)}]}
            for name, path in self.inputs.items()
        }
        outputs = {
            name: {"artifacts": [{"name": name, "uri": str(self.outputs / name)}]}
            for name in (*self.described["outputs"], "executor-logs")
        }
        file = str(self.outputs / "output_metadata.json")
        return {
            "inputs": {"artifacts": inputs, "parameterValues": self.parameters},
            "outputs": {"artifacts": outputs, "outputFile": file},
        }

    def alone(self, outputs: Path) -> "TrainerStep":
        """The same step without a TrainJob: its workers are processes of its own machine."""
        plain = {key: value for key, value in self.described.items() if key != "train_job"}
        config = json.loads(self.parameters["custom_config"])
        config["checkpoints"] = str(outputs.with_name("checkpoints"))
        parameters = self.parameters | {"custom_config": json.dumps(config)}
        return replace(self, described=plain, parameters=parameters, outputs=outputs)

    def with_training(self, **settings: Any) -> "TrainerStep":
        """The same step with other settings of the training."""
        config = json.loads(self.parameters["custom_config"])
        config["settings"]["training"] |= settings
        own = {name: value for name, value in settings.items() if name in self.parameters}
        return replace(
            self, parameters=self.parameters | own | {"custom_config": json.dumps(config)}
        )

    def command(self) -> list[str]:
        """What the launcher starts."""
        step, given = json.dumps(self.described), json.dumps(self.executor_input())
        program = [sys.executable, "-m", "pipeline.kubeflow.step"]
        return [*program, "--step", step, "--input", given]

    def start(
        self, kube_config: Path, log: Path, under: tuple[str, ...] = ()
    ) -> "subprocess.Popen[str]":
        """Starts it; what it prints goes to a file. `under` is a program that starts it."""
        kept = {k: v for k, v in small.environment_of_a_copy().items() if k != "TF_CONFIG"}
        pod = {"KFP_POD_NAME": "the-steps-pod", "KFP_POD_UID": "1234"}
        with log.open("a") as output:
            return subprocess.Popen(
                [*under, *self.command()],
                cwd=self.image,
                env=kept | pod | {"KUBECONFIG": str(kube_config)},
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )


def _metadata(name: str) -> Document:
    return {"split_names": '["train", "eval"]'} if name == "examples" else {}
