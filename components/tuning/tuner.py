"""What TFX's Tuner calls: a KerasTuner search whose trials train as the Trainer does."""

import json
import math
import os
from typing import Any

import keras_tuner
import tensorflow_transform as tft
from keras_tuner.engine import base_tuner
from keras_tuner.engine.trial import TrialStatus
from tfx.components.tuner.component import TunerFnResult

from components.errors import PipelineStop
from components.features.model_inputs import model_inputs
from components.features.table import FeatureTable
from components.settings import overlay
from components.trainer.core import data
from components.trainer.core.checkpoints import PROGRESS
from components.trainer.core.loop import Training, TrainingError
from components.trainer.run import decode
from components.tuning.settings import Tuning, Values

ORACLES = {
    "random": keras_tuner.oracles.RandomSearchOracle,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
}


class LoopTuner(base_tuner.BaseTuner):
    """Each trial is a training by `components.trainer.core.loop`, judged on the eval split."""

    def __init__(
        self, tuning: Tuning, settings: dict[str, Any], splits: dict[str, Any], directory: str
    ):
        """Prepares the search.

        Args:
          tuning: what to search, and how.
          settings: `model` and `training` as in `configs/*.yaml`; trials vary them.
          splits: `train`, `held_out` and `inputs` as `Training` takes them.
          directory: a folder for the trials' records.
        """
        self._settings, self._splits = settings, splits
        stopping = settings["training"]["early_stopping"]
        oracle = ORACLES[tuning.algorithm](
            objective=stopping["metric"] if stopping else "loss",
            max_trials=tuning.trials,
            seed=settings["training"]["seed"] + 1,  # KerasTuner takes 0 for no seed
            hyperparameters=search_space(tuning.search),
            max_consecutive_failed_trials=tuning.trials + 1,  # on_search_end has the better words
        )
        super().__init__(oracle, directory=directory, project_name="trials", overwrite=True)

    def run_trial(self, trial: Any, *_: Any, **__: Any) -> dict[str, float]:
        """Trains with the trial's values; returns the objective's metric on the eval split.

        Raises:
          FailedTrialError: the loss or the metric is not a number; the search goes on.
          FatalError: anything else, which KerasTuner would swallow.
        """
        name = f"trial {int(trial.trial_id) + 1} of {self.oracle.max_trials}"
        values = decode(trial.hyperparameters.values)
        metric = self.oracle.objective.name
        try:
            score = self._train(name, values)[metric]
        except TrainingError as error:
            PROGRESS.info("%s: failed with %s: %s", name, values, error)
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        except Exception as error:
            raise keras_tuner.errors.FatalError(f"{name} with {values}: {error}") from error
        PROGRESS.info("%s: eval %s %.4f with %s", name, metric, score, values)
        if not math.isfinite(score):
            raise keras_tuner.errors.FailedTrialError(f"eval {metric} is {score}")
        return {metric: score}

    def _train(self, name: str, values: dict[str, Any]) -> dict[str, float]:
        """The evaluation of the weights that the Trainer would export."""
        training = Training(**self._splits, settings=overlay(self._settings, values))
        training.run(lambda line: PROGRESS.info("%s: %s", name, line))
        return training.evaluate()

    def on_search_end(self) -> None:
        """Checks that there is a winner.

        Raises:
          PipelineStop: no trial succeeded.
        """
        # KerasTuner would name a failed trial the best.
        trials = self.oracle.trials.values()
        if all(trial.status != TrialStatus.COMPLETED for trial in trials):
            raise PipelineStop(
                f"None of the {len(trials)} trials came to a loss that is a number. "
                "Lower the values of training.learning_rate.initial, in tuning.search or in "
                "training, or look for extreme values in the numeric features."
            )


def tuner_fn(fn_args: Any) -> TunerFnResult:
    """Prepares the search.

    Args:
      fn_args: TFX's FnArgs; `custom_config` holds `table` and `settings` as the Trainer's does,
        and `tuning`. Only the files of the train and eval splits are read.
    """
    config = fn_args.custom_config
    table = FeatureTable.model_validate(config["table"])
    inputs = model_inputs(table, tft.TFTransformOutput(fn_args.transform_graph_path))
    memory = config["settings"]["training"]["memory_mib"]
    train_rows, held_out = (
        data.load(files, inputs, memory, os.path.join(fn_args.working_dir, "rows", name))
        for name, files in (("train", fn_args.train_files), ("eval", fn_args.eval_files))
    )
    splits = {"train": train_rows, "held_out": held_out, "inputs": inputs}
    tuning = Tuning.model_validate(config["tuning"])
    tuner = LoopTuner(tuning, config["settings"], splits, fn_args.working_dir)
    return TunerFnResult(tuner=tuner, fit_kwargs={})


def search_space(search: dict[str, Values]) -> Any:
    """KerasTuner's form of the search space."""
    space = keras_tuner.HyperParameters()
    for path, values in search.items():
        if values.choices is not None:
            space.Choice(path, [json.dumps(choice) for choice in values.choices])
        else:
            draw = space.Int if values.integer else space.Float
            low, high = values.extremes()
            draw(path, low, high, sampling="log" if values.log else "linear")
    return space
