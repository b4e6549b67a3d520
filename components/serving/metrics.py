"""What Prometheus reads at /metrics, besides KServe's own latencies."""

from prometheus_client import Counter, Gauge

from components.inference.prediction_log import PredictionLog
from components.registry.store import Labels

LABEL_VERSION = Gauge(
    "serving_label_version", "The version that a label serves.", ["model_name", "label"]
)
LABEL_STALE = Gauge(
    "serving_label_stale",
    "1 while a label serves another version than labels.json says: it cannot be read or loaded.",
    ["model_name", "label"],
)
ROWS = Counter("serving_rows", "Rows predicted.", ["model_name", "version"])
CALLS = Counter(
    "serving_model_calls",
    "Calls of the SavedModel; rows by calls is how many rows were predicted together.",
    ["model_name", "version"],
)
_LOGGED = Gauge("prediction_log_rows_written", "Rows in files of the prediction log.")
_DROPPED = Gauge("prediction_log_rows_dropped", "Rows that the prediction log could not take.")


def show_log(log: PredictionLog) -> None:
    """Shows the prediction log's own counts."""
    _LOGGED.set_function(lambda: log.written)
    _DROPPED.set_function(lambda: log.dropped)


def show_labels(model: str, serves: Labels, pointed: Labels) -> None:
    """Shows what labels serve.

    Args:
        model: The model's name.
        serves: The version by label.
        pointed: The version that it should be; a label that should not be there is stale too.
    """
    for gauge in (LABEL_VERSION, LABEL_STALE):
        gauge.clear()
    for label, version in serves.items():
        LABEL_VERSION.labels(model, label).set(version)
    for label in {*serves, *pointed}:
        LABEL_STALE.labels(model, label).set(serves.get(label) != pointed.get(label))
