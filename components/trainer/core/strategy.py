"""The one place that turns a name into a strategy (Distribution Strategy, pattern 14).

Parameter servers are left out: their updates are asynchronous, so a training could neither be
repeated nor gone on with exactly.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import keras
import tensorflow as tf

_EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
)
_SECONDS_TO_REACH = 20.0
_HALF = 1 << 20
"""Numbers of rows are sent in two halves, as float32 holds whole numbers up to 2^24 only."""


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
        if not cluster() and not options["workers"]:
            raise StrategyError(
                "training.strategy is 'multi_worker', but there is neither TF_CONFIG nor "
                "training.workers. Set training.workers to start so many processes on this "
                f"machine, or TF_CONFIG in each machine of a cluster: {_EXAMPLE}."
            )
    elif len(cluster()) > 1:
        raise StrategyError(
            f"TF_CONFIG names {len(cluster())} workers, but training.strategy is '{name}': each "
            "would train a model of its own. Unset TF_CONFIG, or set "
            "training.strategy=multi_worker."
        )
    elif name == "mirrored":
        _copies()


def create(options: dict[str, Any]) -> tf.distribute.Strategy:
    """Makes the strategy; call it before anything else of TensorFlow runs.

    Args:
      options: `training` as in `configs/*.yaml`.

    Raises:
      StrategyError: this machine or its environment does not have what the strategy needs.
    """
    check(options)
    name = options["strategy"]
    if name == "auto" and len(tf.config.list_physical_devices("GPU")) > 1:
        name = "mirrored"
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(_copies())
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        return _tpu(options["tpu"] or {"name": "local", "zone": None, "project": None})
    return tf.distribute.get_strategy()  # the one device that TensorFlow takes by itself


def _copies() -> list[str]:
    """The devices that each hold a copy of the model: GPUs, or several logical CPUs."""
    gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
    cpus = [device.name for device in tf.config.list_logical_devices("CPU")]
    if not gpus and len(cpus) < 2:
        raise StrategyError(
            "training.strategy is 'mirrored', which copies the model to several GPUs, but "
            f"TensorFlow finds {len(gpus)} GPUs and {len(cpus)} CPU device here. Set "
            "training.strategy=auto, or multi_worker to use several processes."
        )
    return gpus or cpus


def _tpu(tpu: dict[str, Any]) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            tpu["name"], zone=tpu["zone"], project=tpu["project"]
        )
        if tpu["name"] != "local":
            # TensorFlow itself would wait for an address that is dead without an end.
            address = urlsplit(resolver.master())
            socket.create_connection((address.hostname, address.port), _SECONDS_TO_REACH).close()
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


def cluster() -> list[str]:
    """The addresses of all workers that TF_CONFIG names, the chief's first; none without it.

    Raises:
      StrategyError: TF_CONFIG is not what it should be.
    """
    return _cluster()[0]


def worker_number() -> int:
    """This process's number in `cluster`; 0 is the one that writes, or the only one.

    Raises:
      StrategyError: TF_CONFIG is not what it should be.
    """
    return _cluster()[1]


def _cluster() -> tuple[list[str], int]:
    if not os.environ.get("TF_CONFIG"):
        return [], 0
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    try:
        tasks = resolver.cluster_spec().as_dict()
        kind, index = resolver.task_type, int(resolver.task_id or 0)
    except (ValueError, TypeError, AttributeError) as error:
        raise StrategyError(
            f"TF_CONFIG is not what TensorFlow expects: {os.environ['TF_CONFIG'][:200]!r}. "
            f"Expected JSON: {_EXAMPLE}."
        ) from error
    if unknown := sorted(set(tasks) - {"chief", "worker"}):
        raise StrategyError(
            f"TF_CONFIG names tasks of type {', '.join(unknown)}; only 'chief' and 'worker' can "
            "train synchronously. Parameter servers and evaluators are not supported."
        )
    chief = tasks.get("chief", [])
    number = index + len(chief) if kind == "worker" else index
    return [*chief, *tasks.get("worker", [])], number


def is_chief() -> bool:
    """Whether this process writes: the only one, the chief, or worker 0 where there is no chief."""
    return worker_number() == 0


def sum_over_replicas(values: list[Any]) -> list[Any]:
    """Sums tensors of all replicas in one exchange; each gets the same. All have to call it.

    An exchange between workers is mostly waiting. TensorFlow sends the dense tensors of a call as
    one vector, but each sparse one in exchanges of its own. So each replica writes its sparse ones
    into its row of a matrix of zeros, and the sum holds those of all.

    Args:
      values: float32 tensors or IndexedSlices, of static shape; None stays None.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return values
    dense = [value for value in values if isinstance(value, tf.Tensor)]
    own = [tf.zeros([0])]
    for value in values:
        if isinstance(value, tf.IndexedSlices):
            high, low = value.indices // _HALF, value.indices % _HALF
            parts = value.values, tf.cast(high, tf.float32), tf.cast(low, tf.float32)
            own += [tf.reshape(part, [-1]) for part in parts]
    replicas = tf.range(context.num_replicas_in_sync)[:, None]
    placed = tf.where(replicas == context.replica_id_in_sync_group, tf.concat(own, axis=0), 0.0)
    *summed, gathered = context.all_reduce("SUM", [*dense, placed])
    tensors = iter(summed)
    _, *columns = tf.split(gathered, [part.shape[0] for part in own], axis=1)
    parts = iter(columns)

    def received(value: Any) -> Any:
        if not isinstance(value, tf.IndexedSlices):
            return None if value is None else next(tensors)
        rows = tf.reshape(next(parts), [-1, *value.values.shape[1:]])
        high, low = (tf.reshape(tf.cast(next(parts), tf.int64), [-1]) for _ in range(2))
        return tf.IndexedSlices(rows, high * _HALF + low, value.dense_shape)

    return [received(value) for value in values]


def sum_over_workers(strategy: tf.distribute.Strategy, values: list[float]) -> list[float]:
    """Sums numbers of all processes; each gets the same. All have to call it."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return values
    replicas_here = strategy.num_replicas_in_sync // len(cluster())
    summed = _summed(strategy, tf.constant(values, tf.float64)) / replicas_here
    return [float(value) for value in summed]


@tf.function(autograph=False, reduce_retracing=True)
def _summed(strategy: tf.distribute.Strategy, values: tf.Tensor) -> tf.Tensor:
    return strategy.reduce("SUM", strategy.run(lambda: values), axis=None)


_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Keras builds layers that compute in this type, with float32 weights (mixed precision)."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICIES[name])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
