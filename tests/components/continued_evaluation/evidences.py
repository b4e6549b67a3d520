"""Evidence of an ordinary span, to be changed in one thing at a time."""

from typing import Any

from components.continued_evaluation.evidence import Evidence, Value
from components.continued_evaluation.settings import ContinuedEvaluation

SETTINGS = ContinuedEvaluation.model_validate(
    {
        "limits": [
            {"metric": "auc", "at_least": 0.8, "below_promotion": 0.05},
            {"metric": "log_loss", "below_promotion": 0.1},
            {"metric": "accuracy", "at_least": 0.6, "slices": ["shop"], "gap": 0.2},
        ],
        "age": {"spans": 4, "days": 365},
    }
)


def value(middle: float | None, half: float = 0.01) -> Value:
    """A metric with an interval of twice `half`."""
    if middle is None:
        return Value(value=None)
    return Value(value=middle, low=middle - half, high=middle + half)


def by_slice(auc: float | None, log_loss: float, shops: dict[str, float]) -> dict[str, Any]:
    """A model's metrics over all rows and by shop."""
    overall = {"auc": value(auc), "log_loss": value(log_loss), "accuracy": value(0.8)}
    slices = {
        f"shop={shop}": {"auc": value(None), "log_loss": value(log_loss), "accuracy": value(right)}
        for shop, right in shops.items()
    }
    return {"overall": overall, **slices}


def ordinary(**changes: Any) -> Evidence:
    """Nothing is wrong, unless something is changed."""
    plain = {"overall": {"auc": 0.9, "log_loss": 0.2, "accuracy": 0.8}, "shop=A": {"accuracy": 0.8}}
    gain = {"overall": {"auc": value(0.0), "log_loss": value(0.0)}}
    found: dict[str, Any] = {
        "span": 12,
        "rows": {"total": 1000},
        "champion": 3,
        "previous": 2,
        "metrics": {
            "champion": by_slice(0.9, 0.2, {"A": 0.8, "B": 0.75}),
            "previous": by_slice(0.9, 0.2, {"A": 0.8, "B": 0.75}),
            "heuristic": by_slice(0.85, 0.3, {"A": 0.8, "B": 0.75}),
            "over_previous": gain,
        },
        "rows_by_slice": {"overall": 1000, "shop=A": 500, "shop=B": 500},
        "promoted": {"champion": plain, "heuristic": {"overall": {"auc": 0.85, "log_loss": 0.3}}},
        "moved": [],
        "anomalies": [],
        "age": {"spans": 1, "days": 90.0},
    }
    return Evidence.model_validate(found | changes)


def models(**changed: Any) -> dict[str, Any]:
    """The models' metrics, some of them other ones."""
    return {**ordinary().model_dump()["metrics"], **changed}


def moved(
    against: str, found: float, limit: float = 0.3, column: str = "fare"
) -> list[dict[str, Any]]:
    """A column that has moved so far."""
    measured = {"column": column, "measure": "infinity_norm", "against": against}
    return [{**measured, "value": found, "limit": limit}]
