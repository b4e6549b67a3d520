"""What stands for a missing value in a dense column, by the schema's type of the column."""

from typing import Any

MISSING: dict[str, Any] = {"BYTES": b"", "INT": -(1 << 63), "FLOAT": float("nan")}
