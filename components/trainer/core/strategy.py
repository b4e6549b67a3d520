"""The one place that turns a name into a strategy (Distribution Strategy, pattern 14).

Parameter servers are left out: their updates are asynchronous, so a training could neither be
repeated nor gone on with exactly.
"""

import contextlib
import json
import os
import socket
from typing import Any
from urllib.parse import urlsplit

import keras
import tensorflow as tf


class StrategyError(Exception):
    """This machine cannot do what is asked; the message says what was found and what to set."""


def check(options: dict[str, Any]) -> None:
    """Says at once what this machine lacks, without starting anything.

    Args:
      options: `training` as in `configs/*.yaml`.

    Raises:
      StrategyError: this machine or its environment does not have what the strategy needs.
    """
    name = options["strategy"]
    if name == "multi_worker":
        _check_cluster(options)
        return
    if cluster_size() > 1:
        raise StrategyError(
            f"TF_CONFIG names {cluster_size()} workers, but training.strategy is '{name}': each "
            "would train a model of its own. Unset TF_CONFIG"
            ", or set training.strategy=multi_worker"
            "."
        )
    if name == "mirrored":
        _copies()


def _check_cluster(options: dict[str, Any]) -> None:
    tasks = cluster()
    if not tasks and not options["workers"]:
        raise StrategyError(
            "training.strategy is 'multi_worker', but there is neither TF_CONFIG nor "
            "training.workers. Set training.workers to start so many processes on this machine, or "
            f"TF_CONFIG in each machine of a cluster: {_EXAMPLE}."
        )
    if unknown := sorted(set(tasks) - {"chief", "worker"}):
        raise StrategyError(
            f"TF_CONFIG names tasks of type {', '.join(unknown)}; only 'chief' and 'worker' can "
            "train synchronously. Parameter servers and evaluators are not supported."
        )


def create(options: dict[str, Any]) -> tf.distribute.Strategy:
    """Makes the strategy; call it before anything else of TensorFlow runs.

    Args:
      options: `training` as in `configs/*.yaml`.

    Raises:
      StrategyError: this machine or its environment does not have what the strategy needs.
    """
    check(options)
    made: tf.distribute.Strategy = _STRATEGIES[options["strategy"]](options)
    return made


def _auto(options: dict[str, Any]) -> tf.distribute.Strategy:
    """All GPUs if there are several; otherwise the one device that TensorFlow takes by itself."""
    several = len(tf.config.list_physical_devices("GPU")) > 1
    return _mirrored(options) if several else tf.distribute.get_strategy()


def _one_device(options: dict[str, Any]) -> tf.distribute.Strategy:
    return tf.distribute.get_strategy()


def _mirrored(options: dict[str, Any]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(_copies())


def _copies() -> list[str]:
    """The devices that each hold a copy of the model: GPUs, or several logical CPUs."""
    gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
    cpus = [device.name for device in tf.config.list_logical_devices("CPU")]
    if not gpus and len(cpus) < 2:
        raise StrategyError(
            "training.strategy is 'mirrored', which copies the model to several GPUs, but "
            f"TensorFlow finds {len(gpus)} GPUs and {len(cpus)} CPU device here. Set "
            "training.strategy=auto"
            ", or multi_worker to use several processes"
            "."
        )
    return gpus or cpus


def _multi_worker(options: dict[str, Any]) -> tf.distribute.Strategy:
    return tf.distribute.MultiWorkerMirroredStrategy()


def _tpu(options: dict[str, Any]) -> tf.distribute.Strategy:
    tpu = options["tpu"] or {"name": "local", "zone": None, "project": None}
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            tpu["name"], zone=tpu["zone"], project=tpu["project"]
        )
        if tpu["name"] != "local":
            _knock(resolver.master())
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except Exception as error:  # of its kinds, most are not public
        raise StrategyError(
            f"training.strategy is 'tpu', but the TPU '{tpu['name']}' cannot be found or reached "
            f"({type(error).__name__}: {str(error)[:200]}). On a TPU VM leave training.tpu.name at "
            "'local'; from elsewhere set training.tpu.name, zone and project. Without a TPU, set "
            "training.strategy=auto."
        ) from error


def _knock(master: str) -> None:
    """Connects once; TensorFlow itself would wait for an address that is dead without an end."""
    address = urlsplit(master)
    with socket.create_connection((address.hostname, address.port), _SECONDS_TO_REACH):
        pass


_SECONDS_TO_REACH = 20.0
_EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
)
_STRATEGIES = {
    "auto": _auto,
    "one_device": _one_device,
    "mirrored": _mirrored,
    "multi_worker": _multi_worker,
    "tpu": _tpu,
}


def _tf_config() -> dict[str, Any]:
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        found = json.loads(text)
        if isinstance(found, dict) and _is_complete(found):
            return found
    except ValueError:
        pass
    raise StrategyError(
        f"TF_CONFIG is not what TensorFlow expects: {text[:200]!r}. Expected JSON: {_EXAMPLE}."
    )


def _is_complete(found: dict[str, Any]) -> bool:
    tasks, task = found.get("cluster", {}), found.get("task", {})
    return (
        isinstance(tasks, dict)
        and all(isinstance(addresses, list) for addresses in tasks.values())
        and isinstance(task, dict)
        and str(task.get("index", 0)).isdecimal()
    )


def cluster() -> dict[str, list[str]]:
    """The addresses by type of task, from TF_CONFIG; empty without one.

    Raises:
      StrategyError: TF_CONFIG is not what it should be.
    """
    found: dict[str, list[str]] = _tf_config().get("cluster", {})
    return {kind: addresses for kind, addresses in found.items() if addresses}


def cluster_size() -> int:
    """How many processes train together."""
    return sum(len(cluster().get(kind, ())) for kind in ("chief", "worker"))


def is_chief() -> bool:
    """Whether this process writes: the only one, the chief, or worker 0 where there is no chief."""
    if cluster_size() < 2:
        return True
    task = _tf_config().get("task", {})
    if "chief" in cluster():
        return bool(task.get("type") == "chief")
    return int(task.get("index", 0)) == 0


def worker_number() -> int:
    """This process's number among the workers, for folders of its own."""
    if cluster_size() < 2:
        return 0
    task = _tf_config().get("task", {})
    index = int(task.get("index", 0))
    return index + len(cluster().get("chief", ())) if task.get("type") == "worker" else index


_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


@contextlib.contextmanager
def precision(name: str) -> Any:
    """Keras builds layers that compute in this type, with float32 weights (mixed precision)."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICIES[name])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
